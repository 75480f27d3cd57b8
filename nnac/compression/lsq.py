"""Learned step size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression._weights import State, WeightRule
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights", "activations", "hidden")
@frozen
class Lsq(WeightRule, ActivationRule, Method):
    """Learned step size: the scale is a parameter, trained with the rounding error's own gradient.

    Source: background (LSQ, Esser et al. 2020, arXiv 1902.08153).
    """

    gradient_scale: bool = argument("boolean", default=True,
                                    doc="divide the step's gradient by sqrt(weights * levels), as the paper does")

    learned: ClassVar[tuple[str, ...]] = ("step",)
    steady: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    from_data: ClassVar[bool] = False

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        """The step of least squared error (our choice; the paper's ``2 E|w| / sqrt(largest level)`` is six times worse
        at 8 bits)."""
        from nnac.compression._grids import SMALLEST_UNIT, largest, over
        from nnac.compression._statistics import least_squares_clip

        return {"step": over(least_squares_clip(x, bits), largest(bits)).clamp_min(SMALLEST_UNIT)}

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        from nnac.compression._grids import Uniform, largest

        return Uniform.of_clip(state["step"].detach().abs() * largest(bits), bits)

    def codes(self, state: State, x: Tensor, grid: Any, bits: int, clock: Any | None) -> Tensor:
        from nnac.compression._grids import exact

        x0, factor = x.detach(), (x.shape[1] * grid.top) ** -0.5 if self.gradient_scale else 1.0
        return exact(x, grid.nearest(x0), grid.unit, grid.inside(x0), size=state["step"], factor=factor)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        """The clip that the step of least squared error implies; it is carried in the step's place (our choice)."""
        return seen.least_square_error(bits, 128)

    def factor(self, elements: int, levels: int) -> float:
        return float((elements * levels) ** -0.5) if self.gradient_scale else 1.0
