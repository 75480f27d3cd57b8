"""Two-sided PACT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("activations", "hidden")
@frozen
class PactTwoSided(ActivationRule, Method):
    """Two-sided PACT: lower and upper clip learned independently.

    Source: FMS-MO (docs/methods.md §6): initial clips from the 0.1st and 99.9th percentile.
    """

    sides: ClassVar[Literal["both", "upper", "two"]] = "two"
    learns: ClassVar[bool] = True
    from_data: ClassVar[bool] = False

    plus: bool = argument("boolean", default=True, doc="add the rounding term to the clips' gradients (PACT+)")
    low: float = argument("number", default=0.1, low=0.0, high=50.0, doc="percentile of the first lower clip")
    high: float = argument("number", default=99.9, low=50.0, high=100.0, doc="percentile of the first upper clip")

    def quantised(self, x: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
        """``x`` on the grid of 2^bits levels from ``low`` to ``high``, both learned."""
        from nnac.compression._activations import clipped

        return clipped(x, low, high, (1 << bits) - 1, self.plus)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return max(seen.value_at(self.high), 1e-6)

    def low_clip_of(self, seen: Magnitudes, bits: int) -> float:
        return min(seen.value_at(self.low), 0.0)
