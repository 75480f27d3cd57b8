"""Narang's ramp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression._masks import SparsityRule
from nnac.compression.base import Method, argument, method
from nnac.units import Moment

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Narang(SparsityRule, Method):
    """Narang's ramp: weights below a threshold become zero; the threshold grows linearly, faster in the second half.

    Source: Narang et al. 2017, arXiv 1704.05119 (background); slopes are chosen so that the target is met.
    """

    target: float = argument("fraction", low=0.0, high=0.999, positional=True, doc="share of weights that become zero")
    from_: Moment = argument("moment", default=Moment(0.0), doc="first pruning event")
    to: Moment = argument("moment", default=Moment(0.5, "training"), doc="moment at which the target is reached")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again in between")
    block: int = argument("integer", default=1, low=1, high=256, doc="neighbouring weights that live or die together")
    along: str = argument("choice", default="inputs", choices=("inputs", "outputs"),
                          doc="neighbours: `inputs` of one output (fewer bytes), `outputs` of one input (a block of "
                          "all lanes is skipped)")
    slope_ratio: float = argument("number", default=1.5, low=1.0, high=4.0, doc="second slope over the first")

    def threshold(self, progress: float) -> float:
        """Share of the final threshold: two straight lines that meet half-way, the second steeper by ``slope_ratio``; 1
        at the end."""
        first = 2 / (1 + self.slope_ratio)
        return progress * first if progress < 0.5 else 0.5 * first + (progress - 0.5) * first * self.slope_ratio

    def choose(self, w: Tensor, mask: Tensor, clock: Any, memory: Tensor, gates: int = 1) -> Tensor:
        """Kill the blocks below the threshold: that share of the present magnitude at which the target would be met."""
        from nnac.compression._pruning import Blocks, magnitudes

        blocks = Blocks(w.shape[0], w.shape[1], self.block, self.along, gates)
        scores = magnitudes(w * mask, blocks)
        progress = clock.progress(self.from_, self._length(clock))
        if progress >= 1:
            return blocks.lowest(scores, mask, self.target)
        ordered = scores.reshape(-1).sort().values
        final = float(ordered[min(len(ordered) - 1, round(self.target * len(ordered)))])
        return blocks.spread(scores >= self.threshold(progress) * final) & mask
