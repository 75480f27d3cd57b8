"""Swish."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnac import arith
from nnac.train import integers as exact
from nnac.train.format import Format
from nnac.train.integers import Table
from nnac.train.ops import State
from nnac.train.ops._gate import GateLayer


class Swish(GateLayer):
    """See `nnac.ops.swish`: a function of one int16, so one gather."""

    def ready_in_torch(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        at, entries = np.arange(-32768, 32768), c["table"].astype(np.int64)
        free = arith.gate(at, at, entries, "complement", c["multiplier"], c["shift"], out.zero_point, 32)
        y = free.clip(*out.limits)
        s = torch.as_tensor(arith.lookup(entries, "complement", at) * 2.0**-arith.UNIT_FRACTION)
        slope = s * (1 + torch.as_tensor(at * x.scale) * (1 - s)) * torch.as_tensor(y == free) * (x.scale / out.scale)
        return dict(table=Table(torch.as_tensor(y).float().to(self.device), slope.float().to(self.device)))

    def in_torch(self, x: Tensor, ready: dict[str, Any], form: Format, out: Format) -> Tensor:
        return exact.lookup(x, ready["table"])

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.silu(xs[0])
