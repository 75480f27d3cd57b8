"""Softmax of a vector at a time, all its groups."""

from __future__ import annotations

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, Value
from nnac.ops.softmax import SoftmaxAttributes
from nnac.schedule.emit import Emitter
from nnac.schedule.layout import ROOTS
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock
from nnac.schedule.ops._roots import WithRoots


class SoftmaxEmission(WithRoots, OneBlock):
    """SMAX."""

    tables = ("exp",)

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        return isa.SMAX.block.pack(multiplier=c["multiplier"], out_multiplier=c["out_multiplier"], shift=c["shift"],
                                   out_shift=c["out_shift"], bits=out.bits, slot=made.slot(c["exp"]),
                                   zero_point=out.zero_point)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        groups = record(node.attributes, SoftmaxAttributes).groups
        for t in range(y.vectors):
            e.put(isa.SMAX(src=x.at(t), dst=y.at(t), params=e.parameters(f"{node.path}.parameters"),
                           roots=e.parameters(ROOTS), n=y.form.width // groups, a16=int(x.form.size == 2),
                           out16=int(y.form.size == 2), groups=groups), "softmax")
