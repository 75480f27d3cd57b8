"""Hardtanh, by table."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from nnac import arith, bind
from nnac.attributes import record
from nnac.ops.hardtanh import HardtanhAttributes
from nnac.train.format import Format
from nnac.train.ops import State
from nnac.train.ops._table import TableLayer


class Hardtanh(TableLayer):
    """See `nnac.ops.hardtanh`."""

    @property
    def cap(self) -> float:
        return record(self.node.attributes, HardtanhAttributes).cap

    def table(self, out: Format) -> bind.Constants:
        return bind.lookup(arith.hardtanh_table(self.cap), out.scale / self.cap)

    def slope(self, real: np.ndarray) -> np.ndarray:
        return (abs(real) < self.cap) * 1.0

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return xs[0].clamp(-self.cap, self.cap)
