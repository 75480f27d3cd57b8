"""MRACos, multi-regional absolute cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression._pulls import Pull
from nnac.compression.base import argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("regularise")
@frozen
class Mracos(Pull):
    """MRACos, multi-regional absolute cosine: pulls each weight to its nearest centroid, ``|sin(pi (w - c_k)/(c_k+1 -
    c_k))|``.

    Source: S8BQAT, arXiv 2206.15408 (seen: the name, its place in the loss, pull to the nearest centroid).
    Reconstruction: the formula (docs/methods.md §3), the ramp, the normalisation by the region's width.
    """

    width_normalised: bool = argument("boolean", default=True,
                                      doc="times the region's width: dense centroids do not dominate")

    def penalty(self, w: Tensor, grid: Any, live: Tensor | None) -> Tensor:
        """Mean of ``r`` over the live weights.  w [G, n]."""
        from nnac.compression._regularise import Mean, mracos

        return Mean.apply(w / grid.unit, live, lambda u: mracos(u, grid.codes, self.width_normalised))
