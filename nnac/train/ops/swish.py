"""Swish."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nnac import arith
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Table
from nnac.train.ops import State
from nnac.train.ops._gate import GateLayer


class Swish(GateLayer):
    """See `nnac.ops.swish`: a function of one int16, so one gather."""

    def ready(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        at = np.arange(-32768, 32768)
        free = arith.gate(at, at, c["table"].astype(np.int64), "complement", c["multiplier"], c["shift"],
                          out.zero_point, 32)
        y = free.clip(*out.limits)
        real = torch.as_tensor(at * x.scale)
        s = torch.sigmoid(real)
        slope = s * (1 + real * (1 - s)) * torch.as_tensor(y == free) * (x.scale / out.scale)
        return dict(table=Table(torch.as_tensor(y).float().to(self.device), slope.float().to(self.device)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        key = (ins, out, self.device)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.constants(ins, out)
        y = exact.lookup(xs[0], cast(Table, self._kept[1].ready["table"]))
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.silu(xs[0])
