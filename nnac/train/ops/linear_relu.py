"""A matrix and a bias, then 0 and the cap by saturation."""

from __future__ import annotations

from torch import Tensor

from nnac.attributes import record
from nnac.ops.linear_relu import LinearReluAttributes
from nnac.train.ops import State
from nnac.train.ops.linear import Linear


class LinearRelu(Linear):
    """See `nnac.ops.linear_relu`.  Where the integer saturates, the gradient is 0, as a ReLU's."""

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return super().reals(xs, state, lengths).clamp(0, record(self.node.attributes, LinearReluAttributes).cap)
