"""The last frames side by side: the past is copied in front of the new ones, then their end is the past."""

from __future__ import annotations

from collections.abc import Mapping

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, Value
from nnac.ops.window import WindowAttributes
from nnac.schedule.emit import ELEMENTS, Emitter
from nnac.schedule.forms import View
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock
from nnac.vectors import element_bytes


class WindowEmission(OneBlock):
    """CPY, ADD of each new frame with nothing, CPY; one more where taps lie apart."""

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        multiplier, shift = (int(node.constants[k]) for k in ("multiplier", "shift"))
        return isa.ADD.block.pack(m0=multiplier, m1=0, s0=shift, s1=1, bits=out.bits)

    def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
        """Where taps lie apart, ``heard``: the past and the new frames, which vectors are taken from."""
        a = record(node.attributes, WindowAttributes)
        if a.dilation == 1 or not node.states:
            return {}
        past, = node.states
        return dict(heard=past.width // a.kept * (a.kept + vectors) * element_bytes(past.bits))

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        a = record(node.attributes, WindowAttributes)
        row = x.form.width * y.form.size
        past, kept = e.plan.states[f"{node.path}.past"] if a.kept else 0, a.kept * row

        def copy(source: int, to: int) -> None:
            if kept:
                e.put(isa.CPY(src=source, dst=to, bytes=kept, count=1, sstride=0, dstride=0), "past")

        if f"{node.path}.heard" in e.plan.buffers:
            heard = e.plan.buffers[f"{node.path}.heard"]
            copy(past, heard)
            for t in range(y.vectors):
                self.frame(node, e, x, t, heard + kept + t * row, y.form.size)
                e.put(isa.CPY(src=heard + t * row, dst=y.at(t), bytes=row, count=a.taps, sstride=a.dilation * row,
                              dstride=row), "taps")
            copy(heard + y.vectors * row, past)
            return
        for t in range(y.vectors):
            copy(past, y.at(t))
            for i in range(a.frames):
                self.frame(node, e, x, t * a.frames + i, y.at(t) + kept + i * row, y.form.size)
            copy(y.at(t) + a.frames * row, past)

    def frame(self, node: Node, e: Emitter, x: View, t: int, to: int, size: int) -> None:
        """A new frame, requantised."""
        params, wide = e.parameters(f"{node.path}.parameters"), int(x.form.size == 2)
        for first in range(0, x.form.width, ELEMENTS):
            source, n = x.at(t) + first * x.form.size, min(ELEMENTS, x.form.width - first)
            e.put(isa.ADD(a=source, b=source, dst=to + first * size, params=params, n=n, a16=wide, b16=wide,
                          out16=int(size == 2)), node.op)
