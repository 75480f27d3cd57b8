"""Sum of two values."""

from __future__ import annotations

import numpy as np

from nnac import isa
from nnac.ir import Node, Value
from nnac.isa.dtypes import ADD_DTYPE
from nnac.schedule.ops import Made
from nnac.schedule.ops._pair import PairEmission


class AddEmission(PairEmission):
    """ADD."""

    instruction = isa.ADD

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        (m0, m1), (s0, s1) = node.constants["multiplier"], node.constants["shift"]
        return np.array((m0, m1, s0, s1, out.bits, 0), ADD_DTYPE).tobytes()
