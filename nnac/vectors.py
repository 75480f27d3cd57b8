"""Forms: how the vectors of a value lie in the activation memory, before anybody knows where.  Asked by the compiler
and by lint.

Vectors start at multiples of 4 bytes, because instructions write there.  A stack joins vectors without moving them: its
form names the pieces.  A value that the host writes and a stack reads is packed, so that the pieces touch.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

Segments = tuple[tuple[int, int], ...]


@frozen
class Form:
    """``size`` bytes an element; pieces (byte offset, elements) of one vector; ``stride`` bytes from vector to vector;
    ``base``: whose memory."""

    size: int
    segments: Segments
    stride: int
    base: str

    @property
    def whole(self) -> bool:
        """One piece: what elementwise instructions want."""
        return len(self.segments) == 1

    @property
    def width(self) -> int:
        return sum(w for _, w in self.segments)


@frozen
class Vector:
    """A value, as far as its form is concerned: ``joins`` so many vectors of ``source`` where it is a view; the host
    writes it if ``entering``."""

    name: str
    width: int
    bits: int
    source: str = ""
    joins: int = 0
    entering: bool = False


def align(n: int, to: int = 4) -> int:
    """``n`` rounded up to a multiple of ``to``."""
    return -(-n // to) * to


def element_bytes(bits: int) -> int:
    """Bytes of an element in memory."""
    return 1 if bits <= 8 else 2 if bits <= 16 else 4


def merged(segments: Segments, size: int) -> Segments:
    """Pieces that touch, joined."""
    out: list[tuple[int, int]] = []
    for offset, width in segments:
        if out and out[-1][0] + out[-1][1] * size == offset:
            start, before = out.pop()
            offset, width = start, before + width
        out.append((offset, width))
    return tuple(out)


def forms_of(vectors: Iterable[Vector]) -> dict[str, Form]:
    """The form of every value; sources come before the views of them."""
    every = list(vectors)
    found: dict[str, Form] = {}
    for v in every:
        size = element_bytes(v.bits)
        if v.joins:
            source = found[v.source]
            pieces = tuple((j * source.stride + o, w) for j in range(v.joins) for o, w in source.segments)
            found[v.name] = evolve(source, segments=merged(pieces, size), stride=v.joins * source.stride)
            continue
        joins = {other.joins for other in every if other.joins and other.source == v.name} if v.entering else set()
        packed = joins and all(k * v.width * size % 4 == 0 for k in joins)
        found[v.name] = Form(size, ((0, v.width),), v.width * size if packed else align(v.width * size), v.name)
    return found
