"""The LSTM with i = 1 - f."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.train.format import Format
from nnac.train.ops._cell import Celled
from nnac.train.ops._numbers import Number
from nnac.train.ops._recurrent import Recurrent


class CoupledLstm(Celled, Recurrent):
    """LSTM with i = 1 - f; see `arith.coupled_cell`."""

    gates = 3

    @property
    def unit(self) -> float:
        return 2.0**-self.fraction

    def after(self, out: Format) -> dict[str, Any]:
        return bind.hidden(out.scale) | bind.lstm_tables(self.fraction)

    def step(
        self, from_input: Number, from_hidden: Number, memory: Number, c: dict[str, Tensor], bits: int
    ) -> tuple[Number, Number]:
        return self.cell(arith.saturate(from_input + from_hidden, 16), memory, c, bits)

    def cell(self, pre: Number, memory: Number, c: dict[str, Tensor], bits: int) -> tuple[Number, Number]:
        """What follows the sum of the products."""
        return arith.coupled_cell(pre, memory, *self.tables(c), c["hidden_multiplier"], c["hidden_shift"], bits)

    def tables(self, c: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, int]:
        """What a cell of `nnac.arith` is told: its tables, and the fraction of its state."""
        return c["sigmoid"], c["tanh"], c["tanh_cell"], self.fraction

    def real_gates(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f, g, o = pre.chunk(3, -1)
        f = torch.sigmoid(f)
        return 1 - f, f, torch.tanh(g), torch.sigmoid(o)

    def real_step(self, from_input: Tensor, from_hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.real_gates(from_input + from_hidden)
        memory = f * memory + i * g
        return o * torch.tanh(memory), memory
