"""A value times a positive number: ADD with a second operand that counts for nothing."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock


class ScaleEmission(OneBlock):
    """ADD of the value and of itself times zero: exactly its requantisation."""

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        multiplier, shift = (int(node.constants[k]) for k in ("multiplier", "shift"))
        return isa.ADD.block.pack(m0=multiplier, m1=0, s0=shift, s1=1, bits=out.bits)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        wide = int(x.form.size == 2)
        params = e.parameters(f"{node.path}.parameters")
        e.pieces((x, y), lambda at, n: isa.ADD(a=at[0], b=at[0], dst=at[1], params=params, n=n, a16=wide, b16=wide,
                                               out16=int(y.form.size == 2)), node.op)
