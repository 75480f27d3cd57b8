"""Parameter blocks: packed records of little-endian integers, spelled once, as the manual prints them.

    ROW = Record("i32 bias, u24 multiplier, u8 shift 0..62")
    ROW.bytes     ROW.pack(bias=b, multiplier=m, shift=s)     ROW.read(raw)     ROW.columns(raw)

``0..62`` are the values that mean something: packing or reading another is an error.  A field whose name is ``0`` is
reserved: written as zero, ignored by the machine.  Needs NumPy only when something is packed or unpacked.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import TYPE_CHECKING

from attrs import field, frozen

Bytes = bytes                  # inside `Record` the name is the number of them
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class BadData(ValueError):
    """Data that an instruction cannot take: a parameter outside its range, a sum outside its width, an index outside
    its span."""


@frozen
class RecordField:
    """``bits`` bits (whole bytes) of a record, from byte ``offset``; least and greatest value that mean something."""

    name: str
    bits: int
    signed: bool
    offset: int
    least: int
    greatest: int

    @property
    def whole(self) -> tuple[int, int]:
        """What the bits can hold."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def check(self, least: int, greatest: int) -> None:
        """BadData unless the values least … greatest are among those that mean something."""
        if least < self.least or greatest > self.greatest:
            value = least if least < self.least else greatest
            raise BadData(f"{self.name}={value} is not in {self.least} … {self.greatest}")

    def __str__(self) -> str:
        limits = "" if (self.least, self.greatest) == self.whole else f" {self.least}..{self.greatest}"
        return f"{'i' if self.signed else 'u'}{self.bits} {self.name}{limits}"


def _fields(text: str) -> tuple[RecordField, ...]:
    out, offset = [], 0
    for part in text.split(","):
        kind, name, *limits = part.split()
        made = RecordField(name, int(kind[1:]), kind[0] == "i", offset, 0, 0)
        assert kind[0] in "iu" and made.bits in (8, 16, 24, 32, 48, 64), f"`{kind}` is no type of a record's field"
        least, greatest = map(int, limits[0].split("..")) if limits else made.whole
        out.append(RecordField(name, made.bits, made.signed, offset, least, greatest))
        offset += made.bits // 8
    return tuple(out)


@frozen(eq=False)
class Record:
    """One record.  ``fields`` from its text, in the order of their bytes; ``bytes`` in all."""

    fields: tuple[RecordField, ...] = field(converter=_fields)

    def pack(self, **values: ArrayLike) -> Bytes:
        """Bytes of one record, or of n if values are arrays [n].  BadData: outside a field's range; TypeError: not the
        record's fields."""
        import numpy as np

        named = [f for f in self.fields if f.name != "0"]
        if values.keys() != {f.name for f in named}:
            raise TypeError(f"a record of {', '.join(f.name for f in named)} was given {', '.join(values)}")
        arrays = {k: np.atleast_1d(np.asarray(v, np.int64)) for k, v in values.items()}
        out = np.zeros((max(a.size for a in arrays.values()), self.bytes), np.uint8)
        for f in named:
            value, size = arrays[f.name], f.bits // 8
            if value.size:
                f.check(int(value.min()), int(value.max()))
            out[:, f.offset: f.offset + size] = np.ascontiguousarray(value, "<i8").view(np.uint8).reshape(-1, 8)[:,
                :size]
        return out.tobytes()

    @property
    def bytes(self) -> int:
        return sum(f.bits for f in self.fields) // 8

    def read(self, raw: NDArray) -> dict[str, int]:
        """The values of the one record in bytes uint8 [bytes].  BadData."""
        names, layout, limited = _scalars(self)
        out = dict(zip(names, layout.unpack(raw.tobytes()), strict=True))
        for f in limited:
            f.check(out[f.name], out[f.name])
        return out

    def columns(self, raw: NDArray) -> dict[str, NDArray]:
        """The values of the n records in bytes uint8 [n * bytes]: int64 [n] by name.  BadData."""
        import numpy as np

        rows, out = np.ascontiguousarray(raw).view(_layout(self)), {}
        for f in self.fields:
            if f.name == "0":
                continue
            number = rows[f.name].astype(np.int64)
            if f.bits in _UPPER:
                number += rows[f"{f.name} upper"].astype(np.int64) << _UPPER[f.bits][0]
            if number.size and (f.least, f.greatest) != f.whole:
                f.check(int(number.min()), int(number.max()))
            out[f.name] = number
        return out

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.fields)) + "}"


@cache
def _scalars(record: Record) -> tuple[list[str], Struct, list[RecordField]]:
    """Names, how to unpack their values, and the fields whose limits are narrower than their bits."""
    letters = {8: "b", 16: "h", 32: "i", 64: "q"}
    assert all(f.bits in letters for f in record.fields), "records with odd fields are read as columns"
    form = "".join(f"{f.bits // 8}x" if f.name == "0" else letters[f.bits] if f.signed else letters[f.bits].upper()
                   for f in record.fields)
    limited = [f for f in record.fields if f.name != "0" and (f.least, f.greatest) != f.whole]
    return [f.name for f in record.fields if f.name != "0"], Struct(f"<{form}"), limited


# bits that NumPy has no integer for: of the lower part, of the upper
_UPPER = {24: (16, 8), 48: (32, 16)}


@cache
def _layout(record: Record) -> np.dtype:
    """The record as NumPy sees it: an odd field as its lower part and, under ``NAME upper``, the rest."""
    import numpy as np

    names, formats = [], []
    for k, f in enumerate(record.fields):
        name = f"{f.name} {k}" if f.name == "0" else f.name
        lower, upper = _UPPER.get(f.bits, (f.bits, 0))
        names.append(name)
        formats.append(f"<{'i' if f.signed and not upper else 'u'}{lower // 8}")
        if upper:
            names.append(f"{name} upper")
            formats.append(f"<{'i' if f.signed else 'u'}{upper // 8}")
    return np.dtype(dict(names=names, formats=formats))
