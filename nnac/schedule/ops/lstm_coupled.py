"""LSTM with coupled gates, frame after frame: LSTM's own instruction, its input gate made of the forget gate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node
from nnac.ops.lstm_coupled import CoupledLstmAttributes
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._recurrent import Group, SeparateEmission, key_of
from nnac.vectors import align, element_bytes


class CellEmission(SeparateEmission):
    """Base of what ends with LSTM: pre-activations in blocks i, f, g, o."""

    tables = ("sigmoid", "tanh", "tanh_cell")

    def group_bytes(self, node: Node, units: int) -> int:
        return 8 * units

    def cell_parameters(self, node: Node, made: Made) -> Mapping[str, bytes]:
        c, a = node.constants, record(node.attributes, CoupledLstmAttributes)
        return dict(cell=isa.LSTM.block.pack(multiplier=c["hidden_multiplier"], shift=c["hidden_shift"],
                                             bits=a.hidden_bits, fraction=a.fraction,
                                             **{t: made.slot(c[t]) for t in self.tables}))

    def cells(self, node: Node, e: Emitter, group: Group, pre: int, hypothesis: int, dst: int) -> None:
        wide = element_bytes(record(node.attributes, CoupledLstmAttributes).hidden_bits) == 2
        memory = self.memory(node, e, group, hypothesis)
        e.put(isa.LSTM(pre=pre, cell=memory, dst=dst, params=e.parameters(key_of(node, "cell")), units=group.units,
                       out16=int(wide)), "cells")


class CoupledLstmEmission(CellEmission):
    """MVM and RQ for gates f, g, o; MUL by -1 for i, whose sigmoid is what f's lacks to one, exactly; LSTM."""

    def offset(self, node: Node, units: int, kernel: str) -> int:
        return 2 * units

    def cell_parameters(self, node: Node, made: Made) -> Mapping[str, bytes]:
        most = max(g.units for g in self.groups(node, made.lanes))
        return {**super().cell_parameters(node, made), "minus": np.full(align(most), -1, np.int8).tobytes(),
                "negate": isa.MUL.block.pack(multiplier=1, shift=0, bits=16, zero_point=0)}

    def cells(self, node: Node, e: Emitter, group: Group, pre: int, hypothesis: int, dst: int) -> None:
        e.put(isa.MUL(a=pre + 2 * group.units, b=e.parameters(key_of(node, "minus")), dst=pre,
                      params=e.parameters(key_of(node, "negate")), n=group.units, a16=1, b16=0, out16=1), "couple")
        super().cells(node, e, group, pre, hypothesis, dst)
