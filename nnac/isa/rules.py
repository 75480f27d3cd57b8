"""What a program must not say, beyond what cannot be encoded: one table, which the emulator checks and the manual
prints.

Each instruction adds rules of its own (`Instruction.rules`).  Of data, see the fields of parameter records, and `DATA`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from nnac.isa.base import Instruction, Range, bits
from nnac.isa.config import MachineConfig
from nnac.isa.control import HALT


@frozen
class Case:
    """An instruction in its place.  ``sizes``: first address beyond each memory; ``writable``: (first, end) of the DRAM
    that STA may write."""

    instruction: Instruction
    config: MachineConfig
    last: bool = False
    reads: Sequence[Range] = ()
    writes: Sequence[Range] = ()
    sizes: dict[str, int] | None = None
    writable: tuple[int, int] | None = None


@frozen
class CaseRule:
    """``text`` for the manual; ``broken(case)`` says what is wrong, or ""."""

    text: str
    broken: Callable[[Case], str]


def _halt(c: Case) -> str:
    if isinstance(c.instruction, HALT) != c.last:
        return "an entry ends in HALT" if c.last else "HALT before the end"
    return ""


def _semaphores(c: Case) -> str:
    named = c.instruction.wait | c.instruction.signal
    return (f"semaphore s{bits(named)[-1]}; the machine has {c.config.semaphores}" if named >> c.config.semaphores
            else "")


def _inside(c: Case) -> str:
    assert c.sizes is not None, "the sizes of the memories are known where addresses are checked"
    for group, verb in ((c.reads, "reads"), (c.writes, "writes")):
        for space, first, end in group:
            if end > c.sizes[space]:
                return f"{verb} {space}[{first:#x} … {end:#x}]; {space} ends at {c.sizes[space]:#x}"
    return ""


def overlapping(i: Instruction, reads: Sequence[Range], writes: Sequence[Range]) -> Range | None:
    """Where the result of a VX instruction lies partly over an operand, so that it would write what it has still to
    read.

    Working in place is allowed (but over parameters, and for instructions that say no): the result begins where the
    operand begins and is not longer, for elements are written after they were read.
    """
    for space, first, end in writes:
        for s, f, e in reads:
            if s == space and f < end and first < e and not (i.in_place and f == first and end <= e
                                                             and (f, e - f) not in i.blocks()):
                return space, max(f, first), min(e, end)
    return None


def _apart(c: Case) -> str:
    place = overlapping(c.instruction, c.reads, c.writes) if c.instruction.unit == "VX" else None
    return f"writes {place[0]}[{place[1]:#x} … {place[2]:#x}], which it has still to read" if place else ""


def _stores(c: Case) -> str:
    low, high = c.writable or (0, 0)
    for space, first, end in c.writes:
        if space == "DRAM" and not low <= first <= end <= high:
            may = (f"the program may write {low:#x} … {high:#x}" if c.writable
                   else "the program declares no writable part")
            return f"writes DRAM[{first:#x} … {end:#x}]; {may}"
    return ""


CODE = (CaseRule("The last instruction of an entry is HALT, and no other.", _halt),
        CaseRule("Masks name only the semaphores that the machine has.", _semaphores))
ADDRESSES = (
    CaseRule("Whatever an instruction reads or writes lies inside its memory.", _inside),
    CaseRule("A result of a VX instruction lies apart from its parameters and from every operand, or begins where the "
             "operand begins and is not "
             "longer; CPY's lies apart.", _apart),
    CaseRule("STA writes only the part of DRAM that the program declares writable (one stretch).", _stores))
RUNNING = (
    "An instruction starts only when every earlier one of another unit that touches the same place, one of them "
           "writing, is done.",
    "Some instruction can always start until all are done: no deadlock.",
    "No semaphore counts beyond {semaphore_max}.")
DATA = (
    "Parameters are the same for all utterances that run in lockstep, and within the limits that their records print.",
    "bits of a result is 2 to 8, or to 16 where the result is int16.",
    "LUT slots that parameters name exist.  A table of symmetry complement has no entry below 0; exp of SMAX and LSM "
        "neither, and its first is 1 "
    "at least.",
    "Entries of rsqrt are 32768 at least.",
    "Weights of an MVM fit its format; the input numbers of its words are below its span (with int16 weights, half of "
        "them are).",
    "Accumulators fit 48 bits, and v of RQ the width that its page says.",
    "A weight stream is whole, takes the bytes, live words and steps that its LDW says, and lies in the read-only part "
        "of DRAM; so for LDT.",
    "The row that GTH fetches lies in DRAM (which has no row count: the host gives numbers of rows that there are).")
