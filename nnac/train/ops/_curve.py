"""What layers that weigh a value with a table of itself have in common: functions of one int16."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnac import arith
from nnac.train import integers as exact
from nnac.train.format import Format
from nnac.train.integers import Table
from nnac.train.ops._gate import GateLayer


class CurveLayer(GateLayer):
    """Base: a times a table of a, its 65,536 values made once: one gather, with a derivative of its own."""

    def slope(self, real: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The function's derivative at real numbers; ``weight``: what the table says there, real."""
        raise NotImplementedError

    def ready_in_torch(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        at, entries = np.arange(-32768, 32768), c["table"].astype(np.int64)
        free = arith.gate(at, at, entries, "complement", c["multiplier"], c["shift"], out.zero_point, 32)
        y, weight = free.clip(*out.limits), arith.lookup(entries, "complement", at) * 2.0**-arith.UNIT_FRACTION
        slope = torch.as_tensor(self.slope(at * x.scale, weight) * (y == free) * (x.scale / out.scale))
        return dict(table=Table(torch.as_tensor(y).float().to(self.device), slope.float().to(self.device)))

    def in_torch(self, x: Tensor, ready: dict[str, Any], form: Format, out: Format) -> Tensor:
        return exact.lookup(x, ready["table"])
