"""Row of a table chosen by an index: the prediction network's label embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class EmbeddingAttributes(Attributes):
    """Rows of the table."""

    rows: int


class Embedding(Operator):
    """Row ``x[..., 0]`` of the table.  constants  weight int8 [rows, width] in the output's own format.  The index is a
    32-bit value."""

    attributes_type = EmbeddingAttributes
    constants = ("weight",)
    by_index = True
    makes_zero_point = True
    weight_bits = 8

    def attributes(self, layer: LayerShape, p: Precision) -> EmbeddingAttributes:
        return EmbeddingAttributes(rows=layer.kernels[0].rows)

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.ops._work import Work

        return Work(tail=m.latency)                    # nobody reads ahead of an index

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        return constants["weight"][inputs[0][..., 0]]

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        require(inputs[0].bits == 32 and inputs[0].width == 1, node, "reads one index a frame")
        if node.constants:
            require(node.constants["weight"].shape[1] == output.width, node, "the table is as wide as the output")
