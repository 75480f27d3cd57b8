"""Uniform grid whose clip minimises the mean squared rounding error, searched over fractions of the largest
magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression._weights import Fitted
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights", "activations", "hidden")
@frozen
class Mse(Fitted, ActivationRule, Method):
    """Uniform grid whose clip minimises the mean squared rounding error, searched over fractions of the largest
    magnitude.

    Source: background (calibration by MSE); the search grid is our choice.
    """

    candidates: int = argument("integer", default=100, low=8, high=4096, doc="clips tried, equally spaced")

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        from nnac.compression._statistics import least_squares_clip

        return least_squares_clip(x, bits, self.candidates)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return seen.least_square_error(bits, self.candidates)
