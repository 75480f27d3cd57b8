"""GELU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nnac import arith, bind
from nnac.attributes import record
from nnac.ops.gelu import GeluAttributes
from nnac.train.format import Format
from nnac.train.ops import Constants, State
from nnac.train.ops._curve import CurveLayer


class Gelu(CurveLayer):
    """See `nnac.ops.gelu`."""

    @property
    def approximate(self) -> bool:
        return record(self.node.attributes, GeluAttributes).approximate

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.gate(out.scale, arith.normal_table(self.approximate))
        return Constants(c, {}, self.ready(c, ins[0], out))

    def slope(self, real: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(real).requires_grad_()
        with torch.enable_grad():
            made, = torch.autograd.grad(self.reals([x], {}, None).sum(), x)
        return made.numpy()

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.gelu(xs[0], approximate="tanh" if self.approximate else "none")
