"""Scores of attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nnac import arith, bind
from nnac.attributes import record
from nnac.formats import SCORE
from nnac.ir import Node, QGraph
from nnac.ops.scores import ScoresAttributes, shifted, valid
from nnac.train import native, native_layers
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, State, numbers
from nnac.train.ops._numbers import Put
from nnac.train.ops._ring import RingLayer


class Scores(RingLayer):
    """See `nnac.ops.scores`.  ``position`` [heads, positions]: the learnt bias."""

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.a = a = record(node.attributes, ScoresAttributes)
        self.position = nn.Parameter(torch.zeros(a.heads, a.positions))

    def constants(self, ins: list[Format], out: Format) -> Constants:
        a = self.a
        c = bind.scores(numbers(self.position), (ins[0].scale, ins[1].scale), a.head, a.slots * a.chunk, a.chunk,
                        a.ahead)
        device = self.position.device
        reach = (a.head << 14) + int(abs(c["bias"]).max())
        rescale = Rescale.of(c["multiplier"], c["shift"], 0, reach, 0, arith.SCORE_BITS, device)
        bias = shifted(torch.as_tensor(c["bias"]).to(device, torch.int32), a.slots * a.chunk, a.chunk)
        return Constants(c, {}, dict(bias=bias, rescale=rescale))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c, a = self.kept_constants(ins, out).ready, self.a
        unit = ins[0].scale * ins[1].scale / math.sqrt(a.head)
        if native.usable(*xs):
            keys, known = self.history(xs[1], state)
            shape = native_layers.Attention(a.heads, a.head, a.chunk, a.slots * a.chunk)
            first = (a.slots - known[..., 0]) * a.chunk
            return _Scores.apply(xs[0], keys, self.bias(), c["bias"], first, c["rescale"], shape, unit / out.scale,
                                 1.0 / out.scale)
        (q, k), _, seen = self.parts(xs, state)
        product = q @ k.transpose(-1, -2)              # below 2^24: exact in float32
        with torch.no_grad():
            y, inside = c["rescale"](product.to(torch.int32) + c["bias"])
            there = seen.to(torch.bool)
            y = torch.where(there, y, -(1 << SCORE.bits - 1)).float()
            inside = there if inside is None else inside & there
        real = product * (unit / out.scale) + self.bias() / out.scale
        return self.joined(Put.apply(real, y, inside))

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        (q, k), _, seen = self.parts(xs, state)
        real = q @ k.transpose(-1, -2) / math.sqrt(self.a.head) + self.bias()
        return self.joined(real.masked_fill(~seen.to(torch.bool), -(1 << SCORE.bits - 1) * SCORE.scale))

    def parts(self, xs: list[Tensor], state: State) -> tuple[tuple[Tensor, Tensor], int, Tensor]:
        """((queries [steps, B, heads, chunk, head], keys [steps, B, heads, rows, head]), rows, which were written)."""
        a, (q, k) = self.a, xs
        keys, known = self.windows(k, state)
        steps, batch, rows, _ = keys.shape
        queries = q.view(steps, a.chunk, batch, a.heads, a.head).permute(0, 2, 3, 1, 4)
        keys = keys.reshape(steps, batch, rows, a.heads, a.head).transpose(2, 3)
        return (queries, keys), rows, valid(known, a.slots, a.chunk)

    def bias(self) -> Tensor:
        """The learnt bias of every query and row, real [heads, chunk, rows]."""
        a, rows = self.a, self.a.slots * self.a.chunk
        past = rows - 1 - torch.arange(rows + a.chunk - 1, device=self.position.device)
        return shifted(self.position[:, a.ahead + past], rows, a.chunk)

    def joined(self, y: Tensor) -> Tensor:
        """[steps, B, heads, chunk, rows] -> [T, B, heads * rows]."""
        return y.permute(0, 3, 1, 2, 4).reshape(-1, y.shape[1], self.width)


class _Scores(torch.autograd.Function):
    """`Scores.integers` by the native library; ``real`` [heads, chunk, rows] is what the bias's gradient goes to."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, keys: Tensor, real: Tensor, bias: Tensor, first: Tensor, rescale: Rescale,
                shape: native_layers.Attention, unit: float, inverse: float) -> Tensor:
        y, inside = shape.scores(q, keys, bias, first, rescale)
        ctx.save_for_backward(q, keys, inside)
        ctx.shape, ctx.unit, ctx.inverse = shape, unit, inverse
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, keys, inside = ctx.saved_tensors
        to_q, to_keys, to_bias = ctx.shape.scores_backward(q, keys, g, inside, ctx.unit)
        return to_q, to_keys, to_bias * ctx.inverse, None, None, None, None, None, None
