"""Weights in {-a, 0, a}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._weights import State, WeightRule
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights")
@frozen
class Ternary(WeightRule, Method):
    """Weights in {-a, 0, a}: below a threshold they are zero, a is the mean of the others.

    Source: background (ternary weight networks, Li & Liu 2016, arXiv 1605.04711: threshold 0.7 E|w|).
    """

    fixed_bits: ClassVar[int | None] = 2
    own_bounds: ClassVar[bool] = True

    threshold: float = argument("number", default=0.7, low=0.0, high=4.0, positional=True,
                                doc="of zero, in units of mean |w|")

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        import torch

        from nnac.compression._grids import SMALLEST_UNIT, Codebook
        from nnac.compression._weights import mean_magnitude

        threshold = self.threshold * mean_magnitude(x, live)
        kept = x.abs() > threshold[:, None]
        size = ((x.abs() * kept).sum(1) / kept.sum(1).clamp_min(1)).clamp_min(SMALLEST_UNIT)[:, None]
        bound = threshold[:, None] / size
        # searchsorted counts a weight on a bound to the upper side; a hair above keeps |w| = threshold at zero on both
        # sides
        return Codebook(size, torch.tensor([[-1.0, 0.0, 1.0]], device=x.device),
                        torch.cat([-bound, torch.nextafter(bound, bound + 1)], 1))
