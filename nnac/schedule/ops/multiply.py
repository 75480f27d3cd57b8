"""Product of two values."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.schedule.ops import Made
from nnac.schedule.ops._pair import PairEmission


class MultiplyEmission(PairEmission):
    """MUL."""

    instruction = isa.MUL

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        return isa.MUL.block.pack(multiplier=c["multiplier"], shift=c["shift"], bits=out.bits,
                                  zero_point=out.zero_point)
