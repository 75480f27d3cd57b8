"""Uniform grid whose scale is the smallest power of two that covers the range."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method


@method("weights", "activations", "hidden")
@frozen
class PowerOfTwo(Method):
    """Uniform grid whose scale is the smallest power of two that covers the range: requantising becomes a shift.

    Source: background; our choice of ceil(log2).
    """

    p: float = argument("number", default=100.0, low=50.0, high=100.0, positional=True, doc="percentile of |x| that must be covered")
