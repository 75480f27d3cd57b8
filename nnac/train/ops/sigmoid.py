"""Sigmoid, by table."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac.train.ops import State
from nnac.train.ops._table import TableLayer


class Sigmoid(TableLayer):
    """See `nnac.ops.sigmoid`."""

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return torch.sigmoid(xs[0])
