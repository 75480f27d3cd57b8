"""Lloyd-Max centroids of the float baseline's weights (one-dimensional k-means), snapped to int8."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment


@method("weights")
@frozen
class LloydMax(Method):
    """Lloyd-Max centroids of the float baseline's weights (one-dimensional k-means), snapped to int8: S8BQAT's codebook.

    Source: Zhen et al., Interspeech 2022, arXiv 2206.15408.  Seen: Lloyd-Max from a trained 32-bit baseline, for an 8-bit NNA.
    Reconstruction: quantile initialisation, int8 snapping, refresh rule (METHODS §3).
    """

    granularity: ClassVar[str] = "tensor"
    codebook: ClassVar[bool] = True

    bits: int = argument("integer", low=1, high=8, positional=True, doc="width of an index: 2^bits centroids")
    snap: str = argument("choice", default="int8", choices=("int8", "int16"), doc="integers that the centroids are rounded to")
    refresh: Moment | None = argument("moment", default=None, optional=True, doc="fit centroids again this often; none: never")
    forward: str = argument("choice", default="centroids", choices=("centroids", "int8"),
                            doc="weights in training: the nearest centroid, or any int8 (regulariser and hard compressor do the rest)")
    iterations: int = argument("integer", default=50, low=1, high=10000, doc="at most so many Lloyd iterations")
