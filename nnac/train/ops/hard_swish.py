"""Hard swish."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from nnac import arith
from nnac.train.ops import State
from nnac.train.ops._curve import CurveLayer


class HardSwish(CurveLayer):
    """See `nnac.ops.hard_swish`."""

    by_sigmoid = False

    def table(self) -> arith.Table:
        return arith.hard_sigmoid_table()

    def slope(self, real: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.where(abs(real) < 3, (2 * real + 3) / 6, real > 0)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.hardswish(xs[0])
