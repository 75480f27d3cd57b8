"""Depthwise causal convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nnac import bind
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.depthwise import DepthwiseAttributes
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, MakeQuantiser, Quantiser, State, numbers, valid
from nnac.train.ops._numbers import Put
from nnac.train.ops._ring import RingLayer
from nnac.train.schedule import Slot


class Depthwise(RingLayer):
    """See `nnac.ops.depthwise`.  ``weight`` [channels, taps], oldest first."""

    quantiser: Quantiser

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        a = record(node.attributes, DepthwiseAttributes)
        self.taps = a.taps
        self.weight = nn.Parameter(torch.empty(self.width, a.taps))
        nn.init.kaiming_uniform_(self.weight, math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(self.width)) if a.bias else None

    def make_quantisers(self, make: MakeQuantiser) -> None:
        self.quantiser = make(f"{self.node.path}.weight", self.weight, 8)

    def compressed_weights(self) -> Iterator[Slot]:
        yield Slot.of_parameter(f"{self.node.path}.weight", self.quantiser, self.weight)

    def meets(
        self, xs: list[Tensor], y: Tensor, before: State, lengths: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        """The taps of all channels together: every row has inputs of its own, and one product of them all is kept (our
        choice)."""
        windows = self.past(xs[0], dict(before)).unfold(0, self.taps, 1)           # [T, B, channels, taps]
        yield f"{self.node.path}.weight", valid(windows.flatten(2), lengths).reshape(-1, self.taps)

    def constants(self, ins: list[Format], out: Format) -> Constants:
        codes, scale = self.quantiser(self.weight)
        c = bind.linear_scales(self.width, numbers(scale), None if self.bias is None else numbers(self.bias),
                               ins[0].scale, 0, out.scale)
        acc_scale = (scale * ins[0].scale).expand(self.width).float()
        rescale = Rescale.of(c["multiplier"], c["shift"], c["bias"], self.taps << (ins[0].bits + 6), out.zero_point,
                             out.bits, codes.device)
        return Constants(c, dict(weight=codes), dict(acc_scale=acc_scale, rescale=rescale))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c = self.kept_constants(ins, out)
        past = self.past(xs[0], state)
        # integers below 2^24 all the way: float32 holds every sum
        acc = convolved(past, c.codes["weight"])
        y, inside = c.ready["rescale"](acc.detach())
        real = acc * (c.ready["acc_scale"] / out.scale)
        if self.bias is not None:
            real = real + self.bias / out.scale
        return learned(Put.apply(real, y, inside), out, real.detach)

    def past(self, x: Tensor, state: State) -> Tensor:
        """[taps - 1 + T, B, width]: what every result is made of, the oldest first."""
        windows, _ = self.windows(x, state)
        rows = windows.shape[2]
        first = rows - record(self.node.attributes, DepthwiseAttributes).chunk - self.taps + 1
        return torch.cat([windows[0, :, first: first + self.taps - 1].transpose(0, 1), x])

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        y = convolved(self.past(xs[0], state), self.weight)
        return y if self.bias is None else y + self.bias


def convolved(past: Tensor, weight: Tensor) -> Tensor:
    """[taps - 1 + T, B, channels], [channels, taps] -> [T, B, channels]."""
    y = nn.functional.conv1d(past.permute(1, 2, 0), weight[:, None], groups=weight.shape[0])
    return y.permute(2, 0, 1)
