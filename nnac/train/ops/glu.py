"""Gated linear unit."""

from __future__ import annotations

from torch import Tensor, nn

from nnac.train.ops import State
from nnac.train.ops._gate import GateLayer


class Glu(GateLayer):
    """See `nnac.ops.glu`."""

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.glu(xs[0], -1)
