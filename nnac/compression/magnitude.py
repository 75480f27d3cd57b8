"""Gradual magnitude pruning."""

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
class Magnitude(SparsityRule, Method):
    """Gradual magnitude pruning: the smallest |w| become zero, the share growing by a cubic law.

    Source: Zhu & Gupta 2017, arXiv 1710.01878: ``s_t = s_f + (s_i - s_f)(1 - (t - t0)/(n dt))^3``.
    """

    target: float = argument("fraction", low=0.0, high=0.999, positional=True, doc="share of weights that become zero")
    initial: float = argument("fraction", default=0.0, low=0.0, high=0.999, doc="share at the first event")
    from_: Moment = argument("moment", default=Moment(0.0), doc="first pruning event")
    to: Moment = argument("moment", default=Moment(0.5, "training"), doc="moment at which the target is reached")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again in between")
    block: int = argument("integer", default=1, low=1, high=256, doc="neighbouring weights that live or die together")
    along: str = argument("choice", default="inputs", choices=("inputs", "outputs"),
                          doc="neighbours: `inputs` of one output (fewer bytes), `outputs` of one input (a block of "
                          "all lanes is skipped)")

    def share(self, clock: Any) -> float:
        """``s_f + (s_i - s_f)(1 - progress)^3``."""
        progress = clock.progress(self.from_, self._length(clock))
        return self.target + (self.initial - self.target) * (1 - progress) ** 3

    def choose(self, w: Tensor, mask: Tensor, clock: Any, memory: Tensor, gates: int = 1) -> Tensor:
        from nnac.compression._pruning import Blocks, magnitudes

        blocks = Blocks(w.shape[0], w.shape[1], self.block, self.along, gates)
        return blocks.lowest(magnitudes(w * mask, blocks), mask, self.share(clock))
