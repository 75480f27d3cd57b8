"""Forms: argument values that take arguments of their own (the space of GQ's centroids, how a temperature is
annealed)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression.base import Form, argument, form
from nnac.units import Change, Moment

if TYPE_CHECKING:
    from torch import Tensor


@form("mu_law", "space")
@frozen
class MuLaw(Form):
    """Centroids uniform in mu-law space: dense near zero.  ``F(x) = sgn(x) ln(1 + mu|x|) / ln(1 + mu)``.

    Source: GQ constrains its centroids to such a space (seen); its mu is not recoverable: fitted to the float weights
    (our choice; telephony's 255 is far too curved for weights).
    """

    mu: float | None = argument("number", default=None, low=1e-3, high=1e6, positional=True, optional=True,
                                doc="curvature; towards 0 it is linear; none: the best for the float weights")
    learned: bool = argument("boolean", default=True,
                             doc="training adjusts the curvature and each centroid's place, as well as the size")

    def expand(self, g: Tensor, mu: Tensor) -> Tensor:
        """``F^-1(g) = sgn(g) ((1 + mu)^|g| - 1) / mu``: from companded space, g in [-1, 1], to the weights' own."""
        return g.sign() * ((1 + mu) ** g.abs() - 1) / mu

    def compress(self, x: Tensor, mu: Tensor) -> Tensor:
        """``F(x)``, the inverse of `expand`."""
        return x.sign() * (1 + mu * x.abs()).log() / (1 + mu).log()

    def rise(self, g: Tensor, mu: Tensor) -> Tensor:
        """``d F^-1(g) / dg``."""
        return (1 + mu) ** g.abs() * (1 + mu).log() / mu

    def slope(self, g: Tensor, mu: Tensor) -> Tensor:
        """``d F^-1(g) / d ln mu``."""
        a = g.abs()
        return g.sign() * (a * (1 + mu) ** (a - 1) * mu - ((1 + mu) ** a - 1)) / mu

    @property
    def candidates(self) -> tuple[float, ...]:
        """The curvatures to choose from at the start."""
        return (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 255.0) if self.mu is None else (self.mu,)


@form("flat", "space")
@frozen
class Flat(Form):
    """Centroids uniform in the weights' own space: GQ without companding, for ablation.  Our choice."""

    learned: ClassVar[bool] = False
    candidates: ClassVar[tuple[float, ...]] = (0.0,)

    def expand(self, g: Tensor, mu: Tensor) -> Tensor:
        """The identity."""
        return g


@frozen
class _Annealed(Form):
    """A value that goes from one number to another."""

    change: Change = argument("change", default=Change(1.0, 300.0), positional=True, doc="first and last value")
    over: Moment = argument("moment", default=Moment(0.5, "training"), doc="how long it takes")
    from_: Moment = argument("moment", default=Moment(0.0, "steps"), doc="when it starts")

    def __attrs_post_init__(self) -> None:
        """ValueError: a temperature of zero assigns every weight to all centroids alike, and its slope is divided by
        it."""
        for value in (self.change.start, self.change.end):
            if not 0 < value < 1e30:
                raise ValueError(f"`{self.keyword}` goes between numbers above 0, not {self.change}")


@form("exponential", "anneal")
@frozen
class Exponential(_Annealed):
    """Geometric growth from one value to another.  Source: our choice; the paper says annealing, its schedule is not
    recoverable."""

    def value(self, clock: Any) -> float | None:
        """The value at this moment of training; None when the change is over."""
        progress = clock.progress(self.from_, self.over)
        return None if progress >= 1 else self.change.start * (self.change.end / self.change.start) ** progress


@form("linear", "anneal")
@frozen
class Linear(_Annealed):
    """Equal steps from one value to another.  Source: our choice."""

    def value(self, clock: Any) -> float | None:
        """The value at this moment of training; None when the change is over."""
        progress = clock.progress(self.from_, self.over)
        return None if progress >= 1 else self.change.start + (self.change.end - self.change.start) * progress
