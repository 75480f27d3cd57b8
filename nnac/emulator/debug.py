"""Single step and breakpoints: a program under the magnifying glass, by typed or scripted commands.

Instructions are executed in the order in which they start on the machine; before each, the debugger can stop.  (The
race detector proves that this order and program order give the same integers.)  Everything goes through
`Debugger.command`, text in and text out.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np
from attrs import define, field

from nnac.emulator.errors import MachineError
from nnac.emulator.hazards import check_races, ranges
from nnac.emulator.machine import Machine
from nnac.emulator.timing import Timing, simulate
from nnac.isa import UNITS
from nnac.isa.base import bits
from nnac.isa.config import SEMAPHORES

HELP = """\
step [N]                    execute N instructions (1), in the order in which they start
run                         execute up to a breakpoint or the end
until CYCLE                 execute everything that starts before CYCLE
break INDEX                 stop before instruction INDEX of the entry
break layer PATTERN         stop before instructions of a layer (* matches any name)
break cycle CYCLE           stop before the first instruction that starts in CYCLE or later
break read|write A|W|ACC FIRST [END]      stop before an instruction that reads or writes there
breaks · delete N           list breakpoints · remove number N
where · list [N]            the next instruction · and its neighbours in program order
units · semaphores          what each unit does in this cycle · the counts in this cycle
print A ADDRESS COUNT i8|i16|i32|u8        bytes of A as integers (of every utterance)
print W WORD · print ACC BANK COLUMN · print LUT SLOT
print NAME                  an input, output or state by name
restart · quit"""


@define
class Breakpoint:
    text: str
    hit: Callable[[int], bool]
    once: bool = False


class CommandError(ValueError):
    """A command that makes no sense: what and why."""


@define(eq=False, slots=False)
class Debugger:
    """Debugs one entry of ``machine``.  The machine's memories are changed as the program changes them."""

    machine: Machine
    entry: str = "main"
    breakpoints: list[Breakpoint] = field(factory=list)
    position: int = 0
    finished: bool = False
    order: list[int] = field(factory=list)
    warning: str = ""

    def __attrs_post_init__(self) -> None:
        self.e = self.machine.image.entry(self.entry)
        try:
            self.timing: Timing = simulate(self.e.code, self.e.config)
        except MachineError as error:
            raise self.e.locate(error) from None
        try:
            check_races(self.e.code, self.timing, self.e.config, self.e.sizes)
        except MachineError as error:
            self.warning = str(self.e.locate(error))                 # a program with a race is worth debugging
        self.order = sorted(range(len(self.e.code)), key=lambda k: (int(self.timing.start[k]),
                                                                    int(self.timing.unit[k])))
        self._before = self.machine.memories.saved()

    # ---- commands

    def command(self, line: str) -> str:
        """Do one command and return what it has to say.  An unknown or wrong command says so and changes nothing."""
        words = line.split()
        if not words:
            return ""
        name, *arguments = words
        known = {k[len("do_"):]: getattr(self, k) for k in dir(self) if k.startswith("do_")}
        found = [known[name]] if name in known else [f for k, f in sorted(known.items()) if k.startswith(name)]
        if not found:
            return f"no command is called `{name}`; `help` lists them"
        try:
            return found[0](*arguments)
        except CommandError as error:
            return str(error)
        except TypeError:
            return f"`{name}` does not take {' '.join(arguments) or 'nothing'}; `help` says what it takes"
        except MachineError as error:
            self.finished = True
            return str(error)

    def do_help(self) -> str:
        return HELP

    def do_quit(self) -> str:
        self.finished = True
        return ""

    def do_restart(self) -> str:
        self.machine.memories.restore(self._before)
        self.position, self.finished = 0, False
        return self.do_where()

    def do_step(self, count: str = "1") -> str:
        for _ in range(_number(count)):
            if self.position == len(self.order):
                break
            self._execute()
        return self.do_where()

    def do_run(self) -> str:
        return self._run(lambda at: False)

    def do_continue(self) -> str:
        return self.do_run()

    def do_until(self, cycle: str) -> str:
        limit = _number(cycle)
        return self._run(lambda at: self.timing.start[at] >= limit)

    def do_break(self, *what: str) -> str:
        self.breakpoints.append(self._breakpoint(what))
        return f"breakpoint {len(self.breakpoints)}: {self.breakpoints[-1].text}"

    def do_breaks(self) -> str:
        return "\n".join(f"{k}: {b.text}" for k, b in enumerate(self.breakpoints, 1)) or "no breakpoints"

    def do_delete(self, number: str) -> str:
        k = _number(number)
        if not 1 <= k <= len(self.breakpoints):
            raise CommandError(f"there is no breakpoint {k}")
        return f"removed: {self.breakpoints.pop(k - 1).text}"

    def do_where(self) -> str:
        if self.position == len(self.order):
            return f"{self.entry} is finished, {self.timing.cycles} cycles"
        at = self.order[self.position]
        layer, origin = self.e.origins[at]
        place = "".join(f"\n    {name} {value}" for name, value in (("layer", layer), ("policy", origin)) if value)
        return f"cycle {self.cycle}: {self._line(at)}{place}"

    def do_list(self, around: str = "4") -> str:
        n = _number(around)
        at = self.order[min(self.position, len(self.order) - 1)]
        done = set(self.order[: self.position])
        span = range(max(0, at - n), min(len(self.e.code), at + n + 1))
        return "\n".join(f"{'->' if k == at else ' *' if k in done else '  '} {self._line(k)}" for k in span)

    def do_units(self) -> str:
        t, c, lines = self.timing, self.cycle, []
        for unit, name in enumerate(UNITS):
            mine = [int(k) for k in np.flatnonzero(t.unit == unit)]
            running = [k for k in mine if t.start[k] <= c <= t.done[k]]
            waiting = next((k for k in mine if t.start[k] > c and t.arrive[k] <= c), None)
            text = "; ".join(self._line(k) for k in running)
            if waiting is not None:
                lacking = [f"s{s}" for s in bits(self.e.code[waiting].wait) if not self.semaphores()[s]]
                text += ("; " if text
                         else "") + f"waits{' for ' + ', '.join(lacking) if lacking else ''}: {self._line(waiting)}"
            lines.append(f"{name}: {text or 'idle'}")
        return "\n".join(lines)

    def do_semaphores(self) -> str:
        return " ".join(f"s{s}={k}" for s, k in enumerate(self.semaphores()))

    def do_print(self, what: str, *arguments: str) -> str:
        m, numbers = self.machine.memories, [_number(a) for a in arguments if a not in _KINDS]
        if what == "A":
            if len(arguments) != 3 or arguments[2] not in _KINDS:
                raise CommandError("`print A` takes an address, a count and one of i8, i16, i32, u8")
            size = numbers[1] * np.dtype(_KINDS[arguments[2]]).itemsize
            self._inside("A", numbers[0], numbers[0] + size)
            data = np.ascontiguousarray(m.a[:, numbers[0]: numbers[0] + size]).view(_KINDS[arguments[2]])
            return "\n".join(" ".join(map(str, row)) for row in data.tolist())
        if what == "W" and len(numbers) == 1:
            self._inside("W", numbers[0], numbers[0] + 1)
            return f"input {m.index[numbers[0]]}: {' '.join(map(str, m.w[numbers[0]].tolist()))}"
        if what == "ACC" and len(numbers) == 2:
            if numbers[0] >= self.e.config.banks or numbers[1] >= self.e.config.columns:
                raise CommandError(f"ACC has {self.e.config.banks} banks of {self.e.config.columns} columns")
            return "\n".join(" ".join(map(str, row)) for row in m.acc[:, numbers[0], numbers[1]].tolist())
        if what == "LUT" and len(numbers) == 1:
            self._inside("LUT", numbers[0], numbers[0] + 1)
            return " ".join(map(str, m.luts[numbers[0]].tolist()))
        ports = {p.value: p for p in (*self.e.inputs, *self.e.outputs)} | {s.name: s.port
                                                                           for s in self.machine.image.states}
        ports |= {t.port.value: t.port for t in self.e.taps}
        if what not in ports:
            raise CommandError(f"nothing is called `{what}` (there are A, W, ACC, LUT, {', '.join(ports)})")
        return "\n".join(" ".join(map(str, row)) for row in ports[what].gather(m.a).reshape(-1,
            ports[what].width).tolist())

    # ---- what they need

    @property
    def cycle(self) -> int:
        """The cycle in which the next instruction starts."""
        return (int(self.timing.start[self.order[self.position]]) if self.position < len(self.order)
                else self.timing.cycles)

    def semaphores(self) -> list[int]:
        """Counts at the beginning of this cycle."""
        count, c = [0] * SEMAPHORES, self.cycle
        for at, i in enumerate(self.e.code):
            for s in bits(i.signal):
                count[s] += int(self.timing.done[at] < c)
            for s in bits(i.wait):
                count[s] -= int(self.timing.start[at] < c)
        return count

    def _line(self, at: int) -> str:
        return f"[{at}] {self.e.code[at].unit} {self.timing.start[at]}..{self.timing.done[at]}  {self.e.code[at]}"

    def _inside(self, space: str, first: int, end: int) -> None:
        if not 0 <= first < end <= self.e.sizes[space]:
            raise CommandError(f"{space} ends at {self.e.sizes[space]:#x}")

    def _execute(self) -> None:
        at = self.order[self.position]
        try:
            self.machine.memories.execute(self.e.code[at])
        except MachineError as error:
            raise self.e.locate(error.at(self.entry, at, self.e.code[at], cycle=self.cycle)) from None
        self.position += 1

    def _run(self, stop: Callable[[int], bool]) -> str:
        moved = False
        while self.position < len(self.order):
            at = self.order[self.position]
            if stop(at):
                break
            hit = next((k for k, b in enumerate(self.breakpoints) if b.hit(at)), None) if moved else None
            if hit is not None:
                b = self.breakpoints[hit]
                if b.once:
                    self.breakpoints.pop(hit)
                return f"breakpoint: {b.text}\n{self.do_where()}"
            self._execute()
            moved = True
        return self.do_where()

    def _breakpoint(self, what: tuple[str, ...]) -> Breakpoint:
        text = " ".join(what)
        if len(what) == 1:
            index = _number(what[0])
            if index >= len(self.e.code):
                raise CommandError(f"{self.entry} has {len(self.e.code)} instructions")
            return Breakpoint(f"instruction {index}", lambda at: at == index)
        if what and what[0] == "layer" and len(what) == 2:
            # brackets are part of names (lstm[0]), so only * and ? are patterns
            pattern = what[1].replace("[", "[[]")
            if not any(fnmatchcase(layer, pattern) for layer, _ in self.e.origins):
                raise CommandError(f"no layer matches `{what[1]}` (there are: "
                                   f"{', '.join(dict.fromkeys(n for n, _ in self.e.origins if n))})")
            return Breakpoint(text, lambda at: fnmatchcase(self.e.origins[at][0], pattern))
        if what and what[0] == "cycle" and len(what) == 2:
            cycle = _number(what[1])
            return Breakpoint(text, lambda at: self.timing.start[at] >= cycle, once=True)
        if what and what[0] in ("read", "write") and len(what) in (3, 4) and what[1] in ("A", "W", "ACC"):
            first = _number(what[2])
            end = _number(what[3]) if len(what) == 4 else first + 1
            self._inside(what[1], first, end)
            side = int(what[0] == "write")
            return Breakpoint(text, lambda at: any(s == what[1] and f < end and first < e
                                                   for s, f, e in ranges(self.e.code[at], self.e.config)[side]))
        raise CommandError("`break` takes an index, `layer PATTERN`, `cycle N`, or `read|write A|W|ACC FIRST [END]`")


_KINDS = {"i8": "<i1", "i16": "<i2", "i32": "<i4", "u8": "<u1"}


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise CommandError(f"`{text}` is not a number") from None
    if value < 0:
        raise CommandError(f"{value} is negative")
    return value
