"""The GRU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.train.format import Format
from nnac.train.ops._numbers import UNIT, Number
from nnac.train.ops._recurrent import Recurrent


class Gru(Recurrent):
    """torch.nn.GRU's equations; see `arith.gru_cell`."""

    gates = 3
    recurrent_bias = True
    unit = UNIT

    def after(self, out: Format) -> dict[str, Any]:
        return bind.blend(out.scale) | dict(sigmoid=arith.sigmoid_table().entries, tanh=arith.tanh_table().entries)

    def step(
        self, from_input: Number, from_hidden: Number, memory: Number, c: dict[str, Tensor], bits: int
    ) -> tuple[Number, Number]:
        memory = arith.gru_cell(from_input, from_hidden, memory, c["sigmoid"], c["tanh"])
        return arith.requantise(memory, c["hidden_multiplier"], c["hidden_shift"], 0, bits), memory

    def real_step(self, from_input: Tensor, from_hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_hidden.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        memory = z * memory + (1 - z) * n
        return memory, memory
