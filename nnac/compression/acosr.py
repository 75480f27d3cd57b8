"""ACosR, absolute cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression._pulls import Pull
from nnac.compression.base import method

if TYPE_CHECKING:
    from torch import Tensor


@method("regularise")
@frozen
class Acosr(Pull):
    """ACosR, absolute cosine: MRACos for a uniform grid, ``|sin(pi w / step)|``.

    Source: Nguyen et al., Interspeech 2020 (seen: abstract).  Reconstruction: the formula for levels that include zero
    (docs/methods.md §3).
    """

    def penalty(self, w: Tensor, grid: Any, live: Tensor | None) -> Tensor:
        """Mean of ``r`` over the live weights.  w [G, n].  ValueError for a codebook: its regions differ in width; that
        is MRACos."""
        from nnac.compression._grids import Uniform
        from nnac.compression._regularise import Mean, acosr

        if not isinstance(grid, Uniform):
            raise ValueError("`acosr` needs a uniform grid; for a codebook use `mracos`")
        return Mean.apply(w / grid.step, live, lambda u: acosr(u, grid.top, grid.odd))
