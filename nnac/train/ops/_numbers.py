"""Exact integers with a gradient: the integers of `nnac.arith` going forward, the real equations going backward.

Every integer is put into the real equations where it arises (`Number.put`): straight-through going backward, masked
where something saturated.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Integers (int64) and the real numbers they stand for: ``real = unit * integers``, with a gradient history.

    The third carrier of `nnac.arith`: sums, products, `round_shift`, `saturate` and `lookup` of Numbers are Numbers, so
    the very functions that define a cell give its integers and its gradient.  Rounding leaves the real numbers alone;
    saturation and look-ups put the integers in their place.

    unit    real value of one: a float, or a tensor where a multiplier was one
    before  after saturation, the real numbers before it         inside  where nothing was cut
    """

    integers: Tensor
    real: Tensor
    unit: Any = 1.0
    before: Tensor | None = None
    inside: Tensor | None = None

    @classmethod
    def put(cls, real: Tensor, integers: Tensor, unit: Any, inside: Tensor | None = None) -> Number:
        """``integers`` in the place of ``real``, whose gradient passes where ``inside``."""
        return cls(integers, Put.apply(real, integers * unit, inside), unit, real, inside)

    @classmethod
    def joined(cls, parts: Sequence[Number]) -> Number:
        """Side by side along the last axis; of one unit."""
        integers, real = torch.cat([p.integers for p in parts], -1), torch.cat([p.real for p in parts], -1)
        return cls(integers, real, parts[0].unit)

    @property
    def shape(self) -> torch.Size:
        return self.integers.shape

    def __getitem__(self, at: Any) -> Number:
        return Number(self.integers[at], self.real[at], self.unit)

    def __add__(self, other: Number | int) -> Number:
        if isinstance(other, Number):
            return Number(self.integers + other.integers, self.real + other.real, self.unit)
        return Number(self.integers + other, self.real + other * self.unit, self.unit)

    def __rsub__(self, other: int) -> Number:
        return Number(other - self.integers, other * self.unit - self.real, self.unit)

    def __mul__(self, other: Number | Tensor) -> Number:
        """A product; with a multiplier, the same real numbers in smaller units."""
        if isinstance(other, Number):
            return Number(self.integers * other.integers, self.real * other.real, self.unit * other.unit)
        return Number(self.integers * other, self.real, self.unit / other)

    def round_shift(self, n: Any) -> Number:
        """See `arith.round_shift`: the same real numbers in larger units."""
        return Number(arith.round_shift(self.integers, n), self.real, self.unit * 2.0**n)

    def clip(self, low: int, high: int) -> Number:
        """Saturation."""
        y = self.integers.clip(low, high)
        return Number.put(self.real, y, self.unit, y == self.integers)

    def lookup(self, entries: Tensor, symmetry: str) -> Number:
        """See `arith.lookup`: a sigmoid (complement) or a tanh (odd), in Q0.15."""
        real = torch.sigmoid(self.real) if symmetry == "complement" else torch.tanh(self.real)
        return Number.put(real, arith.lookup(entries, symmetry, self.integers), UNIT)
