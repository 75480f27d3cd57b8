"""LSTM with layer norm inside the gates, frame after frame."""

from __future__ import annotations

from collections.abc import Mapping

from nnac import isa
from nnac.ir import Node
from nnac.schedule.emit import Emitter
from nnac.schedule.layout import ROOTS
from nnac.schedule.ops import Made
from nnac.schedule.ops._recurrent import Group, key_of
from nnac.schedule.ops._roots import WithRoots
from nnac.schedule.ops.layer_norm import parameters
from nnac.schedule.ops.lstm_coupled import CellEmission


class NormedLstmEmission(WithRoots, CellEmission):
    """MVM and RQ for all gates; LN in place for each of them; LSTM."""

    in_groups = False                                  # a norm looks at all cells

    def offset(self, node: Node, units: int, kernel: str) -> int:
        return 0

    def cell_parameters(self, node: Node, made: Made) -> Mapping[str, bytes]:
        c, cells = node.constants, node.attributes["cells"]
        norms = {f"norm.{k}": parameters(c["gate_gain"][k * cells:(k + 1) * cells],
                                         c["gate_bias"][k * cells:(k + 1) * cells],
                                         epsilon=c["gate_epsilon"], root_width=c["gate_root_width"],
                                         multiplier=c["gate_multiplier"][k], shift=c["gate_shift"][k], bits=16,
                                         zero_point=0) for k in range(4)}
        return {**super().cell_parameters(node, made), **norms}

    def cells(self, node: Node, e: Emitter, group: Group, pre: int, hypothesis: int, dst: int) -> None:
        for k in range(4):
            at = pre + 2 * k * group.units
            e.put(isa.LN(src=at, dst=at, params=e.parameters(key_of(node, f"norm.{k}")), roots=e.parameters(ROOTS),
                         n=group.units, a16=1, out16=1, rms=0), "normalise")
        super().cells(node, e, group, pre, hypothesis, dst)
