"""PACT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("activations")
@frozen
class Pact(ActivationRule, Method):
    """PACT: one-sided learned clip, for outputs that are never negative.

    Source: Choi et al. 2018, arXiv 1805.06085; formulas and the + gradient as in docs/methods.md §6.
    """

    sides: ClassVar[Literal["both", "upper", "two"]] = "upper"
    learns: ClassVar[bool] = True
    from_data: ClassVar[bool] = False

    plus: bool = argument("boolean", default=True, doc="add the rounding term to the clip's gradient (PACT+)")
    clip: float | None = argument("number", default=None, low=1e-6, high=1e6, optional=True,
                                  doc="first clip; none: the 99.9th percentile")

    def quantised(self, x: Tensor, clip: Tensor, bits: int) -> Tensor:
        """``round(clip(x, 0, a) n / a) a / n`` with n = 2^bits - 1."""
        from nnac.compression._activations import clipped

        return clipped(x, clip.new_zeros(()), clip, (1 << bits) - 1, self.plus)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return seen.percentile(99.9) if self.clip is None else float(self.clip)
