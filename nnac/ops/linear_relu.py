"""Matrix-vector product and bias whose requantisation is the ReLU: ``min(max(W x + b, 0), cap)`` by saturation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.ops import require
from nnac.ops.linear import Linear, LinearAttributes

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class LinearReluAttributes(LinearAttributes):
    """As `linear`'s; the real value that the output is limited to."""

    cap: float = 6.0


class LinearRelu(Linear):
    """``y = requantise(W x + b)``, in the one format whose smallest integer stands for 0 and whose largest for ``cap``.

    So saturating is both limits, exactly, and costs nothing: the zero point is -2^(bits-1), the scale cap / (2^bits -
    1).
    constants  as `nnac.ops.linear`'s      attributes  weight_bits, cap
    """

    attributes_type = LinearReluAttributes
    capped = True

    def attributes(self, layer: LayerShape, p: Precision) -> LinearReluAttributes:
        return LinearReluAttributes(weight_bits=p.weights, bias=layer.attributes.get("bias", True),
                                    cap=layer.attributes["cap"])

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        from nnac.ir import Value

        bits = p.activations
        return Value(layer.path, layer.width, bits, layer.rate, layer.attributes["cap"] / ((1 << bits) - 1),
                     -(1 << (bits - 1)))

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        super().verify_more(node, graph, inputs, output)
        require(output.zero_point == -(1 << (output.bits - 1)), node, "its smallest integer stands for 0")
