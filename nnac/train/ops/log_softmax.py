"""Log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State
from nnac.train.ops._numbers import Put


class LogSoftmax(Layer):
    """Log-probabilities; see `arith.log_softmax`."""

    device = torch.device("cpu")

    def constants(self, ins: list[Format], out: Format) -> Constants:
        return Constants.of(bind.log_softmax(ins[0].scale), self.device)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        c = self.constants(ins, out).ready
        y = arith.log_softmax(xs[0].detach().long(), c["exp"], c["log"], c["multiplier"], c["shift"])
        real = torch.log_softmax(xs[0] * ins[0].scale, -1)
        return Put.apply(real / out.scale, y, y > out.limits[0])

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return torch.log_softmax(xs[0], -1)
