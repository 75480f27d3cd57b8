"""What layers that weigh a value with a table of itself have in common: functions of one int16."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnac import arith
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Table
from nnac.train.ops import State
from nnac.train.ops._gate import GateLayer


class CurveLayer(GateLayer):
    """Base: a times a table of a, its 65,536 values made once: one gather, with a derivative of its own."""

    def slope(self, real: np.ndarray) -> np.ndarray:
        """The function's derivative at real numbers."""
        raise NotImplementedError

    def ready(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        at = np.arange(-32768, 32768)
        free = arith.gate(at, at, c["table"].astype(np.int64), "complement", c["multiplier"], c["shift"],
                          out.zero_point, 32)
        y = free.clip(*out.limits)
        slope = torch.as_tensor(self.slope(at * x.scale) * (y == free) * (x.scale / out.scale))
        return dict(table=Table(torch.as_tensor(y).float().to(self.device), slope.float().to(self.device)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        table = self.constants_of_formats(ins, out, self.device).ready["table"]
        return learned(exact.lookup(xs[0], table), out,
                       lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)
