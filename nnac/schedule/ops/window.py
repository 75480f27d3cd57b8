"""The last frames side by side: the past is copied in front of the new ones, then their end is the past."""

from __future__ import annotations

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, Value
from nnac.ops.window import WindowAttributes
from nnac.schedule.emit import ELEMENTS, Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock


class WindowEmission(OneBlock):
    """CPY, ADD of each new frame with nothing, CPY."""

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        multiplier, shift = (int(node.constants[k]) for k in ("multiplier", "shift"))
        return isa.ADD.block.pack(m0=multiplier, m1=0, s0=shift, s1=1, bits=out.bits)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        a = record(node.attributes, WindowAttributes)
        size, width = y.form.size, x.form.width
        kept = (a.taps - a.frames) * width * size
        past = e.plan.states[f"{node.path}.past"] if kept else 0
        params = e.parameters(f"{node.path}.parameters")
        wide = int(x.form.size == 2)

        def copy(source: int, to: int) -> None:
            e.put(isa.CPY(src=source, dst=to, bytes=kept, count=1, sstride=0, dstride=0), "past")

        for t in range(y.vectors):
            at = y.at(t)
            if kept:
                copy(past, at)
            for i in range(a.frames):
                for first in range(0, width, ELEMENTS):
                    source = x.at(t * a.frames + i) + first * x.form.size
                    to = at + kept + (i * width + first) * size
                    e.put(isa.ADD(a=source, b=source, dst=to, params=params, n=min(ELEMENTS, width - first), a16=wide,
                                  b16=wide, out16=int(size == 2)), node.op)
            if kept:
                copy(at + a.frames * width * size, past)
