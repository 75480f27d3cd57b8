"""Uniform grid whose clip minimises the Kullback-Leibler divergence of histograms before and after."""

from __future__ import annotations

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression.base import Method, argument, method


@method("activations", "hidden")
@frozen
class Entropy(ActivationRule, Method):
    """Uniform grid whose clip minimises the Kullback-Leibler divergence of histograms before and after.

    Source: background (the calibration popularised by TensorRT); histogram size is our choice.
    """

    bins: int = argument("integer", default=2048, low=256, high=65536,
                         doc="bins of the histogram of |x|, an even number")

    def __attrs_post_init__(self) -> None:
        if self.bins % 2:
            raise ValueError(f"`bins` of `entropy` is even, as neighbours are joined when the range doubles, not "
                             f"{self.bins}")

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return seen.least_divergence(bits, 128)
