"""Join ``frames`` consecutive vectors into one: frame stacking before the encoder, time reduction inside it.  No
arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class StackAttributes(Attributes):
    """``frames`` joined into one."""

    frames: int


class Stack(Operator):
    """[T, B, C] -> [T / frames, B, frames * C], oldest first; attributes: frames.  A rest of T is dropped."""

    attributes_type = StackAttributes
    view = True

    def attributes(self, layer: LayerShape, p: Precision) -> StackAttributes:
        return StackAttributes(frames=layer.attributes["frames"])

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        from attrs import evolve

        return evolve(source, name=layer.path, width=layer.width, rate=layer.rate)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        (x,) = inputs
        k = record(node.attributes, StackAttributes).frames
        steps, batch, width = x.shape[0] // k, x.shape[1], x.shape[2]
        x = x[: steps * k].reshape(steps, k, batch, width)
        return x.swapaxes(1, 2).reshape(steps, batch, k * width)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        k = record(node.attributes, StackAttributes).frames
        require(output.width == k * inputs[0].width and inputs[0].rate == k * output.rate, node,
                f"joins {k} frames into one")
        require((output.bits, output.scale, output.zero_point) == (inputs[0].bits, inputs[0].scale,
                                                                   inputs[0].zero_point), node,
                "keeps the format")
