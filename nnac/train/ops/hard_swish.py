"""Hard swish."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from nnac import arith, bind
from nnac.train.format import Format
from nnac.train.ops import Constants, State
from nnac.train.ops._curve import CurveLayer


class HardSwish(CurveLayer):
    """See `nnac.ops.hard_swish`."""

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.gate(out.scale, arith.hard_sigmoid_table())
        return Constants(c, {}, self.ready(c, ins[0], out))

    def slope(self, real: np.ndarray) -> np.ndarray:
        return np.where(abs(real) < 3, (2 * real + 3) / 6, real > 0)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.hardswish(xs[0])
