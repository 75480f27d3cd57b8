"""MRACos, multi-regional absolute cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment, Span

if TYPE_CHECKING:
    from torch import Tensor


@method("regularise")
@frozen
class Mracos(Method):
    """MRACos, multi-regional absolute cosine: pulls each weight to its nearest centroid, ``|sin(pi (w - c_k)/(c_k+1 -
    c_k))|``.

    Source: S8BQAT, arXiv 2206.15408 (seen: the name, its place in the loss, pull to the nearest centroid).
    Reconstruction: the formula (docs/methods.md §3), the ramp, the normalisation by the region's width.
    """

    strength: float = argument("number", low=0.0, high=1e6, doc="factor of the term in the loss")
    ramp: Span = argument("span", default=Span(Moment(0.0), Moment(0.0)),
                          doc="the strength grows linearly from zero between these moments")
    width_normalised: bool = argument("boolean", default=True,
                                      doc="times the region's width: dense centroids do not dominate")

    def strength_at(self, clock: Any) -> float:
        """The factor now."""
        return self.strength * clock.ramp(self.ramp)

    def penalty(self, w: Tensor, grid: Any, live: Tensor | None) -> Tensor:
        """Mean of ``r`` over the live weights.  w [G, n]."""
        from nnac.compression._regularise import Mean, mracos

        return Mean.apply(w / grid.unit, live, lambda u: mracos(u, grid.codes, self.width_normalised))
