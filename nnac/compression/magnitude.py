"""Gradual magnitude pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression._masks import Event, Gradual
from nnac.compression.base import argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Magnitude(Gradual):
    """Gradual magnitude pruning: the smallest |w| become zero, the share growing by a cubic law.

    Source: Zhu & Gupta 2017, arXiv 1710.01878: ``s_t = s_f + (s_i - s_f)(1 - (t - t0)/(n dt))^3``.
    """

    initial: float = argument("fraction", default=0.0, low=0.0, high=0.999, doc="share at the first event")

    def share(self, clock: Any) -> float:
        """``s_f + (s_i - s_f)(1 - progress)^3``."""
        progress = clock.progress(self.from_, self._length(clock))
        return self.target + (self.initial - self.target) * (1 - progress) ** 3

    def choose(self, w: Tensor, mask: Tensor, event: Event) -> Tensor:
        from nnac.compression._pruning import magnitudes

        blocks = self.blocks(w, event.gates)
        return blocks.lowest(magnitudes(w * mask, blocks), mask, self.share(event.clock))
