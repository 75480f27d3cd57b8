"""ACosR, absolute cosine."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment, Span


@method("regularise")
@frozen
class Acosr(Method):
    """ACosR, absolute cosine: MRACos for a uniform grid, ``|sin(pi w / step)|``.

    Source: Nguyen et al., Interspeech 2020 (seen: abstract).  Reconstruction: the formula for levels that include zero (METHODS §3).
    """

    strength: float = argument("number", low=0.0, high=1e6, doc="factor of the term in the loss")
    ramp: Span = argument("span", default=Span(Moment(0.0), Moment(0.0)), doc="the strength grows linearly from zero between these moments")
