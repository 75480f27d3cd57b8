"""Depthwise causal convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nnac import bind
from nnac.attributes import record
from nnac.compression._grids import exact as graded
from nnac.ir import Node, QGraph
from nnac.ops.depthwise import DepthwiseAttributes
from nnac.train import native, native_layers
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.native_weights import weights
from nnac.train.ops import Constants, MakeQuantiser, Quantiser, State, numbers, valid
from nnac.train.ops._numbers import Put
from nnac.train.ops._ring import RingLayer
from nnac.train.ops._room import Sums, roomy
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
        codes, scale = roomy(self.quantiser, self.weight, [Sums(0, self.taps, ins[0], self.bias)], 32)
        c = bind.linear_scales(self.width, numbers(scale), None if self.bias is None else numbers(self.bias),
                               ins[0].scale, 0, out.scale)
        acc_scale = (scale * ins[0].scale).expand(self.width).float()
        rescale = Rescale.of(c["multiplier"], c["shift"], c["bias"], self.taps << (ins[0].bits + 6), out.zero_point,
                             out.bits, codes.device)
        return Constants(c, dict(weight=codes), dict(acc_scale=acc_scale, rescale=rescale))

    def constants_of_a_step(self, ins: list[Format], out: Format) -> Constants:
        made = weights(self.quantiser, self.weight, self.bias, ins[0], out)
        if made is None:
            return self.constants(ins, out)
        codes = graded(self.weight, made.codes, made.unit[:, None])
        return Constants({}, dict(weight=codes), dict(acc_scale=made.acc_scale, rescale=made.rescale))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c = self.kept_constants(ins, out)
        past = self.past(xs[0], state)
        factor = c.ready["acc_scale"] / out.scale

        def real() -> Tensor:
            # integers below 2^24 all the way: float32 holds every sum
            y = convolved(past, c.codes["weight"]) * factor
            return y if self.bias is None else y + self.bias / out.scale

        if native.usable(past):
            y = _Depthwise.apply(past, c.codes["weight"], self.bias, factor, 1.0 / out.scale, c.ready["rescale"])
            return learned(y, out, real)
        y, inside = c.ready["rescale"](convolved(past.detach(), c.codes["weight"].detach()))
        smooth = real()
        return learned(Put.apply(smooth, y, inside), out, smooth.detach)

    def past(self, x: Tensor, state: State) -> Tensor:
        """[taps - 1 + T, B, width]: what every result is made of, the oldest first."""
        every, _ = self.history(x, state)
        return every[len(every) - len(x) - self.taps + 1:]

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        y = convolved(self.past(xs[0], state), self.weight)
        return y if self.bias is None else y + self.bias


def convolved(past: Tensor, weight: Tensor) -> Tensor:
    """[taps - 1 + T, B, channels], [channels, taps] -> [T, B, channels]."""
    y = nn.functional.conv1d(past.permute(1, 2, 0), weight[:, None], groups=weight.shape[0])
    return y.permute(2, 0, 1)


class _Depthwise(torch.autograd.Function):
    """`Depthwise.integers` by the native library: past [taps - 1 + T, B, channels], codes [channels, taps]."""

    @staticmethod
    def forward(ctx: Any, past: Tensor, codes: Tensor, bias: Tensor | None, factor: Tensor, inverse: float,
                rescale: Rescale) -> Tensor:
        weight = codes.t().contiguous()
        y, inside = native_layers.depthwise(past, weight, rescale)
        ctx.save_for_backward(past, weight, factor, inside)
        ctx.inverse, ctx.biased = inverse, bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        past, weight, factor, inside = ctx.saved_tensors
        scaled, total = native_layers.scaled(g, inside, 1.0, factor)
        to_past, to_weight = native_layers.depthwise_backward(past, weight, scaled.view_as(g))
        return to_past, to_weight.t(), total * ctx.inverse if ctx.biased else None, None, None, None
