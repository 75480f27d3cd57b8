"""Exact integers with a gradient: the integers of `nnac.arith` going forward, the real equations going backward.

Every integer is put into the real equations where it arises (`Number.put`): straight-through going backward, masked
where something saturated.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith
from nnac.train import integers as exact

PRE_UNIT = 2.0**-arith.PRE_FRACTION
UNIT = 2.0**-arith.UNIT_FRACTION


class Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, value: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(inside)
        return value.to(real.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return exact.masked(g, ctx.saved_tensors[0]), None, None


@frozen(eq=False)
class Number:
    """Integers (int64) and the real numbers they stand for: ``real = unit * integers``, with a gradient history."""

    integers: Tensor
    real: Tensor

    @classmethod
    def put(cls, real: Tensor, integers: Tensor, unit: float, inside: Tensor | None = None) -> Number:
        """``integers`` in the place of ``real``, whose gradient passes where ``inside``."""
        return cls(integers, Put.apply(real, integers * unit, inside))

    def __getitem__(self, at: Any) -> Number:
        return Number(self.integers[at], self.real[at])

    def blocks(self, count: int) -> list[Number]:
        """The last axis in equal parts."""
        return [Number(i, r) for i, r in zip(self.integers.chunk(count, -1), self.real.chunk(count, -1), strict=True)]


def saturated(real: Tensor, free: Tensor, unit: float, bits: int = 16) -> Number:
    """Saturation of the integers ``free``."""
    y = arith.saturate(free, bits)
    return Number.put(real, y, unit, y == free)
