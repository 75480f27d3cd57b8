"""Swish."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from nnac.train.ops import State
from nnac.train.ops._curve import CurveLayer


class Swish(CurveLayer):
    """See `nnac.ops.swish`."""

    def slope(self, real: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return weight * (1 + real * (1 - weight))

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.silu(xs[0])
