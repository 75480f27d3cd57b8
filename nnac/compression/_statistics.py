"""Where to clip weights: percentile, least squared error.  Torch; imported only by functions that run.

Source: background knowledge of calibration; the search grid is our choice.  Activations are calibrated in
`nnac.train.activation`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def percentile(x: Tensor, p: float, live: Tensor | None = None) -> Tensor:
    """The p-th percentile of |x| along the last axis, p in 0..100, the order statistic at or above it (no
    interpolation).

    x [G, n] -> [G].  100 is the maximum.  With a mask the percentile is of the live values.
    """
    magnitude, n = x.abs(), x.shape[-1]
    if p >= 100:
        return magnitude.amax(-1)
    if live is None:
        return magnitude.kthvalue(min(n, max(1, -int(-p * n // 100))), dim=-1).values
    ordered = magnitude.sort(-1).values                    # the dead are zeros: they come first
    alive = live.sum(-1).clamp_min(1)
    # of float64, as above: in float32 60 % of 25 lie beyond the 15th
    among = -torch.div(-p * alive.double(), 100, rounding_mode="floor").long()
    rank = (n - alive) + among.clamp_min(1) - 1
    return ordered.gather(-1, rank.clamp_max(n - 1)[..., None])[..., 0]


def least_squares_clip(x: Tensor, bits: int, candidates: int = 100) -> Tensor:
    """The clip, among ``candidates`` equal fractions of max|x|, whose symmetric grid of ``bits`` bits has the least
    mean squared error.

    x [G, n] -> [G].
    """
    from nnac.compression._grids import Uniform, missed

    top = x.abs().amax(1)
    best, error = top.clone(), torch.full_like(top, float("inf"))
    for k in range(candidates, 0, -1):
        clip = top * (k / candidates)
        e = missed(x, Uniform.of_clip(clip, bits)).sum(1)
        best, error = torch.where(e < error, clip, best), torch.minimum(e, error)
        if (e > 4 * error).all():                          # clipping error only grows from here
            break
    return best
