"""Forms: argument values that take arguments of their own (the space of GQ's centroids, how a temperature is annealed)."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Form, argument, form
from nnac.units import Change, Moment


@form("mu_law", "space")
@frozen
class MuLaw(Form):
    """Centroids uniform in mu-law space: dense near zero.  ``F(x) = sgn(x) ln(1 + mu|x|) / ln(1 + mu)``.

    Source: GQ constrains its centroids to such a space (seen); its mu is not recoverable: fitted to the float weights (our choice;
    telephony's 255 is far too curved for weights).
    """

    mu: float | None = argument("number", default=None, low=1e-3, high=1e6, positional=True, optional=True,
                                doc="curvature; towards 0 it is linear; none: the best for the float weights")
    learned: bool = argument("boolean", default=False, doc="training adjusts the curvature as well as the size")


@form("flat", "space")
@frozen
class Flat(Form):
    """Centroids uniform in the weights' own space: GQ without companding, for ablation.  Our choice."""


@form("exponential", "anneal")
@frozen
class Exponential(Form):
    """Geometric growth from one value to another.  Source: our choice; the paper says annealing, its schedule is not recoverable."""

    change: Change = argument("change", default=Change(1.0, 300.0), positional=True, doc="first and last value")
    over: Moment = argument("moment", default=Moment(0.5, "training"), doc="how long it takes")
    from_: Moment = argument("moment", default=Moment(0.0, "steps"), doc="when it starts")


@form("linear", "anneal")
@frozen
class Linear(Form):
    """Equal steps from one value to another.  Source: our choice."""

    change: Change = argument("change", default=Change(1.0, 300.0), positional=True, doc="first and last value")
    over: Moment = argument("moment", default=Moment(0.5, "training"), doc="how long it takes")
    from_: Moment = argument("moment", default=Moment(0.0, "steps"), doc="when it starts")
