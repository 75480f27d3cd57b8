"""The machine: runs the encoded bytes of a program, bit by bit and cycle by cycle.

    machine = Machine(program)                     # or Machine(assemble(text)), Machine([LDW(...), ..., HALT()])
    outputs = machine.run("encoder.step", {"features": frames})        # frames [vectors, batch, width]
    machine.cycles, machine.timing("encoder.step")

Function and time are separate.  Function: instructions one after another, in program order (`interpret`), or the same
translated once into large matrix products (`translate`, the default), equal bit for bit.  Time: `timing`, once an
entry, for it depends on no data. `hazards` proves that the two belong together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac.emulator.errors import DataError, MachineError
from nnac.emulator.image import INIT, Entry, Image, image
from nnac.emulator.memory import Memories
from nnac.emulator.timing import Timing
from nnac.emulator.translate import accumulators, cut, translate
from nnac.emulator.translation import Interpreted, Translation
from nnac.isa import HOST, MachineConfig
from nnac.isa.base import BadData
from nnac.program import Port
from nnac.target import Target

Host = Callable[[int, Memories], None]


class Machine:
    """One machine with one program, running ``batch`` utterances in lockstep.

    cycles     spent so far, over all runs          runs   how often each entry ran
    fast       translate entries (the default) or interpret instruction by instruction
    host       called as host(part, memories) by HOST
    The entry ``init``, if there is one, runs at once: it loads pinned weights and tables.
    """

    def __init__(self, program: Any, config: MachineConfig | None = None, *, target: Target | None = None,
                 batch: int = 1,
                 fast: bool = True, host: Host | None = None) -> None:
        self.image: Image = image(program, config, target)
        self.config = self.image.config
        # a translation leaves no accumulators behind, so a program whose entries hand them on is interpreted
        self.fast = fast and not any(hands_on_accumulators(e) for e in self.image.entries.values())
        self.memories = Memories(self.config, self.image.dram, batch, self.image.scratch, self.image.streams)
        self.memories.matrices = self.image.matrices
        self.memories.host = host or self._host
        self.cycles = 0
        self.runs: Counter[str] = Counter()
        self._translations: dict[tuple[int, int, str], Translation | Interpreted] = {}
        self._pieces: dict[str, list[tuple[int, int]]] = {}
        self.reset()
        if INIT in self.image.entries:
            self.run(INIT)

    @property
    def batch(self) -> int:
        return self.memories.batch

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self.image.entries)

    # ---- running

    def run(self, entry: str = "main", inputs: Mapping[str, NDArray] | None = None,
            watch: Callable[[str, NDArray], None] | None = None) -> dict[str, NDArray]:
        """Run one entry: write ``inputs`` (integers [vectors, batch, width] by name), execute, return the outputs
        likewise.

        watch   called with name and integers of every tapped value (interprets).  MachineError: anything the program
                does wrong.
        """
        e = self.image.entry(entry)
        given = dict(inputs or {})
        for port in e.inputs:
            if port.value in given:
                port.scatter(self.memories.a, np.asarray(given.pop(port.value), np.int64))
        if given:
            raise DataError(f"entry {entry} has no input `{next(iter(given))}` (it has: "
                            f"{', '.join(p.value for p in e.inputs) or 'none'})")
        timing = e.timing
        if watch is None and self.fast:
            self._run_translated(e)
        else:
            interpret(e, self.memories, watch)
        self.cycles += timing.cycles
        self.runs[entry] += 1
        return {port.value: port.gather(self.memories.a) for port in e.outputs}

    def _host(self, part: int, m: Memories) -> None:
        """What HOST does when the caller did not say: the program's own description of its parts on the processor."""
        calls = {h.id: h for h in getattr(self.image.source, "host", ())}
        if part not in calls:
            raise DataError(f"the program calls part {part} of the host, and nobody says what that is")
        calls[part].run(m.a)

    def _run_translated(self, e: Entry) -> None:
        """The entry piece by piece: what can be translated, and between that what is interpreted."""
        m, at = self.memories, 0
        pieces = self._pieces.setdefault(e.name, stretches(e))
        while at < len(pieces):
            first, end = pieces[at]
            made = self._translations.get((first, end, e.name))
            if made is None or not made.holds(m):
                made = translate(e, m, first, end)
                if isinstance(made, Interpreted) and made.at is not None:
                    inner = cut(e, first, end, first + made.at)
                    parts = [p for p in ((first, inner[0]), inner, (inner[1], end)) if p[0] < p[1]]
                    pieces[at: at + 1] = parts
                    self._translations[(*inner, e.name)] = made
                    if len(parts) > 1:
                        continue
                self._translations[first, end, e.name] = made
            at += 1
            if isinstance(made, Translation):
                try:
                    made.run(m)
                    continue
                except (MachineError, BadData):
                    # nothing is written before all is computed: the interpreter says where it went wrong
                    pass
            interpret(e, m, None, first, end)

    def translations(self) -> list[Translation | Interpreted]:
        """Those made so far: they print what was joined, or why something is interpreted."""
        return list(self._translations.values())

    def timing(self, entry: str = "main") -> Timing:
        """Cycles of every instruction of one run of ``entry``."""
        return self.image.entry(entry).timing

    # ---- state: resident, named, saved and restored

    def state(self) -> dict[str, NDArray]:
        """Every state: integers [batch, width] by name."""
        return {s.name: s.port.gather(self.memories.a)[0] for s in self.image.states}

    def states_of(self, hypotheses: int) -> dict[str, NDArray]:
        """What has places for so many hypotheses: integers [hypotheses, batch, width] by name."""
        return {s.name: s.of(hypotheses).gather(self.memories.a) for s in self.image.states if s.places >= hypotheses}

    def load_state(self, state: Mapping[str, NDArray]) -> None:
        """Put back what `state` gave, or [hypotheses, batch, width] into as many places; states that are not named
        stay.  DataError: there is no such state."""
        known = {s.name: s for s in self.image.states}
        for name, value in state.items():
            if name not in known:
                raise DataError(f"there is no state `{name}` (there are: {', '.join(known) or 'none'})")
            given = np.asarray(value, np.int64)
            given = given[None] if given.ndim == 2 else given
            known[name].of(len(given)).scatter(self.memories.a, given)

    def reset(self, utterances: Any = None) -> None:
        """Every state to its initial value, for all utterances or those that ``utterances`` (an index of the batch
        axis) picks."""
        at = slice(None) if utterances is None else utterances
        for s in self.image.states:
            part = self.memories.a[at]
            s.port.scatter(part, np.broadcast_to(s.array(), (1, *part.shape[:-1], s.width)))
            self.memories.a[at] = part


def stretches(e: Entry) -> list[tuple[int, int]]:
    """The code cut before and after every HOST: (first, end)."""
    cuts = sorted({0, len(e.code), *(k for at, i in enumerate(e.code) if isinstance(i, HOST) for k in (at, at + 1))})
    return list(pairwise(cuts))


def hands_on_accumulators(e: Entry) -> bool:
    """Whether a stretch of an entry reads accumulators that it has not cleared itself."""
    for first, end in stretches(e):
        cleared: set[int] = set()
        for i in e.code[first:end]:
            if accumulators(i.reads(e.config)) - cleared:
                return True
            cleared |= accumulators(i.writes(e.config))
    return False


def interpret(e: Entry, m: Memories, watch: Callable[[str, NDArray], None] | None = None, first: int = 0,
              end: int | None = None) -> None:
    """Execute (part of) an entry instruction by instruction: the plain meaning, and the oracle of `translate`.

    MachineError names the instruction.
    """
    taps: dict[int, list[Port]] = {}
    for tap in e.taps if watch else ():
        taps.setdefault(tap.after, []).append(tap.port)
    for at in range(first, len(e.code) if end is None else end):
        i = e.code[at]
        try:
            m.execute(i)
        except MachineError as error:
            raise e.locate(error.at(e.name, at, i, cycle=int(e.timing.start[at]))) from None
        if watch is not None:
            for port in taps.get(at, ()):
                watch(port.value, port.gather(m.a))
