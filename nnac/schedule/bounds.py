"""What no order of an entry's instructions can beat: the least cycles in which a machine can do them, and the unit that
says so.

Only what an instruction *needs* is kept of the program: that of which it reads the result.  Order within a unit,
semaphores, and where things lie are left out, so the bound holds for every schedule of these instructions, and each of
its terms is a duration of one of them.  Of each instruction, and of the end, it is true that

- it starts after what it needs has ended, with the latency of that;
- of all that it needs, directly or not, what runs on one unit runs there one after the other.  Of any part of it: not
  before the earliest start in that part, and from the end of the last a way leads on, at least the part's shortest;
- while a vector instruction runs no sums leave the accumulators, so the multipliers work on no more than the banks
  hold, of what neither needs the other;
- of the tiles that instructions after some point use, W holds no more at that point than fits, and those among them
  that were used before it too; DRAM is asked for the others later.

So a recurrence, whose next vector needs all of the last, adds up, layer after layer, by whichever unit is the slower in
each (`Bound.shares`).  Resources besides the units: the DRAM bus and the decoder, through which a tile passes in turn.
While the CPU has the activations (HOST) no unit that touches them runs: its time is also theirs, and that of DRAM but
for what fills W.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac.emulator.hazards import ranges
from nnac.emulator.timing import stream_bursts
from nnac.isa import HOST, LDW, MVM, DmaInstruction, Instruction, MachineConfig, StreamInstruction
from nnac.isa.operands import Range
from nnac.program import HostCall, Port, Program
from nnac.schedule.order import Memory
from nnac.schedule.proof import decoded

NAMES = {"BUS": "DRAM", "DECODER": "decoder", "DA": "rows and parameters", "MV": "multipliers", "VX": "vector unit",
         "CPU": "CPU", "CT": "fetch", "": "latency"}
STOPPED = ("MV", "VX", "DA")           # units that touch activations, which the CPU has while it works
NEVER = -(1 << 60)


@frozen
class Bound:
    """``cycles``: the least.  ``shares``: of which so many are the work of this resource, along what decides."""

    cycles: float
    shares: Mapping[str, float]

    @property
    def name(self) -> str:
        """Of the resource that has the largest share."""
        return max(self.shares, key=lambda n: self.shares[n])

    @property
    def by(self) -> str:
        """The resources that have a hundredth of it and more, the largest first: ``DRAM 95 %, CPU 5 %``."""
        shares = sorted(self.shares.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {share / self.cycles:.0%}".replace("%", " %") for name, share in shares
                         if share >= 0.01 * self.cycles)

    def __str__(self) -> str:
        return f"{self.cycles:,.0f} cycles: {self.by}"


@define
class Tasks:
    """Everything that occupies a resource, in an order in which what is needed comes first.  A *join* occupies nothing:
    it is the point at which all of several tasks have ended.

    busy, after  cycles of its unit; from its start to the first in which its result is there
    needs        (task, cycles from its start to the start of this one, at least)
    joins        by what they join
    tiles        (task on the bus, in the decoder, words of W)
    parts        tasks in the decoder of whose tiles products use a part
    vectors      of vector instructions
    sums         of the multipliers' tasks: whose products are added up in one bank, by the first of them
    unread       of those, by the same name, what no vector instruction reads
    """

    unit: list[str] = field(factory=list)
    busy: list[int] = field(factory=list)
    after: list[int] = field(factory=list)
    earliest: list[int] = field(factory=list)
    needs: list[list[tuple[int, int]]] = field(factory=list)
    joins: dict[tuple[int, ...], int] = field(factory=dict)
    tiles: list[tuple[int, int, int]] = field(factory=list)
    parts: set[int] = field(factory=set)
    vectors: list[int] = field(factory=list)
    sums: dict[int, int] = field(factory=dict)
    unread: set[int] = field(factory=set)

    def add(self, unit: str, busy: int, after: int, earliest: int, needs: Iterable[tuple[int, int]]) -> int:
        self.unit.append(unit)
        self.busy.append(busy)
        self.after.append(after)
        self.earliest.append(earliest)
        self.needs.append(list(needs))
        return len(self.unit) - 1

    def ways(self, tasks: Iterable[int], unit: str) -> list[tuple[int, int]]:
        """What a task of ``unit`` needs of others: the next on the same unit need not wait for its latency."""
        return [(t, self.busy[t] if self.unit[t] == unit else self.after[t]) for t in tasks]

    def join(self, tasks: tuple[int, ...], unit: str) -> int:
        """The point at which a task of ``unit`` has all of ``tasks``."""
        ways = self.ways(tasks, unit)
        key = tuple(x for way in ways for x in way)
        if key not in self.joins:
            self.joins[key] = self.add("", 0, 0, 0, ways)
        return self.joins[key]


def tasks_of(code: Sequence[Instruction], config: MachineConfig,
             host: Sequence[tuple[Sequence[Range], Sequence[Range]]], bursts: Sequence[int]) -> Tasks:
    """host  what each part of the CPU reads and writes      bursts  of each instruction"""
    memory: defaultdict[str, Memory] = defaultdict(Memory)
    data = [int(-(-n * config.burst_cycles // 1)) for n in bursts]
    full = max((d / i.live for i, d in zip(code, data, strict=True) if isinstance(i, LDW) and i.live), default=0.0)
    fill = int(full * config.stream_words) + 1          # cycles of the bus that W has room for, at most
    tasks, made = Tasks(), list[list[int]]()            # tasks whose end is the end of an instruction
    banks: dict[int, int] = {}                          # the first product of what each holds
    for at, i in enumerate(code):
        reads, writes = host[i.id] if isinstance(i, HOST) and i.id < len(host) else ranges(i, config)
        writers: defaultdict[bool, set[int]] = defaultdict(set)       # of activations, of the rest
        for space, start, end in reads:
            if start < end:
                memory[space].read(start, end, at, "", writers[space == "A"])
        for space, start, end in writes:
            if start < end:
                memory[space].write(start, end, at, set())
        values, others = (tuple(t for n in sorted(writers[is_a]) for t in made[n]) for is_a in (True, False))
        if values and (i.unit == "MV" or len({tasks.unit[t] for t in values}) < len(values)):
            needs = [(tasks.join(values, i.unit), 0)]
        else:
            needs = tasks.ways(values, i.unit)
        needs += tasks.ways(others, i.unit)
        made.append(_added(tasks, i, config, needs, data[at], fill))
        if isinstance(i, MVM):                         # a part of a tile says nothing of the whole one's place in W
            loads = [(n, load) for n in writers[False] if isinstance(load := code[n], LDW)]
            tasks.parts.update(made[n][0] for n, load in loads if (load.word, load.live) != (i.word, i.words))
            if i.clear or i.bank not in banks:
                banks[i.bank] = made[at][0]
                tasks.unread.add(made[at][0])
            tasks.sums[made[at][0]] = banks[i.bank]
        elif i.unit == "VX":
            tasks.vectors.append(made[at][0])
            tasks.unread.difference_update(tasks.sums[made[n][0]] for n in writers[False] if isinstance(code[n], MVM))
    return tasks


def _added(tasks: Tasks, i: Instruction, config: MachineConfig, needs: list[tuple[int, int]], data: int,
           fill: int) -> list[int]:
    """The tasks of an instruction.  It stands in its queue from cycle 1 on.

    data  cycles on the bus      fill  of all that W has room for
    """
    if isinstance(i, StreamInstruction):
        bus = tasks.add("BUS", data, data, 2 + config.latency, ())
        decode = i.decode_cycles(config)
        decoder = tasks.add("DECODER", decode, decode, 0, [(bus, data), *needs])
        if isinstance(i, LDW):
            tasks.tiles.append((bus, decoder, i.live))
        return [decoder]
    if isinstance(i, DmaInstruction):
        ready = i.ready(config)
        whole = tasks.add("DA", ready + data, ready + data, 1, needs)
        return [whole, tasks.add("BUS", data, data, 0, [(whole, ready)])]
    busy, after = i.cycles(config)
    if isinstance(i, HOST):
        idle = max(0, busy - fill)
        stopped = [tasks.add(unit, busy, after, 0, needs) for unit in ("CPU", *STOPPED)]
        return [*stopped, tasks.add("BUS", idle, idle, 0, needs)]
    return [tasks.add(i.unit, busy, after, 0 if i.unit == "CT" else 1, needs)]


def bound(program: Program, entry: str) -> Bound:
    """Of one call of ``entry``."""
    return of_code(decoded(program.entries[entry]), MachineConfig.of(program.target), program.host)


def of_code(code: Sequence[Instruction], config: MachineConfig, host: Sequence[HostCall] = ()) -> Bound:
    """Of instructions.  ``host``: what the parts of the CPU read and write; one that is not there, all of A."""
    parts = [(_places((*c.inputs, *c.states)), _places((c.output, *c.states))) for c in host]
    return least(tasks_of(code, config, parts, stream_bursts(code, config)), config)


def _places(ports: Iterable[Port]) -> list[Range]:
    return [("A", *r) for p in ports for r in p.ranges]


def least(tasks: Tasks, config: MachineConfig) -> Bound:
    """The bound of all tasks together."""
    end = tasks.add("", 0, 0, 0, tasks.ways(range(len(tasks.unit)), ""))
    joins = [*tasks.joins.values(), end]
    ways, behind, busy = _ways(tasks, joins), _behind(tasks, joins), np.array(tasks.busy)
    units = np.array(tasks.unit)
    of_unit = {u: np.flatnonzero(units == u) for u in dict.fromkeys(tasks.unit) if u}
    start, why = np.zeros(len(busy), np.int64), list[tuple[int, str]]()     # the task before, and what lies between
    number = {t: g for g, t in enumerate(joins)}
    tiles = _tiles(tasks, behind, ways > NEVER, busy, config)
    waits = _waits(tasks, busy, config)
    both = np.flatnonzero((units == "MV") | (waits > 0)) if waits.any() else np.array([], int)
    taken = np.where(units == "MV", busy, waits)
    for t in range(len(busy)):
        best = (tasks.earliest[t], -1, "")
        for need, way in tasks.needs[t]:
            if start[need] + way > best[0]:
                best = (int(start[need]) + way, need, tasks.unit[need])
        if (g := number.get(t)) is not None:
            found = [_one_by_one(u, own, busy, busy, start, ways[:, g]) for u, own in of_unit.items()]
            found.append(_one_by_one("MV", both, taken, busy, start, ways[:, g]))
            best = max(best, *found, _held(tiles, busy, start, ways[:, g], joins[:g], config), key=lambda b: b[0])
        start[t] = best[0]
        why.append(best[1:])
    return Bound(int(start[end]), _shares(start, why, end))


Reason = tuple[int, int, str]              # (cycle before which a point cannot be, a task that decides it, unit)


def _one_by_one(unit: str, own: NDArray, taken: NDArray, busy: NDArray, start: NDArray, way: NDArray) -> Reason:
    """When all of a unit's tasks that lead to a join can be over.

    taken  cycles of the unit that pass while each of them runs, for ``busy`` cycles
    way    from the start of each task to the join; NEVER: it does not lead there
    """
    own = own[way[own] > NEVER]
    if not len(own):
        return 0, -1, ""
    own = own[np.argsort(-start[own], kind="stable")]
    ends = start[own] + np.cumsum(taken[own]) + np.minimum.accumulate(way[own] - busy[own])
    best = int(np.argmax(ends))
    return int(ends[best]), int(own[best]), unit


def _waits(tasks: Tasks, busy: NDArray, config: MachineConfig) -> NDArray:
    """Cycles that the multipliers wait while each task of the vector unit runs, at least; int64 [tasks].

    No sums leave the accumulators meanwhile.  So the products of that time belong to as many sums as there are banks,
    of those that it neither needs nor makes possible.
    """
    out = np.zeros(len(busy), np.int64)
    if not tasks.sums or tasks.unread:
        return out
    products = np.array(list(tasks.sums))
    sums = np.unique(list(tasks.sums.values()), return_inverse=True)[1]
    least = np.sort(np.bincount(sums, busy[products]))[: config.banks].sum()
    long = [t for t in tasks.vectors if busy[t] > least]
    if not long:
        return out
    beside = ~(_behind(tasks, long) | _leading(tasks, long))[products]
    work = np.zeros((sums.max() + 1, len(long)), np.int64)
    np.add.at(work, sums, busy[products][:, None] * beside)
    out[long] = np.maximum(0, busy[long] - np.sort(work, 0)[-config.banks:].sum(0))
    return out


@frozen(eq=False)
class Tiles:
    """The tiles that products use.

    bus     tasks on the bus      words  of W
    later   which of them tasks behind each join use and none that leads to it, bool [joins, tiles]; ``counted``: as
            0.0 and 1.0
    room    words of W that those can have at each join: the others have what is used behind it and leads to it too
    slow    their numbers, those of the most cycles of the bus a word first
    """

    bus: NDArray
    words: NDArray
    later: NDArray
    counted: NDArray
    room: NDArray
    slow: NDArray


def _tiles(tasks: Tasks, behind: NDArray, leads: NDArray, busy: NDArray, config: MachineConfig) -> Tiles:
    """behind, leads  which tasks cannot start before each join, and cannot end after it, bool [tasks, joins]"""
    users: dict[int, list[int]] = defaultdict(list)
    for t, needs in enumerate(tasks.needs):
        for need, _ in needs:
            if tasks.unit[t] == "MV" and tasks.unit[need] == "DECODER":
                users[need].append(t)
    used = [(bus, words, users[decoder]) for bus, decoder, words in tasks.tiles
            if words and users[decoder] and decoder not in tasks.parts]
    bus, words = (np.array([u[k] for u in used], int) for k in range(2))
    shape = len(used), behind.shape[1]
    after = np.array([behind[own].any(0) for _, _, own in used], bool).reshape(shape)
    across = after & np.array([leads[own].any(0) for _, _, own in used], bool).reshape(shape)
    later = np.ascontiguousarray((after & ~across).T)
    room = config.stream_words - words @ across
    return Tiles(bus, words, later, later.astype(np.float64), room, np.argsort(-busy[bus] / words, kind="stable"))


def _held(tiles: Tiles, busy: NDArray, start: NDArray, way: NDArray, joins: Sequence[int],
          config: MachineConfig) -> Reason:
    """When the tiles that lead to a join can be there: of those that are used behind another one of ``joins``, W held
    at that point no more than it has room for, and the others are asked for after it."""
    bus, words = tiles.bus, tiles.words
    leads = way[bus] > NEVER
    if not leads.any() or not joins:
        return 0, -1, ""
    counted = tiles.counted[: len(joins)]                  # by the processor's own products, and exactly
    in_w, on_bus = (counted @ (np.stack([words, busy[bus]], 1) * leads[:, None])).T.astype(np.int64)
    more = np.flatnonzero(in_w > (room := tiles.room[: len(joins)]))
    if not len(more):
        return 0, -1, ""

    def first(order: NDArray) -> NDArray:
        """Of the tiles that are used behind each join, the first in this order."""
        order = order[leads[order]]
        return order[tiles.later[np.ix_(more, order)].argmax(1)]

    tail = way[bus] - busy[bus]
    soon, slow = first(np.argsort(tail, kind="stable")), first(tiles.slow)
    held = np.ceil(room[more] * (busy[bus[slow]] / words[slow])).astype(np.int64)
    ends = start[np.array(joins)[more]] + 2 + config.latency + on_bus[more] - held + tail[soon]
    best = int(np.argmax(ends))
    return int(ends[best]), joins[more[best]], "BUS"


def _ways(tasks: Tasks, joins: Sequence[int]) -> NDArray:
    """Longest way from the start of each task to each join, in cycles, int64 [tasks, joins]; NEVER: there is none."""
    out = np.full((len(tasks.unit), len(joins)), NEVER, np.int64)
    for g, t in enumerate(joins):
        out[t, g] = 0
    for t in reversed(range(len(tasks.unit))):
        row = out[t]
        for need, way in tasks.needs[t]:
            np.maximum(out[need], row + way, out=out[need], where=row > NEVER)
    return out


def _behind(tasks: Tasks, points: Sequence[int]) -> NDArray:
    """Which tasks cannot start before each of ``points``, bool [tasks, points]."""
    out = np.zeros((len(tasks.unit), len(points)), bool)
    out[points, range(len(points))] = True
    for t, needs in enumerate(tasks.needs):
        for need, _ in needs:
            out[t] |= out[need]
    return out


def _leading(tasks: Tasks, points: Sequence[int]) -> NDArray:
    """Which tasks each of ``points`` cannot start before, bool [tasks, points]."""
    out = np.zeros((len(tasks.unit), len(points)), bool)
    out[points, range(len(points))] = True
    for t in reversed(range(len(tasks.unit))):
        for need, _ in tasks.needs[t]:
            out[need] |= out[t]
    return out


def _shares(start: NDArray, why: Sequence[tuple[int, str]], end: int) -> dict[str, int]:
    """Cycles of the bound by the resource that has them, back from the end along what decides."""
    shares: dict[str, int] = defaultdict(int)
    t = end
    while t >= 0:
        before, unit = why[t]
        shares[NAMES[unit]] += int(start[t] - (start[before] if before >= 0 else 0))
        t = before
    return dict(shares)
