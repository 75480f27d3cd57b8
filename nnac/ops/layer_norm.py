"""Layer norm over each vector, in integers."""

from nnac import arith
from nnac.ops import Operator, require


class LayerNorm(Operator):
    """`arith.layer_norm`.  constants  gain int16 [C], bias int64 [C], epsilon, root_width, multiplier, shift (scalars), rsqrt [385]."""

    kind = "layer_norm"
    constants = ("gain", "bias", "epsilon", "root_width", "multiplier", "shift", "rsqrt")

    def integers(self, node, graph, inputs, state, constants):
        out, c = graph.values[node.output], constants
        return arith.layer_norm(inputs[0], c["gain"], c["bias"], c["epsilon"], c["root_width"], c["rsqrt"], c["multiplier"], c["shift"],
                                out.zero_point, out.bits)

    def verify_more(self, node, graph, inputs, output):
        require(inputs[0].width == output.width, node, "keeps the width")
        require(inputs[0].width ** 3 << (2 * inputs[0].bits) < 1 << 62, node,
                f"{inputs[0].width} values of {inputs[0].bits} bits overflow the sum of squares")
