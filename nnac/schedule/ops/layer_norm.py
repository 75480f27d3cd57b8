"""Layer norm, a vector at a time."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.isa.vector import RSQRT_BYTES
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock
from nnac.vectors import align


class LayerNormEmission(OneBlock):
    """LN."""

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        head = isa.LN.block.pack(epsilon=c["epsilon"], root_width=c["root_width"], multiplier=c["multiplier"],
                                 shift=c["shift"],
                                 bits=out.bits, zero_point=out.zero_point)
        gain = c["gain"].astype("<i2").tobytes()
        return (head + c["rsqrt"].astype("<u2").tobytes().ljust(RSQRT_BYTES, b"\0") +
                gain.ljust(align(len(gain)), b"\0")
                + c["bias"].astype("<i4").tobytes())

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        for t in range(y.vectors):
            e.put(isa.LN(src=x.at(t), dst=y.at(t), params=e.parameters(f"{node.path}.parameters"), n=y.form.width,
                         a16=int(x.form.size == 2), out16=int(y.form.size == 2)), "normalise")
