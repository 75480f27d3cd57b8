"""Sum of two values."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.schedule.ops import Made
from nnac.schedule.ops._pair import PairEmission


class AddEmission(PairEmission):
    """ADD."""

    instruction = isa.ADD

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        (m0, m1), (s0, s1) = node.constants["multiplier"], node.constants["shift"]
        return isa.ADD.block.pack(m0=m0, m1=m1, s0=s0, s1=s1, bits=out.bits)
