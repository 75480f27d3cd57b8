"""Symmetric PACT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("activations", "hidden")
@frozen
class PactSymmetric(ActivationRule, Method):
    """Symmetric PACT: learned clip at both ends, for hidden states.

    Source: FMS-MO's symmetric PACT+ (docs/methods.md §6), 15 levels at 4 bits when zero is aligned.
    """

    learns: ClassVar[bool] = True
    from_data: ClassVar[bool] = False

    plus: bool = argument("boolean", default=True, doc="add the rounding term to the clip's gradient (PACT+)")
    zero_aligned: bool = argument("boolean", default=True, doc="zero is an exact level: 15 levels at 4 bits")
    clip: float | None = argument("number", default=1.0, low=1e-6, high=1e6, optional=True,
                                  doc="first clip; none: the 99.9th percentile")

    def levels(self, bits: int) -> int:
        """Steps between the clips: 2^bits - 2 when zero is a level, 2^bits - 1 otherwise."""
        return (1 << bits) - (2 if self.zero_aligned else 1)

    def quantised(self, x: Tensor, clip: Tensor, bits: int) -> Tensor:
        """``x`` on the grid from -a to a; the clip's gradient is ``2 (round(z) - z) / levels`` inside, +-1 outside."""
        from nnac.compression._activations import clipped

        return clipped(x, -clip, clip, self.levels(bits), self.plus)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return seen.percentile(99.9) if self.clip is None else float(self.clip)
