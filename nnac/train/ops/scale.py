"""A value times a positive number."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import bind
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, Layer, State
from nnac.train.ops._numbers import Put


class Scale(Layer):
    """See `nnac.ops.scale`."""

    device = torch.device("cpu")

    @property
    def factor(self) -> float:
        return float(self.node.attributes["factor"])

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.scale(ins[0].scale, self.factor, out.scale)
        reach = 1 << (ins[0].bits - 1)
        return Constants(c, {}, dict(rescale=Rescale.of(c["multiplier"], c["shift"], 0, reach, 0, out.bits,
                                                        self.device)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        y, inside = self.constants_of_formats(ins, out, self.device).ready["rescale"](xs[0].detach())
        real = xs[0] * (ins[0].scale * self.factor / out.scale)
        return learned(Put.apply(real, y, inside), out, real.detach)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return xs[0] * self.factor
