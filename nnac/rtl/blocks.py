"""Parameter blocks in A as hardware sees them: slices at the offsets that the instruction set's records declare."""

from __future__ import annotations

from amaranth.hdl import Value

from nnac.isa.records import Record


def field(record: Record, name: str, data: Value) -> Value:
    """The field ``name`` of a record that ``data`` begins with; signed where it is."""
    (f,) = (f for f in record.fields if f.name == name)
    part = data[8 * f.offset : 8 * f.offset + f.bits]
    return part.as_signed() if f.signed else part
