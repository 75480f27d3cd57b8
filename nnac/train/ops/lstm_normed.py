"""The LSTM with layer norm over each gate's pre-activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnac import arith, bind
from nnac.ir import Node, QGraph
from nnac.train.format import Format
from nnac.train.ops import numbers
from nnac.train.ops._numbers import PRE_UNIT, Number
from nnac.train.ops.lstm_coupled import CoupledLstm


class NormedLstm(CoupledLstm):
    """LSTM with layer norm over each gate's pre-activations; see `nnac.ops.lstm_normed`.

    Parameters ``gate_norm.weight``, ``gate_norm.bias`` [4, H].
    """

    gates = 4
    epsilon = 1e-5

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.gate_norm: Any = nn.Module()
        self.gate_norm.weight = nn.Parameter(torch.ones(4, self.cells))
        self.gate_norm.bias = nn.Parameter(torch.zeros(4, self.cells))

    def after(self, out: Format) -> dict[str, Any]:
        return super().after(out) | bind.gate_norm(
            numbers(self.gate_norm.weight), numbers(self.gate_norm.bias), self.epsilon
        )

    def _normed(self, gate: Tensor, index: int) -> Tensor:
        return nn.functional.layer_norm(
            gate, (self.cells,), self.gate_norm.weight[index], self.gate_norm.bias[index], self.epsilon
        )

    def cell(self, pre: Number, memory: Number, c: dict[str, Tensor], bits: int) -> tuple[Number, Number]:
        gates = []
        for k in range(4):
            at = slice(k * self.cells, (k + 1) * self.cells)
            gate = pre[..., at]
            free = arith.layer_norm(
                gate.integers,
                c["gate_gain"][at],
                c["gate_bias"][at],
                c["gate_epsilon"],
                c["gate_root_width"],
                c["rsqrt"],
                c["gate_multiplier"][k],
                c["gate_shift"][k],
                0,
                32,
            )
            gates.append(arith.saturate(Number(free, self._normed(gate.real, k), PRE_UNIT), 16))
        joined = Number.joined(gates)
        return arith.lstm_cell(joined, memory, *self.tables(c), c["hidden_multiplier"], c["hidden_shift"], bits)

    def real_gates(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i, f, g, o = (self._normed(gate, k) for k, gate in enumerate(pre.chunk(4, -1)))
        return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
