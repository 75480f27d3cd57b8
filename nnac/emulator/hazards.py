"""The race detector: proves that time may be separated from function.

Function is defined by executing the instructions of an entry one after another in program order.  The machine starts them when units and semaphores
allow.  Both agree if, whenever an instruction touches what an earlier one of *another unit* touched and one of them writes, it starts after the
earlier one is done.  (Instructions of one unit keep their order by construction: DA and VX run one at a time, DW decodes in order, MV's pipeline
writes accumulators in order.)  The check is exact, at the granularity of bytes, words and accumulator columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnac.emulator.errors import AddressError, HazardError
from nnac.emulator.timing import Timing
from nnac.isa import HOST, UNITS, Instruction, MachineConfig
from nnac.isa.base import Range

Touched = tuple[tuple[Range, ...], tuple[Range, ...]]                # what an instruction reads, and what it writes


def ranges(i: Instruction, config: MachineConfig) -> Touched:
    """(reads, writes) without empty ranges.  The host may touch all of A."""
    if isinstance(i, HOST):
        everything = (("A", 0, config.a_bytes),)
        return everything, everything
    return tuple([r for r in i.reads(config) if r[1] < r[2]]), tuple([r for r in i.writes(config) if r[1] < r[2]])


def overlap(i: Instruction, config: MachineConfig) -> Range | None:
    """Where the result of a VX instruction lies partly over an operand."""
    return _overlap(i, *ranges(i, config))


def _overlap(i: Instruction, reads: tuple[Range, ...], writes: tuple[Range, ...]) -> Range | None:
    """Where the result of a VX instruction lies partly over an operand, so that it would write what it has still to read.

    Working in place is allowed (but for instructions that say no): the result begins where the operand begins and is not longer, for elements
    are written after they were read.
    """
    for space, first, end in writes:
        for s, f, e in reads:
            if s == space and f < end and first < e and not (i.in_place and f == first and end <= e):
                return space, max(f, first), min(e, end)
    return None


def check_addresses(code: Sequence[Instruction], config: MachineConfig, sizes: dict[str, int],
                    ranges_of: Sequence[Touched] | None = None) -> None:
    """AddressError unless every operand lies in its memory, and no result partly over an operand.  ``ranges_of``: if known."""
    for at, (i, (reads, writes)) in enumerate(zip(code, ranges_of or [ranges(i, config) for i in code], strict=True)):
        for group, verb in ((reads, "reads"), (writes, "writes")):
            for space, first, end in group:
                if end > sizes[space]:
                    raise AddressError(f"{verb} {space}[{first:#x} … {end:#x}]; {space} ends at {sizes[space]:#x}").at("", at, i)
        if i.unit == "VX" and (place := _overlap(i, reads, writes)):
            raise AddressError(f"writes {place[0]}[{place[1]:#x} … {place[2]:#x}], which it has still to read").at("", at, i)


def check_stores(code: Sequence[Instruction], ranges_of: Sequence[Touched], writable: tuple[int, int] | None) -> None:
    """AddressError unless what is written to DRAM lies in the part that the program may write."""
    low, high = writable or (0, 0)
    for at, (i, (_, writes)) in enumerate(zip(code, ranges_of, strict=True)):
        for space, first, end in writes:
            if space == "DRAM" and not low <= first <= end <= high:
                may = f"the program may write {low:#x} … {high:#x}" if writable else "the program declares no writable part"
                raise AddressError(f"writes DRAM[{first:#x} … {end:#x}]; {may}").at("", at, i)


def check_races(code: Sequence[Instruction], timing: Timing, config: MachineConfig, sizes: dict[str, int],
                ranges_of: Sequence[Touched] | None = None) -> None:
    """HazardError for the first instruction (in program order) that starts before one that it depends on is done.  ``ranges_of``: if known.

    The instructions of a unit are done in order, so only the last few of each unit can still be running: the walk back stops at the first that
    was done in time.
    """
    # Only what the machine writes can race: of DRAM that is what STA writes.
    known = ranges_of or [ranges(i, config) for i in code]
    floor = min((first for _, writes in known for space, first, _ in writes if space == "DRAM"), default=sizes["DRAM"])
    start, done = timing.start.tolist(), timing.done.tolist()
    # what each unit touched, by unit and memory: (first, end, instruction, whether it wrote), in program order
    touched: dict[str, dict[str, list[tuple[int, int, int, bool]]]] = {u: {} for u in UNITS}
    for at, (i, (reads, writes)) in enumerate(zip(code, known, strict=True)):
        begun = start[at]
        mine = [(r, False) for r in reads] + [(r, True) for r in writes]
        for (space, first, end), writing in mine:
            if space == "DRAM" and end <= floor:
                continue
            for unit, memories in touched.items():
                if unit == i.unit:
                    continue
                for f, e, before, wrote in reversed(memories.get(space, ())):
                    if done[before] < begun:
                        break
                    if (writing or wrote) and f < end and first < e:
                        place, what = f"{space}[{max(f, first):#x} … {min(e, end):#x}]", f"[{before}] {type(code[before]).__name__} of {unit}"
                        raise HazardError(f"uses {place} from cycle {begun}, but {what} {'writes' if wrote else 'reads'} it until cycle "
                                          f"{done[before]}: a semaphore is missing").at("", at, i, cycle=begun)
        for (space, first, end), writing in mine:
            touched[i.unit].setdefault(space, []).append((first, end, at, writing))
