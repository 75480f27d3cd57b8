"""Row of a table chosen by an index: the prediction network's label embedding."""

from nnac.ops import Operator, require


class Embedding(Operator):
    """Row ``x[..., 0]`` of the table.  constants  weight int8 [rows, width] in the output's own format.  The index is a 32-bit value."""

    kind = "embedding"
    constants = ("weight",)

    def integers(self, node, graph, inputs, state, constants):
        return constants["weight"][inputs[0][..., 0]]

    def verify_more(self, node, graph, inputs, output):
        require(inputs[0].bits == 32 and inputs[0].width == 1, node, "reads one index a frame")
        if node.constants:
            require(node.constants["weight"].shape[1] == output.width, node, "the table is as wide as the output")
