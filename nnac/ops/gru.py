"""GRU over a sequence.  State: hidden (what the products read) and blend (int16 Q0.15, what the update gate keeps)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.formats import UNIT, unit_scale
from nnac.ops import Array, State, require
from nnac.ops._carriers import stacked
from nnac.ops._recurrent import SeparateOperator, require_sums

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class GruAttributes(Attributes):
    """Cells, and bits of the hidden state."""

    cells: int
    hidden_bits: int = 8


class Gru(SeparateOperator):
    """`arith.gru_cell`, then ``hidden = requantise(blend)``.

    constants  input int8 [3H, I]   recurrent int8 [3H, H]   bias, recurrent_bias int64 [3H]
    input_multiplier, input_shift,
               recurrent_multiplier, recurrent_shift [3H]   hidden_multiplier, hidden_shift (from Q0.15)
               sigmoid, tanh int16 [513]
    attributes cells, hidden_bits
    """

    attributes_type = GruAttributes
    gates = 3
    constants = ("input", "recurrent", "bias", "recurrent_bias", "input_multiplier", "input_shift",
                 "recurrent_multiplier", "recurrent_shift",
                 "hidden_multiplier", "hidden_shift", "sigmoid", "tanh")

    def attributes(self, layer: LayerShape, p: Precision) -> GruAttributes:
        return GruAttributes(cells=layer.attributes["cells"], hidden_bits=p.hidden)

    def update(self, m: MachineConfig, cells: int) -> int:
        from nnac.isa import beats

        return m.vx_fill + beats.gru(m, cells)

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        from nnac.ir import State as StateVector

        cells = layer.attributes["cells"]
        return (StateVector(f"{layer.path}.hidden", cells, p.hidden, unit_scale(p.hidden, p.hidden_clip)),
                StateVector(f"{layer.path}.blend", cells, UNIT.bits, UNIT.scale))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        c, a = constants, record(node.attributes, GruAttributes)
        names = f"{node.path}.hidden", f"{node.path}.blend"
        hidden, blend = (state[n] for n in names)
        from_input = arith.requantise(arith.matmul(inputs[0], c["input"]) + c["bias"], c["input_multiplier"],
                                      c["input_shift"], 0, 16)
        outputs = []
        for step in from_input:
            product = arith.matmul(hidden, c["recurrent"]) + c["recurrent_bias"]
            from_hidden = arith.requantise(product, c["recurrent_multiplier"], c["recurrent_shift"], 0, 16)
            blend = arith.gru_cell(step, from_hidden, blend, c["sigmoid"], c["tanh"])
            hidden = arith.requantise(blend, c["hidden_multiplier"], c["hidden_shift"], 0, a.hidden_bits)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, blend
        return stacked(outputs, inputs[0])

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = record(node.attributes, GruAttributes)
        require(output.width == a.cells and output.rate == inputs[0].rate, node, f"makes {a.cells} values a frame")
        if node.constants:
            require_sums(node, (("input", inputs[0].bits, "bias"), ("recurrent", a.hidden_bits, "recurrent_bias")), 32)
