"""What regularisers that pull weights to their levels have in common: how strong they are, and when.  Light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression.base import Method, argument
from nnac.units import Moment, Span

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Pull(Method):
    """A term of the loss whose gradient moves weights towards their levels."""

    pulls: ClassVar[bool] = True           # to the nearest level

    pull: float | None = argument("fraction", default=None, low=0.0, high=1e3, optional=True,
                                  doc="size of the term's gradient, as a share of the task's own (root mean squares "
                                  "over the kernel, at the first steps); training logs the strength that follows")
    strength: float | None = argument("number", default=None, low=0.0, high=1e6, optional=True,
                                      doc="factor of the term in the loss, in place of `pull`")
    ramp: Span = argument("span", default=Span(Moment(0.0), Moment(0.0)),
                          doc="the strength grows linearly from zero between these moments")

    def __attrs_post_init__(self) -> None:
        if (self.pull is None) == (self.strength is None):
            raise ValueError(f"`{self.keyword}` needs `pull` or `strength`, one of them: for example "
                             f"`{self.keyword}(pull=30%)`")

    def strength_at(self, clock: Any, found: float = 0.0) -> float:
        """The factor now; ``found``: what ``pull`` came to, 0 while that is not known."""
        return (found if self.strength is None else self.strength) * clock.ramp(self.ramp)

    def penalty(self, w: Tensor, grid: Any, live: Tensor | None) -> Tensor:
        """The term at strength one, a scalar.  w [G, n]"""
        raise NotImplementedError
