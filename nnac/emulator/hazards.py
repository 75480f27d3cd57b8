"""The race detector: proves that time may be separated from function.

Function is defined by executing the instructions of an entry one after another in program order.  The machine starts
them when units and semaphores allow.  Both agree if, whenever an instruction touches what an earlier one of *another
unit* touched and one of them writes, it starts after the earlier one is done.  (Instructions of one unit keep their
order by construction: DA and VX run one at a time, DW decodes in order, MV's pipeline writes accumulators in order.)
The check is exact, at the granularity of bytes, words and accumulator columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from nnac.emulator.errors import AddressError, HazardError
from nnac.emulator.timing import Timing
from nnac.isa import HOST, UNITS, Instruction, MachineConfig
from nnac.isa.base import Range
from nnac.isa.rules import ADDRESSES, Case, overlapping

Touched = tuple[tuple[Range, ...], tuple[Range, ...]]                # what an instruction reads, and what it writes


def ranges(i: Instruction, config: MachineConfig) -> Touched:
    """(reads, writes) without empty ranges.  The host may touch all of A."""
    if isinstance(i, HOST):
        everything = (("A", 0, config.a_bytes),)
        return everything, everything
    return tuple([r for r in i.reads(config) if r[1] < r[2]]), tuple([r for r in i.writes(config) if r[1] < r[2]])


def overlap(i: Instruction, config: MachineConfig) -> Range | None:
    """Where the result of an instruction lies partly over an operand (`nnac.isa.rules`)."""
    return overlapping(i, *ranges(i, config))


def check_addresses(code: Sequence[Instruction], config: MachineConfig, sizes: dict[str, int],
                    writable: tuple[int, int] | None = None,
                    ranges_of: Sequence[Touched] | None = None) -> None:
    """AddressError at the first instruction that the rules of addresses forbid (`nnac.isa.rules`).  ``ranges_of``: if
    known."""
    for at, (i, (reads, writes)) in enumerate(zip(code, ranges_of or [ranges(i, config) for i in code], strict=True)):
        case = Case(i, config, False, reads, writes, sizes, writable)
        for rule in ADDRESSES:
            if wrong := rule.broken(case):
                raise AddressError(wrong).at("", at, i)


def check_races(code: Sequence[Instruction], timing: Timing, config: MachineConfig, sizes: dict[str, int],
                ranges_of: Sequence[Touched] | None = None) -> None:
    """HazardError for the first instruction (in program order) that starts before one that it depends on is done.
    ``ranges_of``: if known.

    The instructions of a unit are done in order, so only the last few of each unit can still be running: the walk back
    stops at the first that was done in time.
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
                        place, what = (f"{space}[{max(f, first):#x} … {min(e, end):#x}]",
                                       f"[{before}] {type(code[before]).__name__} of {unit}")
                        raise HazardError(f"uses {place} from cycle {begun}, but {what} "
                                          f"{'writes' if wrote else 'reads'} it until cycle "
                                          f"{done[before]}: a semaphore is missing").at("", at, i, cycle=begun)
        for (space, first, end), writing in mine:
            touched[i.unit].setdefault(space, []).append((first, end, at, writing))
