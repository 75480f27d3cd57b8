"""The LSTM with i = 1 - f."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.attributes import record
from nnac.ops.lstm_coupled import CoupledLstmAttributes
from nnac.train.format import Format
from nnac.train.ops._numbers import PRE_UNIT, UNIT, Number, saturated
from nnac.train.ops._recurrent import Recurrent


class CoupledLstm(Recurrent):
    """LSTM with i = 1 - f; see `arith.coupled_cell`."""

    gates = 3

    @property
    def unit(self) -> float:
        return 2.0 ** -record(self.node.attributes, CoupledLstmAttributes).fraction

    def after(self, out: Format) -> dict[str, Any]:
        return bind.hidden(out.scale) | bind.lstm_tables(record(self.node.attributes, CoupledLstmAttributes).fraction)

    def pre(self, from_input: Number, from_hidden: Number, c: dict[str, Tensor]) -> Number:
        return saturated(from_input.real + from_hidden.real, from_input.integers + from_hidden.integers, PRE_UNIT)

    def gates_of(self, pre: Number, c: dict[str, Tensor]) -> tuple[Number, Number, Number, Number]:
        """i, f, g, o."""
        f, g, o = pre.blocks(3)
        f = self.table(f, "sigmoid", c)
        return (
            Number((1 << arith.UNIT_FRACTION) - f.integers, 1 - f.real),
            f,
            self.table(g, "tanh", c),
            self.table(o, "sigmoid", c),
        )

    def step(
        self, from_input: Number, from_hidden: Number, memory: Number, c: dict[str, Tensor], out: Format
    ) -> tuple[Number, Number]:
        i, f, g, o = self.gates_of(self.pre(from_input, from_hidden, c), c)
        new = arith.round_shift(f.integers * memory.integers, arith.UNIT_FRACTION) + arith.round_shift(
            i.integers * g.integers, 2 * arith.UNIT_FRACTION - record(self.node.attributes, CoupledLstmAttributes).fraction
        )
        cell = saturated(f.real * memory.real + i.real * g.real, new, self.unit)
        t = Number.put(torch.tanh(cell.real), arith.lookup(c["tanh_cell"], "odd", cell.integers), UNIT)
        return Number(
            arith.round_shift(o.integers * t.integers * c["hidden_multiplier"], c["hidden_shift"]), o.real * t.real
        ), cell

    def real_gates(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f, g, o = pre.chunk(3, -1)
        f = torch.sigmoid(f)
        return 1 - f, f, torch.tanh(g), torch.sigmoid(o)

    def real_step(self, from_input: Tensor, from_hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.real_gates(from_input + from_hidden)
        memory = f * memory + i * g
        return o * torch.tanh(memory), memory
