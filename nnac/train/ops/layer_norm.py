"""Layer norm."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from nnac import arith, bind
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.layer_norm import LayerNormAttributes
from nnac.train import integers as exact
from nnac.train import native
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State, numbers


class LayerNorm(Layer):
    """See `nnac.ops.layer_norm`."""

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.epsilon = record(node.attributes, LayerNormAttributes).epsilon
        made = nn.LayerNorm(self.width)
        self.weight, self.bias = made.weight, made.bias

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.layer_norm(numbers(self.weight), numbers(self.bias), self.epsilon, ins[0].scale, out.scale)
        ready = {k: _roots(self.weight.device) if k == "rsqrt" else
                 torch.as_tensor(v.astype(np.int64)).to(self.weight.device) for k, v in c.items()}
        return Constants(c, {}, dict(norm=native.Norm.of(ready) if native.usable(self.weight) else ready))

    def constants_of_a_step(self, ins: list[Format], out: Format) -> Constants:
        if native.usable(self.weight) and (made := native.Norm.of_a_step(
                self.weight, self.bias, self.epsilon, ins[0].scale, out.scale)) is not None:
            return Constants({}, {}, dict(norm=made))
        return self.constants(ins, out)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c = self.kept_constants(ins, out)
        y = exact.layer_norm(xs[0], self.weight, self.bias, c.ready["norm"], self.epsilon / ins[0].scale ** 2, out)
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.layer_norm(xs[0], (self.width,), self.weight, self.bias, self.epsilon)


@cache
def _roots(device: torch.device) -> Tensor:
    return torch.as_tensor(arith.rsqrt_table().astype(np.int64)).to(device)
