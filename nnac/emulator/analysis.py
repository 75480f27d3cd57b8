"""Where the time and the energy go: every cycle of every unit has one reason, every layer its cycles, bytes, operations
and joules.

All of it follows from the timing of one run of an entry (`Timing`), which depends on no data.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from nnac.emulator.image import Entry
from nnac.isa import LDW, MVM, UNITS, MachineConfig, VectorInstruction
from nnac.isa.base import bits
from nnac.isa.config import SEMAPHORES
from nnac.isa.operands import Accumulators
from nnac.target import Target

WORK, EMPTY, END = "work", "empty queue", "finished"
RESOURCES = (*UNITS, "DRAM", "DECODER")


@frozen
class Interval:
    """Cycles first … end-1 of a unit, with one reason.  ``instruction``: what worked, or what waited."""

    unit: str
    first: int
    end: int
    reason: str
    instruction: int = -1

    @property
    def cycles(self) -> int:
        return self.end - self.first


@frozen
class LayerCost:
    """What one layer costs in one run of an entry.  ``cycles``: by unit, from start to free; ``energy``: joules."""

    layer: str
    instructions: int
    cycles: dict[str, int]
    dram_bytes: int
    macs: int
    sram_bytes: int
    vector_lanes: int
    energy: float
    first: int
    last: int


@frozen
class Roofline:
    """One run against the two limits of the machine.

    compute_cycles
    its MACs over those that lanes x columns do in a cycle, at the rate of their formats: with every lane and column
    busy
    memory_cycles    its DRAM bytes over the bandwidth
    matrix_cycles    what its MVMs take without any wait: more than compute_cycles where lanes or columns idle
    """

    cycles: int
    macs: int
    dram_bytes: int
    compute_cycles: Fraction
    memory_cycles: Fraction
    matrix_cycles: int

    @property
    def bound(self) -> Fraction:
        return max(self.compute_cycles, self.memory_cycles)

    @property
    def ratio(self) -> float:
        """Cycles over the higher limit; 1 is perfect."""
        return float(self.cycles / self.bound) if self.bound else float("nan")


@frozen(eq=False, slots=False)
class Analysis:
    """Everything about one entry of a program on a machine."""

    entry: Entry
    target: Target | None = field(default=None, repr=False)

    @property
    def config(self) -> MachineConfig:
        return self.entry.config

    @cached_property
    def tokens(self) -> tuple[list[list[int]], list[list[int]]]:
        """For each semaphore: the cycles in which its tokens became visible, in order, and the instructions that gave
        them."""
        given: list[list[tuple[int, int]]] = [[] for _ in range(SEMAPHORES)]
        for at, i in enumerate(self.entry.code):
            for s in bits(i.signal):
                given[s].append((int(self.entry.timing.done[at]) + 1, at))
        for g in given:
            g.sort()
        return [[c for c, _ in g] for g in given], [[at for _, at in g] for g in given]

    @cached_property
    def taken(self) -> dict[tuple[int, int], int]:
        """(instruction, semaphore) -> the number of the token that it took."""
        e, count, out = self.entry, [0] * SEMAPHORES, {}
        for at in sorted(range(len(e.code)), key=lambda k: (int(e.timing.start[k]), int(e.timing.unit[k]))):
            for s in bits(e.code[at].wait):
                out[at, s] = count[s]
                count[s] += 1
        return out

    def spans(self, resource: str) -> Iterator[Interval]:
        """Every cycle of a unit (or of the DRAM bus, or the decoder) from 0 to the end of the run, in order, each in
        one span."""
        if resource == "DRAM":
            yield from self._bus()
        elif resource == "DECODER":
            yield from self._decoder()
        elif resource == "CT":
            yield from self._fetch()
        else:
            yield from self._unit(UNITS.index(resource))

    def _unit(self, unit: int) -> Iterator[Interval]:
        t, name, now = self.entry.timing, UNITS[unit], 0
        for at in np.flatnonzero(t.unit == unit).tolist():
            start, arrive = int(t.start[at]), int(t.arrive[at])
            if now < min(arrive, start):
                yield Interval(name, now, min(arrive, start), EMPTY, at)
            yield from self._waits(name, max(now, arrive), start, at)
            yield Interval(name, start, int(t.free[at]), WORK, at)
            now = int(t.free[at])
        if now < t.cycles:
            yield Interval(name, now, t.cycles, END)

    def _waits(self, unit: str, now: int, start: int, at: int) -> Iterator[Interval]:
        """The cycles in which instruction ``at`` stood ready in its queue and did not start, by the semaphore that it
        lacked first."""
        visible, givers = self.tokens
        for s in bits(self.entry.code[at].wait):
            k = self.taken[at, s]
            since = min(visible[s][k], start)
            if now < since:
                yield Interval(unit, now, since, f"s{s} from {self.entry.code[givers[s][k]].unit}", at)
                now = since
        if now < start:
            yield Interval(unit, now, start, "ring full" if unit == "DW" else "order of units", at)

    def _fetch(self) -> Iterator[Interval]:
        """CT: a fetch is one cycle of work; otherwise it executes, or waits for room in a queue or for semaphores."""
        t, code, now = self.entry.timing, self.entry.code, 0
        for at, i in enumerate(code):
            if i.unit != "CT":
                fetched = int(t.arrive[at]) - 1
                if now < fetched:
                    yield Interval("CT", now, fetched, f"queue of {i.unit} full", at)
                yield Interval("CT", fetched, fetched + 1, WORK, at)
                now = fetched + 1
            else:
                yield from self._waits("CT", now, int(t.start[at]), at)
                yield Interval("CT", int(t.start[at]), int(t.free[at]), WORK, at)
                now = int(t.free[at])
        if now < t.cycles:
            yield Interval("CT", now, t.cycles, END)

    def _bus(self) -> Iterator[Interval]:
        t, now = self.entry.timing, 0
        # a request is under way from the cycle after its start until its data begin
        first_data: dict[int, int] = {}
        for first, _, at, _ in t.bus:
            first_data.setdefault(at, first)
        pending = sorted((int(t.start[at]) + 1, first) for at, first in first_data.items())
        for first, end, at, _ in t.bus:
            yield from self._gap(now, first, pending)
            yield Interval("DRAM", first, end, self.entry.code[at].unit, at)
            now = end
        if now < t.cycles:
            yield Interval("DRAM", now, t.cycles, END)

    @staticmethod
    def _gap(now: int, end: int, pending: list[tuple[int, int]]) -> Iterator[Interval]:
        """Cycles without data: latency while a request is under way, else nothing was asked for."""
        if now >= end:
            return
        # between two data phases requests only accumulate, so the gap is idle first and latency then; a dozen can be
        # under way at most
        near = pending[max(0, bisect_left(pending, (now, 0)) - 16): bisect_left(pending, (end, 0))]
        since = min((first for first, data in near if data >= end), default=end)
        since = max(now, since)
        if now < since:
            yield Interval("DRAM", now, since, "nothing requested")
        if since < end:
            yield Interval("DRAM", since, end, "latency")

    def _decoder(self) -> Iterator[Interval]:
        t, now = self.entry.timing, 0
        for at in np.flatnonzero(t.decode >= 0).tolist():
            if now < t.decode[at]:
                yield Interval("DECODER", now, int(t.decode[at]), "no tile complete", at)
            yield Interval("DECODER", int(t.decode[at]), int(t.done[at]) + 1, WORK, at)
            now = int(t.done[at]) + 1
        if now < t.cycles:
            yield Interval("DECODER", now, t.cycles, END)

    @cached_property
    def reasons(self) -> dict[str, dict[str, int]]:
        """Cycles by resource and reason; the reasons of a resource add up to the cycles of the run."""
        out: dict[str, dict[str, int]] = {}
        for resource in RESOURCES:
            total: dict[str, int] = defaultdict(int)
            for span in self.spans(resource):
                total[span.reason] += span.cycles
            out[resource] = dict(total)
        return out

    @cached_property
    def utilisation(self) -> dict[str, float]:
        """Share of the run in which each resource worked."""
        busy = {r: sum(n for reason, n in self.reasons[r].items() if reason in (WORK, "DW", "DA")) for r in RESOURCES}
        return {r: n / self.entry.timing.cycles for r, n in busy.items()}

    # ---- costs

    @cached_property
    def outputs(self) -> dict[int, int]:
        """By MVM, the lanes whose sums are read afterwards: its rows.  All of them where nobody in this entry reads."""
        read: dict[tuple[int, int], int] = {}
        out = {}
        for at, i in reversed(list(enumerate(self.entry.code))):
            if isinstance(i, MVM):
                columns = [(i.bank, c) for c in range(i.columns)]
                out[at] = max([read[c] for c in columns if c in read], default=self.config.lanes)
                read = {c: n for c, n in read.items() if not (i.clear and c in columns)}
            else:
                for o in i.inputs(self.config):
                    if isinstance(o, Accumulators):
                        read |= {(o.bank, c): max(o.lanes, read.get((o.bank, c), 0)) for c in range(o.columns)}
        return out

    def macs(self, at: int) -> int:
        """Multiply-accumulates of an instruction: rows x weights of a row x columns.  Lanes without an output do
        none."""
        i = self.entry.code[at]
        return (i.words >> 1 if i.weights == 1 else i.words) * self.outputs[at] * i.columns if isinstance(i, MVM) else 0

    def mac_cycles(self, at: int) -> Fraction:
        """Cycles that its MACs would take with every lane and column busy."""
        i, c = self.entry.code[at], self.config
        if not isinstance(i, MVM):
            return Fraction(0)
        passes = (c.act16_factor if i.act16 else 1) * (2 if i.weights == 1 else 1)
        return self.macs(at) * passes / (c.rates[i.weights] * c.lanes * c.columns)

    def dram_bytes(self, at: int) -> int:
        return int(self.entry.timing.bursts[at]) * self.config.burst

    def sram_bytes(self, at: int) -> int:
        """Bytes of A and of weight words (of the lanes that have an output) that an instruction reads and writes."""
        i = self.entry.code[at]
        if i.unit == "CT":
            return 0
        reads, writes = self.entry.touched[at]
        width = {"A": 1, "W": i.rows if isinstance(i, LDW) else self.outputs.get(at, self.config.lanes)}
        return sum((end - first) * width.get(space, 0) for space, first, end in (*reads, *writes))

    def vector_lanes(self, at: int) -> int:
        """Lanes of VX times cycles in which they have an element: the beats of a machine with one lane."""
        i = self.entry.code[at]
        return i.beats(evolve(self.config, vector=1, lanes=4)) if isinstance(i, VectorInstruction) else 0

    def energy(self, at: int) -> Fraction:
        """Joules of an instruction, from the target's table; 0 without a target.  An int16 operand costs as many int8
        MACs as cycles."""
        if self.target is None:
            return Fraction(0)
        i, table = self.entry.code[at], self.target.energy
        macs = self.macs(at) * ((self.config.act16_factor if i.act16 else 1) * (2 if i.weights == 1 else 1)
                                if isinstance(i, MVM) else 1)
        return (macs * table.mac + self.dram_bytes(at) * table.dram + self.sram_bytes(at) * table.sram
                + self.vector_lanes(at) * table.vector)

    @cached_property
    def layers(self) -> tuple[LayerCost, ...]:
        """Cost by layer, in the order in which layers first appear; instructions without a layer stand under
        ``(none)``."""
        groups: dict[str, list[int]] = {}
        for at, (layer, _) in enumerate(self.entry.origins):
            groups.setdefault(layer or "(none)", []).append(at)
        return tuple(self._cost(layer, group) for layer, group in groups.items())

    def _cost(self, layer: str, group: list[int]) -> LayerCost:
        t, code = self.entry.timing, self.entry.code
        cycles: dict[str, int] = defaultdict(int)
        for at in group:
            cycles[code[at].unit] += int(t.free[at] - t.start[at])
        return LayerCost(layer, len(group), dict(cycles), sum(map(self.dram_bytes, group)), sum(map(self.macs, group)),
                         sum(map(self.sram_bytes, group)), sum(map(self.vector_lanes, group)),
                         float(sum(map(self.energy, group))),
                         int(t.start[group].min()), int(t.done[group].max()))

    @cached_property
    def roofline(self) -> Roofline:
        """Against DRAM bytes over bandwidth and MACs over lanes x columns x rate."""
        code, c = self.entry.code, self.config
        every = range(len(code))
        read = sum(map(self.dram_bytes, every))
        busy = sum(i.cycles(c)[0] for i in code if isinstance(i, MVM))
        return Roofline(self.entry.timing.cycles, sum(map(self.macs, every)), read,
                        sum(map(self.mac_cycles, every), Fraction(0)),
                        Fraction(read, c.burst) * c.burst_cycles, busy)

    def __str__(self) -> str:
        """The report that people read."""
        t, r = self.entry.timing, self.roofline
        seconds = t.cycles / self.config.clock
        lines = [f"{self.entry.name}: {t.cycles:,} cycles = {1e3 * seconds:.3f} ms at {self.config.clock / 1e6:g} MHz; "
                 f"{r.ratio:.4f} x roofline "
                 f"(DRAM {float(r.memory_cycles):,.0f}, MACs {float(r.compute_cycles):,.0f}, MV {r.matrix_cycles:,}); "
                 f"{r.dram_bytes:,} bytes, "
                 f"{r.macs:,} MACs", ""]
        lines.append(f"{'unit':<8} {'busy':>6}  where the other cycles went")
        for name, reasons in self.reasons.items():
            rest = sorted(((n, why) for why, n in reasons.items() if why not in (WORK, "DW", "DA")), reverse=True)
            lines.append(f"{name:<8} {self.utilisation[name]:6.1%}  " +
                         ", ".join(f"{why} {n / t.cycles:.1%}" for n, why in rest))
        lines += ["",
            f"{'layer':<28} {'instr.':>7} {'MV cycles':>11} {'VX cycles':>10} {'DRAM bytes':>11} {'MACs':>12} "
                  f"{'energy':>10}"]
        for cost in self.layers:
            lines.append(f"{cost.layer:<28} {cost.instructions:>7} {cost.cycles.get('MV', 0):>11,} "
                         f"{cost.cycles.get('VX', 0):>10,} "
                         f"{cost.dram_bytes:>11,} {cost.macs:>12,} {1e6 * cost.energy:>7.2f} uJ")
        lines.append(f"{'total':<28} {len(self.entry.code):>7} {'':>11} {'':>10} {r.dram_bytes:>11,} {r.macs:>12,} "
                     f"{1e6 * sum(c.energy for c in self.layers):>7.2f} uJ")
        if self.target is not None:
            lines += ["", f"energy: {self.target.energy}"]
        return "\n".join(lines)


def analyse(machine: Any, entry: str = "main") -> Analysis:
    """The analysis of one entry of a machine (or an image)."""
    image = getattr(machine, "image", machine)
    return Analysis(image.entry(entry), image.target)


__all__ = ["Analysis", "Interval", "LayerCost", "Roofline", "analyse"]
