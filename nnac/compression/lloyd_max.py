"""Lloyd-Max centroids of the float baseline's weights (one-dimensional k-means), snapped to int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._weights import State, WeightRule, mean_square
from nnac.compression.base import Method, argument, method
from nnac.units import Moment

if TYPE_CHECKING:
    from torch import Tensor


@method("weights")
@frozen
class LloydMax(WeightRule, Method):
    """Lloyd-Max centroids of the float baseline's weights (one-dimensional k-means), snapped to int8: S8BQAT's
    codebook.

    Source: Zhen et al., Interspeech 2022, arXiv 2206.15408.  Seen: Lloyd-Max from a trained 32-bit baseline, for an
    8-bit NNA. Reconstruction: quantile initialisation, int8 snapping, refresh rule (docs/methods.md §3).
    """

    granularity: ClassVar[str] = "tensor"
    codebook: ClassVar[bool] = True
    steady: ClassVar[bool] = True

    bits: int = argument("integer", low=1, high=8, positional=True, doc="width of an index: 2^bits centroids")
    snap: str = argument("choice", default="int8", choices=("int8", "int16"),
                         doc="integers that the centroids are rounded to")
    refresh: Moment | None = argument("moment", default=None, optional=True,
                                      doc="fit centroids again this often; none: never")
    forward: str = argument("choice", default="centroids", choices=("centroids", "int8"),
                            doc="weights in training: the nearest centroid, or any int8 (regulariser and hard "
                            "compressor do the rest)")
    iterations: int = argument("integer", default=50, low=1, high=10000, doc="at most so many Lloyd iterations")

    # ------------------------------------------------------------------------------------------------ behaviour
    # One table for the kernel; with more groups than one (gates, channels) weights are divided by their group's root
    # mean square first.

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        return self.fitted(x, live)

    def fitted(self, x: Tensor, live: Tensor | None, centroids: Any = None) -> State:
        """``table`` [K] integers and ``unit`` [G]: Lloyd-Max over all groups together, or Lloyd's iteration from given
        ``centroids``."""
        import numpy as np
        import torch

        from nnac.compression._centroids import lloyd, lloyd_max, summary
        from nnac.compression._grids import SMALLEST_UNIT, fitted_integers, snapped

        spread = self.spread(x, live)
        values = (x / spread)[live] if live is not None else x / spread
        k = 1 << self.bits
        if live is not None:
            k = max(2, k - 1)                              # zero is one of the 2^bits (1 bit becomes ternary)
        y = values.detach().cpu().numpy()
        if centroids is None:
            c = lloyd_max(y, k, self.iterations)
        else:
            c = lloyd(y, centroids if live is None else np.delete(centroids, np.abs(centroids).argmin()),
                      self.iterations)
        if live is not None:
            c = np.sort(np.append(c, 0.0))
        wide, found = 16 if self.snap == "int16" else 8, torch.from_numpy(np.ascontiguousarray(c))
        if live is None and len(y.ravel()):
            points, mass = map(torch.from_numpy, summary(y))
            codes, unit = fitted_integers(found, points, mass, wide)
        else:                                              # zero is one of them, and stays where it is
            codes, unit = snapped(found, wide)
        codes, unit = codes.to(x.device), unit.to(x.device)
        return {"table": codes, "unit": (unit * spread[:, 0]).float().clamp_min(SMALLEST_UNIT)}

    def spread(self, x: Tensor, live: Tensor | None) -> Tensor:
        """What groups are divided by, [G, 1]: nothing when there is one only."""
        return x.new_ones(1, 1) if x.shape[0] == 1 else mean_square(x, live).sqrt().clamp_min(1e-8)[:, None]

    def renew(self, state: State, x: Tensor, live: Tensor | None, bits: int, clock: Any) -> State:
        if self.refresh is None or not clock.every(self.refresh):
            return {}
        real = (state["table"] * (state["unit"][:1] / self.spread(x, live)[:1, 0])).double().cpu().numpy()
        return self.fitted(x, live, real)

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        from nnac.compression._grids import Codebook

        return Codebook(state["unit"][:, None], state["table"][None])

    def codes(self, state: State, x: Tensor, grid: Any, bits: int, clock: Any | None) -> Tensor:
        from nnac.compression._grids import exact, largest

        x0 = x.detach()
        if self.forward == "int8" and clock is not None:   # between hard compressions the 8-bit NNA's own grid
            top = largest(16 if self.snap == "int16" else 8)
            return exact(x, (x0 * (1.0 / grid.unit)).round_().clamp_(-top, top), grid.unit)
        return exact(x, grid.nearest(x0), grid.unit)
