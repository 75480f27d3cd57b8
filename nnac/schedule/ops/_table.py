"""Functions by table: the base of ``tanh``, ``sigmoid``."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.ops._table import table_operator
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock


class TableEmission(OneBlock):
    """LUT over all vectors."""

    tables = ("table",)

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        symmetry = dict(odd=0, complement=1)[table_operator(node.op).symmetry]
        return isa.LUT.block.pack(multiplier=c["multiplier"], shift=c["shift"], bits=out.bits,
                                  zero_point=out.zero_point,
                                  slot=made.slot(c["table"]), symmetry=symmetry)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        params = e.parameters(f"{node.path}.parameters")
        e.pieces((x, y), lambda at, n: isa.LUT(src=at[0], dst=at[1], params=params, n=n, out16=int(y.form.size == 2)),
                 node.op)
