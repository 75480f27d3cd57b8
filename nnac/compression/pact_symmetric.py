"""Symmetric PACT."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method


@method("activations", "hidden")
@frozen
class PactSymmetric(Method):
    """Symmetric PACT: learned clip at both ends, for hidden states.

    Source: FMS-MO's symmetric PACT+ (METHODS §6), 15 levels at 4 bits when zero is aligned.
    """

    plus: bool = argument("boolean", default=True, doc="add the rounding term to the clip's gradient (PACT+)")
    zero_aligned: bool = argument("boolean", default=True, doc="zero is an exact level: 15 levels at 4 bits")
    clip: float | None = argument("number", default=1.0, low=1e-6, high=1e6, optional=True, doc="first clip; none: the 99.9th percentile")
