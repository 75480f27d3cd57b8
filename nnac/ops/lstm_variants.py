"""LSTMs with coupled input and forget gates, and with layer norm inside the gates.  One direction; `sum16` arithmetic."""

from typing import ClassVar

from nnac import arith
from nnac.ops import Operator, require
from nnac.ops.lstm import join, stacked


class CoupledLstm(Operator):
    """CIFG: `arith.coupled_cell`; gates f, g, o.

    constants  input int8 [3H, I]   recurrent int8 [3H, H]   bias int64 [3H]   input_multiplier, input_shift, recurrent_multiplier,
               recurrent_shift [3H]   hidden_multiplier, hidden_shift   sigmoid, tanh, tanh_cell int16 [513]
    attributes cells, fraction (of the cell), hidden_bits
    """

    kind = "lstm_coupled"
    gates = 3
    constants: ClassVar[tuple[str, ...]] = (
        "input", "recurrent", "bias", "input_multiplier", "input_shift", "recurrent_multiplier", "recurrent_shift", "hidden_multiplier",
        "hidden_shift", "sigmoid", "tanh", "tanh_cell")

    def integers(self, node, graph, inputs, state, constants):
        c, a = constants, node.attributes
        names = f"{node.path}.hidden", f"{node.path}.cell"
        hidden, cell = (state[n] for n in names)
        from_input = arith.requantise(arith.matmul(inputs[0], c["input"]) + c["bias"], c["input_multiplier"], c["input_shift"], 0, 16)
        outputs = []
        for step in from_input:
            product = arith.requantise(arith.matmul(hidden, c["recurrent"]), c["recurrent_multiplier"], c["recurrent_shift"], 0, 16)
            hidden, cell = self.cell(arith.saturate(step + product, 16), cell, c, a)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, cell
        return stacked(outputs, inputs[0])

    def cell(self, pre, cell, c, a):
        return arith.coupled_cell(pre, cell, c["sigmoid"], c["tanh"], c["tanh_cell"], a["fraction"], c["hidden_multiplier"], c["hidden_shift"],
                                  a["hidden_bits"])

    def verify_more(self, node, graph, inputs, output):
        a = node.attributes
        require(0 < a["fraction"] < 16, node, "the cell has 1 to 15 fraction bits")
        require(output.width == a["cells"] and output.rate == inputs[0].rate, node, f"makes {a['cells']} values a frame")
        if node.constants:
            require(node.constants["input"].shape[0] == self.gates * a["cells"], node, f"has {self.gates} gates")
            for kernel, bits, bias in (("input", inputs[0].bits, node.constants["bias"]), ("recurrent", a["hidden_bits"], 0)):
                bound = int(arith.accumulator_bound(bits, node.constants[kernel], bias).max())
                require(bound < 1 << 31, node, f"the accumulator of {kernel} reaches {bound}, more than 32 bits")


class NormedLstm(CoupledLstm):
    """LSTM whose pre-activations are layer-normed gate by gate before the tables: `arith.layer_norm` from Q3.12 to Q3.12.

    constants  as above with four gates i, f, g, o, and gate_gain int16 [4H], gate_bias int64 [4H], gate_multiplier, gate_shift [4],
               gate_epsilon, gate_root_width (scalars), rsqrt [385]
    Source: Ba et al. 2016 for the placement (TFLite's layer-norm LSTM has it there too); our integers.
    """

    kind = "lstm_normed"
    gates = 4
    constants = (*CoupledLstm.constants, "gate_gain", "gate_bias", "gate_multiplier", "gate_shift", "gate_epsilon", "gate_root_width", "rsqrt")

    def cell(self, pre, cell, c, a):
        h = a["cells"]
        normed = [arith.layer_norm(pre[..., g * h:(g + 1) * h], c["gate_gain"][g * h:(g + 1) * h], c["gate_bias"][g * h:(g + 1) * h],
                                   c["gate_epsilon"], c["gate_root_width"], c["rsqrt"], c["gate_multiplier"][g], c["gate_shift"][g], 0, 16)
                  for g in range(4)]
        return arith.lstm_cell(join(*normed), cell, c["sigmoid"], c["tanh"], c["tanh_cell"], a["fraction"], c["hidden_multiplier"],
                               c["hidden_shift"], a["hidden_bits"])

    def verify_more(self, node, graph, inputs, output):
        super().verify_more(node, graph, inputs, output)
        cells = node.attributes["cells"]
        require(cells**3 << 32 < 1 << 62, node, f"{cells} values of 16 bits overflow the sum of squares (at most 1023 cells)")
