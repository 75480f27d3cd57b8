"""Depthwise causal convolution: each channel by itself, over the frame and those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import record
from nnac.ops import Array, State, require
from nnac.ops._ring import RingAttributes, RingOperator

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class DepthwiseAttributes(RingAttributes):
    """``taps`` rows make a result; whether there is a bias."""

    taps: int = 1
    bias: bool = True


class Depthwise(RingOperator):
    """`arith.depthwise`.

    constants  weight int8 [channels, taps], the oldest row's first      bias int64 [channels], in products' units
               multiplier, shift int64 [channels]
    state  count, past: zeros before the first frame
    """

    constants = ("weight", "bias", "multiplier", "shift")
    attributes_type = DepthwiseAttributes
    makes_zero_point = True
    weight_bits = 8
    parametric = True

    def slots(self, layer: Mapping[str, Any]) -> int:
        return -(-(layer["taps"] - 1) // layer["chunk"]) + 1

    def attributes(self, layer: LayerShape, p: Precision) -> DepthwiseAttributes:
        a = layer.attributes
        return DepthwiseAttributes(self.slots(a), a["chunk"], a["taps"], a.get("bias", True))

    def heard(self, attributes: Mapping[str, Any]) -> int | None:
        return int(attributes["taps"]) - 1

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work

        a = job.attributes
        each = 2 * m.vx_fill + beats.keep(m, a["chunk"], job.width) + beats.convolution(m, a["chunk"], a["taps"],
                                                                                        job.width)
        return Work(vector=job.vectors // a["chunk"] * each)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        a, c, out = record(node.attributes, DepthwiseAttributes), constants, graph.values[node.output]
        past, _ = self.windows(node.path, inputs[0], state, a.slots, a.chunk)
        first = past.shape[2] - a.chunk - a.taps + 1
        made = [arith.depthwise(past[:, :, first + i: first + i + a.taps], c["weight"].T, c["bias"], c["multiplier"],
                                c["shift"], out.zero_point, out.bits) for i in range(a.chunk)]
        from nnac.ops._carriers import stacked

        return stacked(made, past).swapaxes(0, 1).reshape(-1, *made[0].shape[1:])

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        from nnac import arith

        a, (x,) = record(node.attributes, DepthwiseAttributes), inputs
        require(x.width == output.width and x.bits <= 8 and x.zero_point == 0, node, "symmetric int8, and its width")
        require(output.rate % a.chunk == 0 and a.taps <= a.slots * a.chunk - a.chunk + 1, node, "the ring holds the "
                "taps of a chunk")
        if node.constants:
            w = node.constants["weight"]
            require(w.shape == (output.width, a.taps), node, f"weight {w.shape} is [{output.width}, {a.taps}]")
            bound = int(arith.accumulator_bound(x.bits, w, node.constants["bias"]).max())
            require(bound < 1 << 31, node, f"the accumulator reaches {bound}, more than 32 bits")
