"""N."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment


@method("sparsity")
@frozen
class NOfM(Method):
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
