"""GELU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nnac import arith
from nnac.attributes import record
from nnac.ops.gelu import GeluAttributes
from nnac.train.ops import State
from nnac.train.ops._curve import CurveLayer


class Gelu(CurveLayer):
    """See `nnac.ops.gelu`."""

    by_sigmoid = False

    @property
    def approximate(self) -> bool:
        return record(self.node.attributes, GeluAttributes).approximate

    def table(self) -> arith.Table:
        return arith.normal_table(self.approximate)

    def slope(self, real: np.ndarray, weight: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(real).requires_grad_()
        with torch.enable_grad():
            made, = torch.autograd.grad(self.reals([x], {}, None).sum(), x)
        return made.numpy()

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.gelu(xs[0], approximate="tanh" if self.approximate else "none")
