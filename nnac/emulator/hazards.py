"""The race detector: proves that time may be separated from function.

Function is defined by executing the instructions of an entry one after another in program order.  The machine starts them when units and semaphores
allow.  Both agree if, whenever an instruction touches what an earlier one of *another unit* touched and one of them writes, it starts after the
earlier one is done.  (Instructions of one unit keep their order by construction: DA and VX run one at a time, DW decodes in order, MV's pipeline
writes accumulators in order.)  The check is exact, at the granularity of bytes, words and accumulator columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnac.emulator.errors import AddressError, HazardError, MachineError
from nnac.emulator.timing import Timing
from nnac.isa import HOST, Instruction, MachineConfig
from nnac.isa.base import Range

NOWHERE: tuple[Range, ...] = ()


def ranges(i: Instruction, config: MachineConfig) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """(reads, writes) without empty ranges.  The host may touch all of A."""
    if isinstance(i, HOST):
        everything = (("A", 0, config.a_bytes),)
        return everything, everything
    return tuple(r for r in i.reads(config) if r[1] < r[2]), tuple(r for r in i.writes(config) if r[1] < r[2])


def check_addresses(code: Sequence[Instruction], config: MachineConfig, sizes: dict[str, int]) -> None:
    """AddressError unless every operand lies in its memory."""
    for at, i in enumerate(code):
        for group, verb in zip(ranges(i, config), ("reads", "writes"), strict=True):
            for space, first, end in group:
                if end > sizes[space]:
                    raise AddressError(f"{verb} {space}[{first:#x} … {end:#x}]; {space} ends at {sizes[space]:#x}").at("", at, i)


def check_races(code: Sequence[Instruction], timing: Timing, config: MachineConfig, sizes: dict[str, int]) -> None:
    """HazardError for the first instruction (in program order) that starts before one that it depends on is done."""
    # Only what the machine writes can race: of DRAM that is what STA writes.
    stored = [r for i in code for r in i.writes(config) if r[0] == "DRAM"]
    floor = min((first for _, first, _ in stored), default=sizes["DRAM"])
    # done cycle of the last access, by memory, kind of access and unit
    last: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    start, done = timing.start.tolist(), timing.done.tolist()
    plain = [tuple(_above(group, floor) for group in ranges(i, config)) for i in code]
    for at, i in enumerate(code):
        unit, begun = i.unit, start[at]
        reads, writes = plain[at]
        for group, kinds in ((reads, ("w",)), (writes, ("w", "r"))):
            for space, first, end in group:
                for kind in kinds:
                    for other, cycles in last.get((space, kind), {}).items():
                        if other != unit and cycles[first:end].max() >= begun:
                            raise _culprit(code, plain, timing, at, other, space, first, end, kind == "w")
        for group, kind in ((reads, "r"), (writes, "w")):
            for space, first, end in group:
                units = last.setdefault((space, kind), {})
                if unit not in units:
                    units[unit] = np.full(sizes[space] - (floor if space == "DRAM" else 0), -1, np.int64)
                part = units[unit][first:end]
                np.maximum(part, done[at], out=part)


def _above(group: tuple[Range, ...], floor: int) -> tuple[Range, ...]:
    """The same ranges, those of DRAM counted from ``floor``; what lies below it is read-only and is left out."""
    if not any(space == "DRAM" for space, _, _ in group):
        return group
    return tuple((s, f, e) if s != "DRAM" else (s, max(f - floor, 0), e - floor) for s, f, e in group if s != "DRAM" or e > floor)


def _culprit(code: Sequence[Instruction], plain: Sequence, timing: Timing, at: int, unit: str, space: str, first: int, end: int,
             written: bool) -> MachineError:
    for before in range(at - 1, -1, -1):
        if code[before].unit == unit and timing.done[before] >= timing.start[at]:
            touched = plain[before][1 if written else 0]
            if any(s == space and f < end and first < e for s, f, e in touched):
                break
    verb = "writes" if written else "reads"
    place = next((max(first, f), min(end, e)) for s, f, e in touched if s == space and f < end and first < e)
    return HazardError(
        f"uses {space}[{place[0]:#x} … {place[1]:#x}] from cycle {timing.start[at]}, but [{before}] {type(code[before]).__name__} of {unit} "
        f"{verb} it until cycle {timing.done[before]}: a semaphore is missing").at("", at, code[at], cycle=int(timing.start[at]))
