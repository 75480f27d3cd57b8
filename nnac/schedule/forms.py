"""Forms: how the vectors of a value lie in the activation memory, before anybody knows where.

Vectors start at multiples of 4 bytes, because instructions write there.  A stack joins vectors without moving them: its form names the
pieces.  A value that the host writes and a stack reads is packed, so that the pieces touch.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from nnac.ir import QGraph
from nnac.program import Port

Segments = tuple[tuple[int, int], ...]


@frozen
class Form:
    """``size`` bytes an element; pieces (byte offset, elements) of one vector; ``stride`` bytes from vector to vector; ``base``: whose memory."""

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
class View:
    """A form at an address."""

    form: Form
    address: int
    vectors: int

    def at(self, t: int) -> int:
        return self.address + t * self.form.stride

    def port(self, value: str) -> Port:
        return Port(value, self.address, self.form.segments, self.form.size, self.vectors, self.form.stride)


def align(n: int, to: int = 4) -> int:
    """``n`` rounded up to a multiple of ``to``."""
    return -(-n // to) * to


def element_bytes(bits: int) -> int:
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


def forms(graph: QGraph) -> Mapping[str, Form]:
    """The form of every value."""
    found: dict[str, Form] = {}
    for names in graph.inputs.values():
        for name in names:
            v = graph.values[name]
            size = element_bytes(v.bits)
            joins = {n.attributes["frames"] for n in graph.consumers(name) if n.op == "stack"}
            packed = joins and all(k * v.width * size % 4 == 0 for k in joins)
            found[name] = Form(size, ((0, v.width),), v.width * size if packed else align(v.width * size), name)
    for node in graph.nodes:
        v = graph.values[node.output]
        size = element_bytes(v.bits)
        if node.op == "stack":
            source = found[node.inputs[0]]
            k = node.attributes["frames"]
            pieces = tuple((j * source.stride + o, w) for j in range(k) for o, w in source.segments)
            found[node.output] = evolve(source, segments=merged(pieces, size), stride=k * source.stride)
        else:
            found[node.output] = Form(size, ((0, v.width),), align(v.width * size), node.output)
    return found
