"""LSTM with coupled input and forget gates (CIFG).  One direction; `sum16` arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.formats import unit_scale
from nnac.ops import Array, State, require
from nnac.ops._carriers import stacked
from nnac.ops._recurrent import SeparateOperator, cell_states, require_fraction, require_sums

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class CoupledLstmAttributes(Attributes):
    """Cells, fraction bits of the cell, bits of the hidden state."""

    cells: int
    fraction: int
    hidden_bits: int = 8


class CoupledLstm(SeparateOperator):
    """CIFG: `arith.coupled_cell`; gates f, g, o.

    constants  input int8 [3H, I]   recurrent int8 [3H, H]   bias int64 [3H]
    input_multiplier, input_shift, recurrent_multiplier,
               recurrent_shift [3H]   hidden_multiplier, hidden_shift   sigmoid, tanh, tanh_cell int16 [513]
    attributes cells, fraction (of the cell), hidden_bits
    """

    attributes_type = CoupledLstmAttributes
    gates = 3
    constants: ClassVar[tuple[str, ...]] = (
        "input", "recurrent", "bias", "input_multiplier", "input_shift", "recurrent_multiplier", "recurrent_shift",
        "hidden_multiplier", "hidden_shift", "sigmoid", "tanh", "tanh_cell")

    def attributes(self, layer: LayerShape, p: Precision) -> CoupledLstmAttributes:
        return CoupledLstmAttributes(cells=layer.attributes["cells"], fraction=p.cell_fraction, hidden_bits=p.hidden)

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        # gate after gate begins at a multiple of 4 bytes
        return attributes["cells"] % 2 == 0 and super().fits(attributes, width, lanes)

    def update(self, m: MachineConfig, cells: int) -> int:
        from nnac.isa import beats

        return 2 * m.vx_fill + beats.elementwise(m, cells) + beats.lstm(m, cells)

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        return cell_states(layer.path, layer.attributes["cells"], layer.attributes["cells"], p,
                           unit_scale(p.hidden, p.hidden_clip))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        c, a = constants, record(node.attributes, CoupledLstmAttributes)
        names = f"{node.path}.hidden", f"{node.path}.cell"
        hidden, cell = (state[n] for n in names)
        from_input = arith.requantise(arith.matmul(inputs[0], c["input"]) + c["bias"], c["input_multiplier"],
                                      c["input_shift"], 0, 16)
        outputs = []
        for step in from_input:
            product = arith.requantise(arith.matmul(hidden, c["recurrent"]), c["recurrent_multiplier"],
                                       c["recurrent_shift"], 0, 16)
            hidden, cell = self.cell(arith.saturate(step + product, 16), cell, c, a)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, cell
        return stacked(outputs, inputs[0])

    def cell(self, pre: Array, cell: Array, c: Mapping[str, Array], a: CoupledLstmAttributes) -> tuple[Array, Array]:
        """(hidden, cell) after one frame."""
        from nnac import arith

        return arith.coupled_cell(pre, cell, c["sigmoid"], c["tanh"], c["tanh_cell"], a.fraction,
                                  c["hidden_multiplier"], c["hidden_shift"],
                                  a.hidden_bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = record(node.attributes, CoupledLstmAttributes)
        require_fraction(node, a.fraction)
        require(output.width == a.cells and output.rate == inputs[0].rate, node, f"makes {a.cells} values a frame")
        if node.constants:
            require(node.constants["input"].shape[0] == self.gates * a.cells, node, f"has {self.gates} gates")
            require_sums(node, (("input", inputs[0].bits, "bias"), ("recurrent", a.hidden_bits, None)), 32)
