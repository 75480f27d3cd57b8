"""GRU over a sequence.  State: hidden (what the products read) and blend (int16 Q0.15, what the update gate keeps)."""

from nnac import arith
from nnac.ops import Operator, require
from nnac.ops.lstm import stacked


class Gru(Operator):
    """`arith.gru_cell`, then ``hidden = requantise(blend)``.

    constants  input int8 [3H, I]   recurrent int8 [3H, H]   bias, recurrent_bias int64 [3H]   input_multiplier, input_shift,
               recurrent_multiplier, recurrent_shift [3H]   hidden_multiplier, hidden_shift (from Q0.15)   sigmoid, tanh int16 [513]
    attributes cells, hidden_bits
    """

    kind = "gru"
    constants = ("input", "recurrent", "bias", "recurrent_bias", "input_multiplier", "input_shift", "recurrent_multiplier", "recurrent_shift",
                 "hidden_multiplier", "hidden_shift", "sigmoid", "tanh")

    def integers(self, node, graph, inputs, state, constants):
        c, a = constants, node.attributes
        names = f"{node.path}.hidden", f"{node.path}.blend"
        hidden, blend = (state[n] for n in names)
        from_input = arith.requantise(arith.matmul(inputs[0], c["input"]) + c["bias"], c["input_multiplier"], c["input_shift"], 0, 16)
        outputs = []
        for step in from_input:
            product = arith.matmul(hidden, c["recurrent"]) + c["recurrent_bias"]
            from_hidden = arith.requantise(product, c["recurrent_multiplier"], c["recurrent_shift"], 0, 16)
            blend = arith.gru_cell(step, from_hidden, blend, c["sigmoid"], c["tanh"])
            hidden = arith.requantise(blend, c["hidden_multiplier"], c["hidden_shift"], 0, a["hidden_bits"])
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, blend
        return stacked(outputs, inputs[0])

    def verify_more(self, node, graph, inputs, output):
        require(output.width == node.attributes["cells"] and output.rate == inputs[0].rate, node, f"makes {node.attributes['cells']} values a frame")
        if node.constants:
            for kernel, bits, bias in (("input", inputs[0].bits, "bias"), ("recurrent", node.attributes["hidden_bits"], "recurrent_bias")):
                bound = int(arith.accumulator_bound(bits, node.constants[kernel], node.constants[bias]).max())
                require(bound < 1 << 31, node, f"the accumulator of {kernel} reaches {bound}, more than 32 bits")
