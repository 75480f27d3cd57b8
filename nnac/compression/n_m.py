"""N:M sparsity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._masks import Event, SparsityRule
from nnac.compression.base import Method, argument, method
from nnac.units import Moment

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class NOfM(SparsityRule, Method):
    """N:M sparsity: in every run of m weights of a row, n live.

    Source: background (NVIDIA's 2:4).
    """

    n: int = argument("integer", default=2, low=1, high=63, positional=True, doc="weights that live")
    m: int = argument("integer", default=4, low=2, high=64, positional=True, doc="of so many neighbours")
    from_: Moment = argument("moment", default=Moment(0.0), doc="when the mask is first applied")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again")

    def __attrs_post_init__(self) -> None:
        if self.n >= self.m:
            raise ValueError(f"`n` of `n_m` is smaller than `m`, not {self.n} of {self.m}")

    monotone: ClassVar[bool] = False

    def due(self, clock: Any) -> bool:
        """At the first moment, and every period after it."""
        return clock.step == max(1, clock.at(self.from_)) or clock.every(self.every, self.from_)

    def choose(self, w: Tensor, mask: Tensor, event: Event) -> Tensor:
        """The n largest of each run, from all weights: a dead one may live again, as the share is fixed."""
        from nnac.compression._pruning import n_of_m

        return n_of_m(w, self.n, self.m)
