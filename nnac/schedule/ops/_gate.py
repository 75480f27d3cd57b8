"""A value weighed by a sigmoid: the base of ``swish``, ``glu``."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock


class GateEmission(OneBlock):
    """GATE of the first and the last elements of the input, which may be the same."""

    tables = ("table",)

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        return isa.GATE.block.pack(multiplier=c["multiplier"], shift=c["shift"], bits=out.bits,
                                   zero_point=out.zero_point, slot=made.slot(c["table"]), symmetry=1)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        params = e.parameters(f"{node.path}.parameters")
        last = (x.form.width - y.form.width) * x.form.size
        e.pieces((x, y), lambda at, n: isa.GATE(a=at[0], b=at[0] + last, dst=at[1], params=params, n=n, a16=1,
                                                out16=int(y.form.size == 2)), node.op)
