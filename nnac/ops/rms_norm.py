"""Norm of each vector by its root mean square, in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnac.ops import Array, State, require
from nnac.ops.layer_norm import LayerNorm

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value


class RmsNorm(LayerNorm):
    """``gain x / sqrt(mean x^2 + epsilon)``: `arith.layer_norm` whose mean is not taken off, without a bias.

    constants  as of `LayerNorm`, without bias.   Source: Zhang and Sennrich 2019; icefall's BasicNorm; our integers
    """

    constants = ("gain", "epsilon", "root_width", "multiplier", "shift", "rsqrt")
    folds_zero_point = False

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        out, c = graph.values[node.output], constants
        return arith.layer_norm(inputs[0], c["gain"], 0, c["epsilon"], c["root_width"], c["rsqrt"], c["multiplier"],
                                c["shift"], out.zero_point, out.bits, rms=1)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        super().verify_more(node, graph, inputs, output)
        require(inputs[0].zero_point == 0, node, "a symmetric input")
