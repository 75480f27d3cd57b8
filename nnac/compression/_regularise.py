"""Pulls towards centroids, value and slope in one pass.  Torch; imported only by functions that run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nnac.compression._grids import places


def acosr(u: Tensor, top: int, odd: bool = False) -> tuple[Tensor, Tensor]:
    """``|sin(pi u)|`` for levels at the integers up to +-top, ``|cos(pi u / 2)|`` for odd ones; linear outside.
    (value, slope) by ``u``.

    u in steps of the grid (half-spacings for odd levels).  Zero on a level, one half-way.  Source: Nguyen et al. 2020;
    docs/methods.md §3.
    """
    width = 2.0 if odd else 1.0
    t = (u - 1.0) / 2 if odd else u
    angle = math.pi * (t - t.floor())
    value, slope = angle.sin(), angle.cos() * (math.pi / width)
    slope = torch.where(value < 1e-6, 0.0, slope)          # on a level there is nothing to pull
    beyond = u.abs() - top
    outside = beyond > 0
    return torch.where(outside, beyond / width, value), torch.where(outside, u.sign() / width, slope)


def mracos(u: Tensor, centroids: Tensor, width_normalised: bool = True) -> tuple[Tensor, Tensor]:
    """``|sin(pi (u - c_k) / (c_{k+1} - c_k))|`` in the region of each u.  (value, slope) by ``u``, [G, n].

    centroids [1 or G, K], increasing, in the unit of u.  Width-normalised: times the region's width over the mean
    width, so that all regions pull alike and a uniform grid gives ACosR either way.  Outside: the distance to the end
    centroid in (mean, or end) widths. Zero at every centroid, one (or the relative width) half-way.  Source: S8BQAT;
    docs/methods.md §3, a reconstruction.
    """
    c = centroids.expand(u.shape[0], -1).contiguous()
    k = c.shape[1]
    if k == 1:
        return (u - c).abs(), (u - c).sign()
    low = (places(c, u) - 1).clamp_(0, k - 2)
    left = torch.gather(c, 1, low)
    width = (torch.gather(c, 1, low + 1) - left).clamp_min(1e-6)
    mean = ((c[:, -1:] - c[:, :1]) / (k - 1)).clamp_min(1e-6)
    scale = width / mean if width_normalised else 1.0
    angle = math.pi * ((u - left) / width)
    value, slope = angle.sin(), angle.cos() * (math.pi / width)
    slope = torch.where(value < 1e-6, 0.0, slope) * scale
    below, above = c[:, :1] - u, u - c[:, -1:]
    outside = (below > 0) | (above > 0)
    end = mean if width_normalised else width
    return (torch.where(outside, torch.maximum(below, above) / end, value * scale),
            torch.where(outside, torch.where(below > 0, -1.0, 1.0) / end, slope))


def bits(u: Tensor, grid: Any, live: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Information of each ``u`` [G, n] (units of the grid), in bits, under the histogram of all of them; (value, slope
    by u).

    Each is shared by the levels below and above it, linearly, so the mean is the entropy of that histogram, and the
    slope its derivative times their number: that of an entropy by its probabilities is their logarithm, and a constant.
    Beyond the outermost levels the slope is zero.
    """
    low, high = grid.bracket(u)
    width = (high - low).clamp_min(1e-6)
    place = (u - low) / width
    t = place.clamp(0, 1)
    first = int(grid.codes.min())
    share = torch.ones_like(u) if live is None else live.to(u.dtype)
    at = [(v - first).round().long() for v in (low, high)]
    mass = torch.zeros(int(grid.codes.max()) - first + 1, dtype=torch.float64, device=u.device)
    for k, part in zip(at, (1 - t, t), strict=True):
        mass += torch.bincount(k.reshape(-1), (share * part).reshape(-1).double(), len(mass))
    total = mass.sum().clamp_min(1e-30)
    information = (-(mass / total).clamp_min(0.5 / float(total)).log2()).to(u.dtype)
    below, above = (information[k] for k in at)
    return below + (above - below) * t, (above - below) / width * ((place >= 0) & (place <= 1))


class Mean(torch.autograd.Function):
    """The mean of ``function(u)`` over the live entries; keeps one tensor for the way back, not the graph of the
    formula."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, live: Tensor | None, function: Any) -> Tensor:
        value, slope = function(u.detach())
        n = u.numel() if live is None else max(1, int(live.sum()))
        if live is not None:
            value, slope = value * live, slope * live
        ctx.save_for_backward(slope / n)
        return value.sum() / n

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return g * ctx.saved_tensors[0], None, None
