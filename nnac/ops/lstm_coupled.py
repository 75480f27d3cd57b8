"""LSTM with coupled input and forget gates (CIFG).  One direction; `sum16` arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.formats import unit_scale
from nnac.ops import Array
from nnac.ops._recurrent import SeparateOperator, cell_states, require_fraction

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

    constants  as of `SeparateOperator`, and hidden_multiplier, hidden_shift   sigmoid, tanh, tanh_cell int16 [513]
    attributes cells, fraction (of the cell), hidden_bits
    """

    attributes_type = CoupledLstmAttributes
    gates = 3
    constants: ClassVar[tuple[str, ...]] = ("hidden_multiplier", "hidden_shift", "sigmoid", "tanh", "tanh_cell")

    def attributes(self, layer: LayerShape, p: Precision) -> CoupledLstmAttributes:
        return CoupledLstmAttributes(cells=layer.attributes["cells"], fraction=p.cell_fraction, hidden_bits=p.hidden)

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        # gate after gate begins at a multiple of 4 bytes
        return attributes["cells"] % 2 == 0 and super().fits(attributes, width, lanes)

    def update(self, m: MachineConfig, attributes: Mapping[str, Any], cells: int) -> int:
        from nnac.isa import beats

        return 2 * m.vx_fill + beats.elementwise(m, cells) + beats.lstm(m, cells)

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        return cell_states(layer.path, layer.attributes["cells"], layer.attributes["cells"], p,
                           unit_scale(p.hidden, p.hidden_clip))

    def step(self, from_input: Array, from_hidden: Array, memory: Array, c: Mapping[str, Array],
             node: Node) -> tuple[Array, Array]:
        from nnac import arith

        return self.cell(arith.saturate(from_input + from_hidden, 16), memory, c,
                         record(node.attributes, CoupledLstmAttributes))

    def cell(self, pre: Array, cell: Array, c: Mapping[str, Array], a: CoupledLstmAttributes) -> tuple[Array, Array]:
        """(hidden, cell) after one frame."""
        from nnac import arith

        return arith.coupled_cell(pre, cell, c["sigmoid"], c["tanh"], c["tanh_cell"], a.fraction,
                                  c["hidden_multiplier"], c["hidden_shift"],
                                  a.hidden_bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        super().verify_more(node, graph, inputs, output)
        require_fraction(node, record(node.attributes, CoupledLstmAttributes).fraction)
