"""The GRU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.train.format import Format
from nnac.train.ops._numbers import PRE_UNIT, UNIT, Number, saturated
from nnac.train.ops._recurrent import Recurrent


class Gru(Recurrent):
    """torch.nn.GRU's equations; see `arith.gru_cell`."""

    gates = 3
    recurrent_bias = True
    unit = UNIT

    def after(self, out: Format) -> dict[str, Any]:
        return bind.blend(out.scale) | dict(sigmoid=arith.sigmoid_table().entries, tanh=arith.tanh_table().entries)

    def step(
        self, from_input: Number, from_hidden: Number, memory: Number, c: dict[str, Tensor], out: Format
    ) -> tuple[Number, Number]:
        (xr, xz, xn), (hr, hz, hn) = from_input.blocks(3), from_hidden.blocks(3)
        r = self.table(saturated(xr.real + hr.real, xr.integers + hr.integers, PRE_UNIT), "sigmoid", c)
        z = self.table(saturated(xz.real + hz.real, xz.integers + hz.integers, PRE_UNIT), "sigmoid", c)
        reset = arith.round_shift(r.integers * hn.integers, arith.UNIT_FRACTION)
        n = self.table(saturated(xn.real + r.real * hn.real, xn.integers + reset, PRE_UNIT), "tanh", c)
        blend = arith.round_shift(
            z.integers * memory.integers + ((1 << arith.UNIT_FRACTION) - z.integers) * n.integers, arith.UNIT_FRACTION
        )
        memory = saturated(z.real * memory.real + (1 - z.real) * n.real, blend, UNIT)
        return Number(
            arith.round_shift(memory.integers * c["hidden_multiplier"], c["hidden_shift"]), memory.real
        ), memory

    def real_step(self, from_input: Tensor, from_hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_hidden.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        memory = z * memory + (1 - z) * n
        return memory, memory
