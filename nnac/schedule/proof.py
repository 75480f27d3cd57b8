"""Proof: the verifier applied to this machine's programs, from their bytes alone.

`prove_program` trusts nothing that the compiler thought: it decodes every entry and asks `verify` with the memories of
the target. What holds something when an entry starts is what the file declares: constants (symbols), states, inputs,
and what ``init`` leaves in W, in the look-up tables and in the decoder tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nnac.isa import HOST, LDW, EncodingError, Instruction, MachineConfig, decode_all
from nnac.isa.base import Range
from nnac.isa.config import SEMAPHORE_MAX
from nnac.program import INIT, Entry, Program
from nnac.schedule.verify import HazardError, Operation, Proof, check_used, prove

OVERLAPPING = ("DW", "MV")     # units whose next instruction may start before the last has ended
FENCE = "CT"


def spaces(config: MachineConfig, dram_bytes: int) -> dict[str, int]:
    """Size of every memory that instructions name."""
    return dict(A=config.a_bytes, W=config.words, ACC=config.banks * config.columns, LUT=config.luts,
                TABLE=config.decoder_tables,
                DRAM=dram_bytes)


def prove_operations(operations: Sequence[Operation], config: MachineConfig, dram_bytes: int, holds: Iterable[Range],
                     keeps: Iterable[Range], spare: Iterable[tuple[int, int]] = ()) -> Proof:
    """`verify.prove` and `verify.check_used` with the sizes and rules of this machine."""
    check_used(operations, spaces(config, dram_bytes), keeps, [("A", *r) for r in spare], exempt=(FENCE,))
    return prove(operations, sizes=spaces(config, dram_bytes), holds=[("DRAM", 0, dram_bytes), *holds],
                 overlapping=OVERLAPPING, fence=FENCE,
                 capacity=SEMAPHORE_MAX, semaphores=config.semaphores)


def decoded(entry: Entry) -> list[Instruction]:
    """Instructions of an entry.  EncodingError if its words are none."""
    return decode_all(np.ascontiguousarray(entry.words, "<u8").tobytes())


def operations_of(code: Sequence[Instruction], config: MachineConfig, program: Program) -> list[Operation]:
    """What each instruction touches.  LDW also reads its decoder table, GTH its table in DRAM; the host may write
    anywhere in A."""
    out: list[Operation] = []
    for i in code:
        reads, writes = tuple(i.reads(config)), tuple(i.writes(config))
        if isinstance(i, LDW):
            reads += (("TABLE", i.table, i.table + 1),)
        if isinstance(i, HOST):
            if i.id >= len(program.host):
                raise HazardError("bounds", len(out),
                    f"instruction {len(out)} calls part {i.id} of the host; there are {len(program.host)}")
            call = program.host[i.id]
            reads, writes = tuple(("A", *r) for p in (*call.inputs, *call.states)
                                  for r in p.ranges), (("A", 0, config.a_bytes),)
        out.append(Operation(i.unit, reads, writes, i.wait, i.signal))
    return out


def prove_program(program: Program) -> dict[str, Proof]:
    """A proof for each entry.  HazardError or EncodingError names the entry and the instruction."""
    config = MachineConfig.of(program.target)
    held: list[Range] = [("A", s.address, s.address + s.bytes) for s in program.symbols if s.space == "A"]
    proofs: dict[str, Proof] = {}
    for name in sorted(program.entries, key=lambda n: n != INIT):
        entry = program.entries[name]
        try:
            operations = operations_of(decoded(entry), config, program)
            own = [] if name == INIT else [*held, *(("A", *r) for p in entry.inputs for r in p.ranges)]
            _check_ports(entry, len(operations), config)
            proofs[name] = prove_operations(operations, config, len(program.dram), own, kept(program, entry, config),
                                            entry.unread)
        except (HazardError, EncodingError) as error:
            error.args = (f"{name}: {error}{_where(program, name, getattr(error, 'index', None))}",)
            raise
        if name == INIT:
            held += [r for o in operations for r in o.writes if r[0] in ("W", "LUT", "TABLE")]
    return proofs


def kept(program: Program, entry: Entry, config: MachineConfig) -> list[Range]:
    """What an entry leaves behind: its outputs and the states; ``init`` everything but scratch."""
    out: list[Range] = [("A", *r) for p in (*entry.outputs, *(s.of(s.places) for s in program.states))
                        for r in p.ranges]
    if entry.name == INIT:
        out += [(space, 0, size) for space, size in spaces(config, 0).items() if space in ("W", "LUT", "TABLE")]
        out += [("A", s.address, s.address + s.bytes) for s in program.symbols if s.space == "A"]
    return out


def _check_ports(entry: Entry, count: int, config: MachineConfig) -> None:
    for port in (*entry.inputs, *entry.outputs, *(t.port for t in entry.taps)):
        for start, end in port.ranges:
            if not 0 <= start <= end <= config.a_bytes:
                raise HazardError("bounds", count - 1,
                                  f"{port} lies outside the activation memory of {config.a_bytes:#x} bytes")
    for tap in entry.taps:
        if not 0 <= tap.after < count:
            raise HazardError("bounds", count - 1,
                              f"the tap of {tap.port.value} names instruction {tap.after} of {count}")


def _where(program: Program, entry: str, index: int | None) -> str:
    if index is None or not 0 <= index < len(program.entries[entry].lines):
        return ""
    layer, line, what = program.where(entry, index)
    return f" ({layer}: {what}{f', {line}' if line else ''})" if layer else ""
