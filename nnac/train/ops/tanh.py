"""Tanh, by table."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac.train.ops import State
from nnac.train.ops._table import TableLayer


class Tanh(TableLayer):
    """See `nnac.ops.tanh`."""

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return torch.tanh(xs[0])
