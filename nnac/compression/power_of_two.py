"""Uniform grid whose scale is the smallest power of two that covers the range."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression._weights import Fitted
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights", "activations", "hidden")
@frozen
class PowerOfTwo(Fitted, ActivationRule, Method):
    """Uniform grid whose scale is the smallest power of two that covers the range: requantising becomes a shift.

    Source: background; our choice of ceil(log2).
    """

    p: float = argument("number", default=100.0, low=50.0, high=100.0, positional=True,
                        doc="percentile of |x| that must be covered")

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        import torch

        from nnac.compression._grids import SMALLEST_UNIT, largest, over
        from nnac.compression._statistics import percentile

        step = over(percentile(x, self.p, live), largest(bits)).clamp_min(SMALLEST_UNIT)
        # step = mantissa 2^exponent, mantissa in [1/2, 1): exact, unlike ceil(log2)
        mantissa, exponent = torch.frexp(step)
        exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
        return torch.ldexp(torch.ones_like(step), exponent) * largest(bits)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        largest = (1 << (bits - 1)) - 1
        mantissa, exponent = math.frexp((seen.reach if self.p >= 100.0 else seen.percentile(self.p)) / largest)
        return math.ldexp(float(largest), exponent - (mantissa == 0.5))
