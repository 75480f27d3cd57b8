"""The weighted sum of attention."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import bind
from nnac.attributes import record
from nnac.ops.weighted_sum import WeightedSumAttributes
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, State
from nnac.train.ops._numbers import Put
from nnac.train.ops._ring import RingLayer


class WeightedSum(RingLayer):
    """See `nnac.ops.weighted_sum`."""

    device = torch.device("cpu")

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.multiply((ins[0].scale, ins[1].scale), out.scale)
        # probabilities add up to one, whatever their bits: far below 2^24, and exact in float32
        return Constants(c, {}, dict(rescale=Rescale.of(c["multiplier"], c["shift"], 0, 1 << 24, 0, out.bits,
                                                        self.device)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        c = self.kept_constants(ins, out).ready
        p, v = self.parts(xs, state)
        acc = p @ v
        y, inside = c["rescale"](acc.detach())
        real = acc * (ins[0].scale * ins[1].scale / out.scale)
        return self.joined(learned(Put.apply(real, y, inside), out, real.detach))

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        p, v = self.parts(xs, state)
        return self.joined(p @ v)

    def parts(self, xs: list[Tensor], state: State) -> tuple[Tensor, Tensor]:
        """(probabilities [steps, B, heads, chunk, rows], values [steps, B, heads, rows, head])."""
        a, (p, v) = record(self.node.attributes, WeightedSumAttributes), xs
        values, _ = self.windows(v, state)
        steps, batch, rows, _ = values.shape
        weights = p.view(steps, a.chunk, batch, a.heads, rows).permute(0, 2, 3, 1, 4)
        return weights, values.reshape(steps, batch, rows, a.heads, a.head).transpose(2, 3)

    def joined(self, y: Tensor) -> Tensor:
        """[steps, B, heads, chunk, head] -> [T, B, heads * head]."""
        return y.permute(0, 3, 1, 2, 4).reshape(-1, y.shape[1], self.width)
