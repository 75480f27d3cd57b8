"""A matrix of blocks: each group of outputs reads its own channels of each tap, as a grouped convolution does."""

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
class GroupedAttributes(LinearAttributes):
    """As `linear`'s; ``taps`` vectors lie side by side in the input, the channels of each in ``groups``."""

    taps: int = 1
    groups: int = 1


class Grouped(Linear):
    """`nnac.ops.linear` whose weights outside the blocks are zero, and stay so in training.

    constants  as `linear`'s: the whole matrix, whose zeros a codec takes out      attributes  weight_bits, taps, groups
    """

    attributes_type = GroupedAttributes

    def attributes(self, layer: LayerShape, p: Precision) -> GroupedAttributes:
        a = layer.attributes
        return GroupedAttributes(weight_bits=p.weights, bias=a.get("bias", True), taps=a.get("taps", 1),
                                 groups=a.get("groups", 1))

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        super().verify_more(node, graph, inputs, output)
        taps, groups = (int(node.attributes[k]) for k in ("taps", "groups"))
        require(inputs[0].width % (taps * groups) == 0 and output.width % groups == 0, node,
                f"{groups} groups of {taps} taps")
