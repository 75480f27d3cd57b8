"""Element by element: add, multiply, tables."""

from nnac import arith
from nnac.ops import Operator, require


class Add(Operator):
    """`arith.add`.  constants: multiplier, shift int64 [2].  Symmetric."""

    kind = "add"
    inputs = 2
    constants = ("multiplier", "shift")

    def integers(self, node, graph, inputs, state, constants):
        a, b = inputs
        return arith.add(a, b, constants["multiplier"], constants["shift"], graph.values[node.output].bits)

    def verify_more(self, node, graph, inputs, output):
        require(all(v.width == output.width and v.zero_point == 0 for v in (*inputs, output)), node, "symmetric operands of one width")


class Multiply(Operator):
    """``requantise(a * b)``: the multiplicative joint.  constants: multiplier, shift (scalars)."""

    kind = "multiply"
    inputs = 2
    constants = ("multiplier", "shift")

    def integers(self, node, graph, inputs, state, constants):
        return arith.requantise(inputs[0] * inputs[1], constants["multiplier"], constants["shift"], 0, graph.values[node.output].bits)

    verify_more = Add.verify_more


class Lookup(Operator):
    """A tabulated function of an int16 in Q3.12, requantised to the output's format.

    constants  table int16 [513], multiplier, shift (from Q0.15)     attributes  function (tanh|sigmoid), symmetry
    """

    kind = "lookup"
    constants = ("table", "multiplier", "shift")

    def integers(self, node, graph, inputs, state, constants):
        out = graph.values[node.output]
        y = arith.lookup(constants["table"], node.attributes["symmetry"], inputs[0])
        return arith.requantise(y, constants["multiplier"], constants["shift"], out.zero_point, out.bits)

    def verify_more(self, node, graph, inputs, output):
        require(inputs[0].bits == 16 and inputs[0].scale in (None, 2.0**-arith.PRE_FRACTION), node, "a table is read with int16 in Q3.12")
        require(output.width == inputs[0].width, node, "keeps the width")
