"""Sum of two values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnac.ops import Array, Operator, State
from nnac.ops._pair import symmetric_pair

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph


class Add(Operator):
    """`arith.add`.  constants: multiplier, shift int64 [2].  Symmetric."""

    inputs = 2
    constants = ("multiplier", "shift")
    verify_more = symmetric_pair

    def fits(self, attributes: Mapping[str, Any], whole: bool, width: int, lanes: int) -> bool:
        return whole

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State, constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        a, b = inputs
        return arith.add(a, b, constants["multiplier"], constants["shift"], graph.values[node.output].bits)
