"""LSTM with layer norm inside the gates.  One direction; `sum16` arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnac.attributes import record
from nnac.limits import MOST_UNITS
from nnac.ops import Array, require
from nnac.ops._carriers import join
from nnac.ops.lstm_coupled import CoupledLstm, CoupledLstmAttributes

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig


class NormedLstm(CoupledLstm):
    """LSTM whose pre-activations are layer-normed gate by gate before the tables: `arith.layer_norm` from Q3.12 to
    Q3.12.

    constants  as of `CoupledLstm` with four gates i, f, g, o, and gate_gain int16 [4H], gate_bias int64 [4H],
               gate_multiplier, gate_shift [4], gate_epsilon, gate_root_width (scalars), rsqrt [385]
    Source: Ba et al. 2016 for the placement (TFLite's layer-norm LSTM has it there too); our integers.
    """

    gates = 4
    constants = (*CoupledLstm.constants, "gate_gain", "gate_bias", "gate_multiplier", "gate_shift", "gate_epsilon",
                 "gate_root_width", "rsqrt")

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return super().fits(attributes, width, lanes) and attributes["cells"] <= MOST_UNITS

    def pieces(self, cells: int, lanes: int) -> list[int]:
        return [cells]

    def update(self, m: MachineConfig, attributes: Mapping[str, Any], cells: int) -> int:
        from nnac.isa import beats

        return 5 * m.vx_fill + 4 * beats.normalise(m, cells) + beats.lstm(m, cells)

    def cell(self, pre: Array, cell: Array, c: Mapping[str, Array], a: CoupledLstmAttributes) -> tuple[Array, Array]:
        from nnac import arith

        h = a.cells
        normed = [arith.layer_norm(pre[..., g * h:(g + 1) * h], c["gate_gain"][g * h:(g + 1) * h],
                                   c["gate_bias"][g * h:(g + 1) * h],
                                   c["gate_epsilon"], c["gate_root_width"], c["rsqrt"], c["gate_multiplier"][g],
                                   c["gate_shift"][g], 0, 16)
                  for g in range(4)]
        return arith.lstm_cell(join(*normed), cell, c["sigmoid"], c["tanh"], c["tanh_cell"], a.fraction,
                               c["hidden_multiplier"],
                               c["hidden_shift"], a.hidden_bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        super().verify_more(node, graph, inputs, output)
        cells = record(node.attributes, CoupledLstmAttributes).cells
        require(cells**3 << 32 < 1 << 62, node,
                f"{cells} values of 16 bits overflow the sum of squares (at most 1023 cells)")
