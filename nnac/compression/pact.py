"""PACT."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method


@method("activations")
@frozen
class Pact(Method):
    """PACT: one-sided learned clip, for outputs that are never negative.

    Source: Choi et al. 2018, arXiv 1805.06085; formulas and the + gradient as in METHODS §6.
    """

    plus: bool = argument("boolean", default=True, doc="add the rounding term to the clip's gradient (PACT+)")
    clip: float | None = argument("number", default=None, low=1e-6, high=1e6, optional=True, doc="first clip; none: the 99.9th percentile")
