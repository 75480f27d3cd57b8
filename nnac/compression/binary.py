"""Weights in {-a, a}."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from nnac.compression._weights import WeightRule
from nnac.compression.base import Method, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights")
@frozen
class Binary(WeightRule, Method):
    """Weights in {-a, a}: the sign, times the mean magnitude.

    Source: background (XNOR-Net's weights, arXiv 1603.05279).  GQ at 1 bit learns its two centroids instead: ``gq(1)``.
    """

    fixed_bits: ClassVar[int | None] = 1

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        from nnac.compression._weights import mean_magnitude

        return mean_magnitude(x, live)
