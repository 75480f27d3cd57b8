"""Uniform grid whose clip is a percentile of the magnitudes seen."""

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
class Percentile(Fitted, ActivationRule, Method):
    """Uniform grid whose clip is a percentile of the magnitudes seen: outliers saturate.

    Source: background; FMS-MO initialises activations from percentiles (docs/methods.md §6).
    """

    p: float = argument("number", default=99.99, low=50.0, high=100.0, positional=True,
                        doc="percentile of |x| that becomes the clip")

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        from nnac.compression._statistics import percentile

        return percentile(x, self.p, live)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return seen.percentile(self.p)
