"""Weights in {-a, 0, a}."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from nnac.compression.base import Method, argument, method


@method("weights")
@frozen
class Ternary(Method):
    """Weights in {-a, 0, a}: below a threshold they are zero, a is the mean of the others.

    Source: background (ternary weight networks, Li & Liu 2016, arXiv 1605.04711: threshold 0.7 E|w|).
    """

    fixed_bits: ClassVar[int | None] = 2

    threshold: float = argument("number", default=0.7, low=0.0, high=4.0, positional=True, doc="of zero, in units of mean |w|")
