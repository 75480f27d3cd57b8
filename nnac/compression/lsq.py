"""Learned step size."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method


@method("weights", "activations", "hidden")
@frozen
class Lsq(Method):
    """Learned step size: the scale is a parameter, trained with the rounding error's own gradient.

    Source: background (LSQ, Esser et al. 2020, arXiv 1902.08153).
    """

    gradient_scale: bool = argument("boolean", default=True, doc="divide the step's gradient by sqrt(weights * levels), as the paper does")
