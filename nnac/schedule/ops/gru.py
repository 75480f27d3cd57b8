"""GRU of one direction, frame after frame."""

from __future__ import annotations

from collections.abc import Mapping

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node
from nnac.ops.gru import GruAttributes
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._recurrent import Group, SeparateEmission, even, key_of
from nnac.vectors import element_bytes


class GruEmission(SeparateEmission):
    """MVM and RQ for both products, GRU for the cells: those of the hidden state lie behind those of the input."""

    joined = False

    def group_bytes(self, node: Node, units: int) -> int:
        return 2 * even(3 * units)

    def offset(self, node: Node, units: int, kernel: str) -> int:
        return 0 if kernel == "input" else even(3 * units)

    def cell_parameters(self, node: Node, made: Made) -> Mapping[str, bytes]:
        c = node.constants
        return dict(cell=isa.GRU.block.pack(multiplier=c["hidden_multiplier"], shift=c["hidden_shift"],
                                            bits=record(node.attributes, GruAttributes).hidden_bits,
                                            **{t: made.slot(c[t]) for t in self.tables}))

    def cells(self, node: Node, e: Emitter, group: Group, pre: int, hypothesis: int, dst: int) -> None:
        wide = element_bytes(record(node.attributes, GruAttributes).hidden_bits) == 2
        memory = self.memory(node, e, group, hypothesis)
        e.put(isa.GRU(pre=pre, state=memory, dst=dst, params=e.parameters(key_of(node, "cell")), units=group.units,
                      out16=int(wide)), "cells")
