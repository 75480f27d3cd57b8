"""ACosR, absolute cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment, Span

if TYPE_CHECKING:
    from torch import Tensor


@method("regularise")
@frozen
class Acosr(Method):
    """ACosR, absolute cosine: MRACos for a uniform grid, ``|sin(pi w / step)|``.

    Source: Nguyen et al., Interspeech 2020 (seen: abstract).  Reconstruction: the formula for levels that include zero
    (docs/methods.md §3).
    """

    strength: float = argument("number", low=0.0, high=1e6, doc="factor of the term in the loss")
    ramp: Span = argument("span", default=Span(Moment(0.0), Moment(0.0)),
                          doc="the strength grows linearly from zero between these moments")

    def strength_at(self, clock: Any) -> float:
        """The factor now."""
        return self.strength * clock.ramp(self.ramp)

    def penalty(self, w: Tensor, grid: Any, live: Tensor | None) -> Tensor:
        """Mean of ``r`` over the live weights.  w [G, n].  ValueError for a codebook: its regions differ in width; that
        is MRACos."""
        from nnac.compression._grids import Uniform
        from nnac.compression._regularise import Mean, acosr

        if not isinstance(grid, Uniform):
            raise ValueError("`acosr` needs a uniform grid; for a codebook use `mracos`")
        return Mean.apply(w / grid.step, live, lambda u: acosr(u, grid.top, grid.odd))
