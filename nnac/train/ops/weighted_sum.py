"""The weighted sum of attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnac import bind
from nnac.attributes import record
from nnac.ops.weighted_sum import WeightedSumAttributes
from nnac.train import native, native_layers
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
        rescale = self.constants_of_formats(ins, out, self.device).ready["rescale"]
        ratio = ins[0].scale * ins[1].scale / out.scale
        if native.usable(*xs):
            a, before = record(self.node.attributes, WeightedSumAttributes), dict(state)
            values, _ = self.history(xs[1], state)
            shape = native_layers.Attention(a.heads, a.head, a.chunk, a.slots * a.chunk)
            y = _WeightedSum.apply(xs[0], values, rescale, shape, ratio)
            return learned(y, out, lambda: self.reals(xs, before, lengths) * ratio)
        p, v = self.parts(xs, state)
        acc = p @ v
        y, inside = rescale(acc.detach())
        real = acc * ratio
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


class _WeightedSum(torch.autograd.Function):
    """`WeightedSum.integers` by the native library."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, values: Tensor, rescale: Rescale, shape: native_layers.Attention,
                ratio: float) -> Tensor:
        y, inside = shape.weighted_sum(p, values, rescale)
        ctx.save_for_backward(p, values, inside)
        ctx.shape, ctx.ratio = shape, ratio
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        p, values, inside = ctx.saved_tensors
        scaled, _ = native_layers.scaled(g, inside, ctx.ratio)
        return *ctx.shape.weighted_sum_backward(p, values, scaled.view_as(g)), None, None, None
