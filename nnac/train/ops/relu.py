"""ReLU, leaky or not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nnac import bind
from nnac.attributes import record
from nnac.ops.relu import ReluAttributes
from nnac.train.format import Format
from nnac.train.ops import Constants, State
from nnac.train.ops._curve import CurveLayer


class Relu(CurveLayer):
    """See `nnac.ops.relu`."""

    by_sigmoid = False

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.relu(ins[0].scale, record(self.node.attributes, ReluAttributes).slope, out.scale)
        return Constants(c, {}, self.ready(c, ins[0], out))

    def slope(self, real: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.where(real > 0, 1.0, record(self.node.attributes, ReluAttributes).slope)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        a = record(self.node.attributes, ReluAttributes)
        y = nn.functional.leaky_relu(xs[0], a.slope)
        return torch.clamp(y, max=a.cap) if a.cap else y
