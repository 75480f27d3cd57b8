"""Norm by the root mean square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnac import arith, bind
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.layer_norm import LayerNormAttributes
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State, numbers
from nnac.train.ops._numbers import Put


class RmsNorm(Layer):
    """See `nnac.ops.rms_norm`."""

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.epsilon = record(node.attributes, LayerNormAttributes).epsilon
        self.weight = nn.Parameter(torch.ones(self.width))

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.rms_norm(numbers(self.weight), self.epsilon, ins[0].scale, out.scale)
        return Constants(c, {}, {k: torch.as_tensor(v.astype("int64")).to(self.weight.device) for k, v in c.items()})

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c = self.kept_constants(ins, out).ready
        free = arith.layer_norm(xs[0].detach().long(), c["gain"], 0, c["epsilon"], c["root_width"], c["rsqrt"],
                                c["multiplier"], c["shift"], out.zero_point, 32, rms=1)
        y = free.clip(*out.limits)
        real = self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale
        return learned(Put.apply(real, y, y == free), out, real.detach)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return xs[0] * (xs[0].square().mean(-1, keepdim=True) + self.epsilon).rsqrt() * self.weight
