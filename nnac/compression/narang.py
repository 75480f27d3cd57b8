"""Narang's ramp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression._masks import Event, Gradual
from nnac.compression.base import argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Narang(Gradual):
    """Narang's ramp: weights below a threshold become zero; the threshold grows linearly, faster in the second half.

    Source: Narang et al. 2017, arXiv 1704.05119 (background); slopes are chosen so that the target is met.
    """

    slope_ratio: float = argument("number", default=1.5, low=1.0, high=4.0, doc="second slope over the first")

    def threshold(self, progress: float) -> float:
        """Share of the final threshold: two straight lines that meet half-way, the second steeper by ``slope_ratio``; 1
        at the end."""
        first = 2 / (1 + self.slope_ratio)
        return progress * first if progress < 0.5 else 0.5 * first + (progress - 0.5) * first * self.slope_ratio

    def choose(self, w: Tensor, mask: Tensor, event: Event) -> Tensor:
        """Kill the blocks below the threshold: that share of the present magnitude at which the target would be met."""
        from nnac.compression._pruning import magnitudes

        blocks = self.blocks(w, event.gates)
        scores = magnitudes(w * mask, blocks)
        progress = event.clock.progress(self.from_, self._length(event.clock))
        if progress >= 1:
            return blocks.lowest(scores, mask, self.target)
        ordered = scores.reshape(-1).sort().values
        final = float(ordered[min(len(ordered) - 1, round(self.target * len(ordered)))])
        return blocks.spread(scores >= self.threshold(progress) * final) & mask
