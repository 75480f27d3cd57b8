"""SAWB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._weights import State, WeightRule
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor

# (bits, zero aligned) -> c1, c2.  Source: FMS-MO (docs/methods.md §6), seen; a width published for one alignment only
# serves both.
COEFFICIENTS = {
    (2, False): (3.12, -2.064), (2, True): (2.6, -1.71), (3, False): (7.509, -6.892),
    (4, False): (12.68, -12.80), (4, True): (12.035, -12.03),
    (5, False): (17.74, -18.64), (7, True): (28.24, -30.81), (8, False): (31.76, -35.04),
}


def coefficients(bits: int, zero_aligned: bool) -> tuple[float, float]:
    """The published pair for a width.  ValueError for a width without one."""
    pair = COEFFICIENTS.get((bits, zero_aligned)) or COEFFICIENTS.get((bits, not zero_aligned))
    if pair is None:
        raise ValueError(f"no SAWB coefficients are published for {bits} bits")
    return pair


@method("weights")
@frozen
class Sawb(WeightRule, Method):
    """SAWB: the clip from two statistics, ``c1 sqrt(E[w^2]) + c2 E|w|``, no search.

    Source: IBM; coefficients seen in FMS-MO (docs/methods.md §6), per width.  Widths without a published pair are
    refused.
    """

    widths: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 7, 8)
    granularity: ClassVar[str] = "gate"

    plus: bool = argument("boolean", default=True,
                          doc="pass the whole gradient (SAWB+); false zeroes it outside the clip")
    zero_aligned: bool = argument("boolean", default=True,
                                  doc="zero is an exact level: 15 levels at 4 bits; false has 16 and no zero")
    average: float = argument("number", default=0.1, low=0.0, high=1.0,
                              doc="factor of the clip's moving average used at inference")

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        """``c1 sqrt(E[w^2]) + c2 E|w|``; max|w| where that is not positive."""
        import torch

        from nnac.compression._weights import mean_magnitude, mean_square

        c1, c2 = coefficients(bits, self.zero_aligned)
        clip = c1 * mean_square(x, live).sqrt() + c2 * mean_magnitude(x, live)
        return torch.where(clip > 0, clip, x.abs().amax(1))

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        return {"average": self.reach(x, live, bits)}

    def renew(self, state: State, x: Tensor, live: Tensor | None, bits: int, clock: Any) -> State:
        return {"average": state["average"] + self.average * (self.reach(x, live, bits) - state["average"])}

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        from nnac.compression._grids import Uniform

        return Uniform.of_clip(self.reach(x, live, bits) if training else state["average"], bits,
                               odd=not self.zero_aligned)

    def codes(self, state: State, x: Tensor, grid: Any, bits: int, clock: Any | None) -> Tensor:
        from nnac.compression._grids import exact

        x0 = x.detach()
        return exact(x, grid.nearest(x0), grid.unit, None if self.plus else grid.inside(x0))
