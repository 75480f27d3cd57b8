"""Softmax, group by group."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.attributes import record
from nnac.ops.softmax import SoftmaxAttributes
from nnac.train import integers as exact
from nnac.train import native
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State
from nnac.train.ops._numbers import Put


class Softmax(Layer):
    """See `nnac.ops.softmax`."""

    device = torch.device("cpu")

    @property
    def groups(self) -> int:
        return record(self.node.attributes, SoftmaxAttributes).groups

    def constants(self, ins: list[Format], out: Format) -> Constants:
        return Constants.of(bind.softmax(ins[0].scale, out.scale), self.device)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        c, x = self.constants_of_formats(ins, out, self.device).ready, xs[0].detach()
        with torch.no_grad():
            groups = x.unflatten(-1, (self.groups, -1))
            y = native.softmax(groups, c, out.zero_point, out.bits) if native.usable(x) else arith.softmax(
                groups.long(), c["exp"], c["rsqrt"], c["multiplier"], c["shift"], c["out_multiplier"],
                c["out_shift"], out.zero_point, out.bits)
        real = self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale
        return learned(Put.apply(real, y.flatten(-2), None), out, real.detach)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return xs[0].unflatten(-1, (self.groups, -1)).softmax(-1).flatten(-2)
