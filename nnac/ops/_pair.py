"""What operators on two values have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnac.ops import Operator, require

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value


def symmetric_pair(self: Operator, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
    """Both operands and the output are symmetric and of one width."""
    require(all(v.width == output.width and v.zero_point == 0 for v in (*inputs, output)), node,
            "symmetric operands of one width")
