"""Product of two values."""

from __future__ import annotations

import numpy as np

from nnac import isa
from nnac.ir import Node, Value
from nnac.isa.dtypes import MUL_DTYPE
from nnac.schedule.ops import Made
from nnac.schedule.ops._pair import PairEmission


class MultiplyEmission(PairEmission):
    """MUL."""

    instruction = isa.MUL

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        return np.array((c["multiplier"], c["shift"], out.bits, out.zero_point), MUL_DTYPE).tobytes()
