"""What operators without weights have in common: one block of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnac.ir import Node, QGraph
from nnac.schedule.kernels import Parameters
from nnac.schedule.ops import Emission, Made

if TYPE_CHECKING:
    from nnac.ir import Value


class OneBlock(Emission):
    """An operator whose vector instructions read one block of parameters."""

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        """The parameters, as the instruction lays them out."""
        raise NotImplementedError

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        return (Parameters(f"{node.path}.parameters", (self.block(node, graph.values[node.output], made),), node.path),)
