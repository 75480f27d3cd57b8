"""Scales of the values between layers: seen on real data (calibration), or learned.

A histogram of magnitudes watches a value while the module runs on real numbers; a method reads a clip from it; scale = clip / largest code.
The histogram's range is a power of two that doubles as needed, so histograms of several processes merge exactly.

    minmax          the largest magnitude seen
    percentile(p)   p % of the magnitudes lie below the clip
    mse             the clip of least mean square error of the rounded, saturated value
    entropy         the clip of least Kullback-Leibler divergence between the value and its quantised form
    fixed(clip)     as given
Source: background (TensorRT's calibrators for entropy; FMS-MO for percentiles); bins and search grid are our choice.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from nnac.train.integers import Format

BINS = 4096
_CANDIDATES = 128


class UncalibratedError(RuntimeError):
    """A scale was asked for that neither calibration nor a checkpoint has set."""


@frozen
class Clip:
    """How a clip is found: ``method`` as in the module's table; ``argument`` its number (percent, clip); ``learned``: train it afterwards."""

    method: str = "percentile"
    argument: float = 99.99
    learned: bool = False

    @classmethod
    def of(cls, method: Any) -> Clip:
        """From a compression method of a plan, or None."""
        if method is None:
            return cls()
        name = method.keyword
        if name in ("minmax", "mse", "entropy"):
            return cls(name, 0.0)
        if name == "percentile":
            return cls(name, method.p)
        given = getattr(method, "clip", None)
        learned = name in ("lsq", "pact", "pact_symmetric", "pact_two_sided")
        if given is not None:
            return cls("fixed", float(given), learned)
        return cls("percentile", 99.9, True) if learned else cls()


class Histogram:
    """Magnitudes of everything seen, in `BINS` bins over [0, 2^exponent)."""

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.exponent = -20
        self.largest = 0.0

    def _widen(self, exponent: int) -> None:
        while self.exponent < exponent:
            self.counts = torch.cat([self.counts.view(-1, 2).sum(1), torch.zeros(BINS // 2, dtype=torch.float64)])
            self.exponent += 1

    def add(self, x: Tensor) -> None:
        """Count the magnitudes of ``x``.  ValueError if one is not finite."""
        x = x.detach().abs().float()
        if x.numel() == 0:
            return
        largest = float(x.max())
        if not math.isfinite(largest):
            raise ValueError("calibration saw a value that is not finite")
        self.largest = max(self.largest, largest)
        self._widen(math.frexp(largest)[1])
        at = (x.flatten() * (BINS / 2.0**self.exponent)).to(torch.int64).clamp_(max=BINS - 1)
        self.counts += torch.bincount(at, minlength=BINS).to("cpu", torch.float64)

    def reduce(self) -> None:
        """Merge with the histograms of the other processes of the default group, if there are any."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        limits = torch.tensor([float(self.exponent), self.largest], dtype=torch.float64)
        torch.distributed.all_reduce(limits, torch.distributed.ReduceOp.MAX)
        self._widen(int(limits[0]))
        self.largest = float(limits[1])
        torch.distributed.all_reduce(self.counts)

    def clip(self, how: Clip, bits: int) -> float:
        """The clip that ``how`` finds, positive; 1 if nothing but zeros was seen."""
        if how.method == "fixed":
            return how.argument
        if self.largest == 0.0:
            return 1.0
        width = 2.0**self.exponent / BINS
        if how.method == "minmax":
            return self.largest
        if how.method == "percentile":
            below = torch.cumsum(self.counts, 0)
            wanted = below[-1] * how.argument / 100.0
            at = int(torch.searchsorted(below, wanted.clamp(max=below[-1])))
            before = float(below[at - 1]) if at else 0.0
            inside = (float(wanted) - before) / max(float(self.counts[at]), 1.0)
            return min(max((at + inside) * width, width), self.largest)
        measure = dict(mse=self._square_error, entropy=self._divergence)[how.method]
        candidates = [self.largest * (k + 1) / _CANDIDATES for k in range(_CANDIDATES)]
        return min(candidates, key=lambda clip: measure(clip, bits, width))

    def _square_error(self, clip: float, bits: int, width: float) -> float:
        codes = (1 << (bits - 1)) - 1
        centre = (torch.arange(BINS, dtype=torch.float64) + 0.5) * width
        step = clip / codes
        rounded = ((centre / step + 0.5).floor() * step).clamp(max=clip)
        # within a bin narrower than a step, rounding error is seen at the centre only: good to width^2 / 12
        return float((self.counts * (centre - rounded).square()).sum())

    def _divergence(self, clip: float, bits: int, width: float) -> float:
        bins = max(1, min(BINS, round(clip / width)))
        levels = 1 << (bits - 1)
        if bins < levels:
            return math.inf if clip < self.largest else 0.0
        p = self.counts[:bins].clone()
        p[-1] += self.counts[bins:].sum()
        seen = self.counts[:bins] > 0
        group = torch.arange(bins) * levels // bins
        mass = torch.zeros(levels, dtype=torch.float64).index_add_(0, group, self.counts[:bins])
        members = torch.zeros(levels, dtype=torch.float64).index_add_(0, group, seen.double())
        q = torch.where(seen, (mass / members.clamp(min=1))[group], 0.0)
        p, q = p / p.sum(), q / q.sum().clamp(min=1e-300)
        some = p > 0
        return float((p[some] * (p[some] / q[some].clamp(min=1e-12)).log()).sum())


class ActivationQuantiser(nn.Module):
    """The scale of one value: unset, then calibrated; a parameter if it is learned.

    ``scale`` is 0 while unset.  Learned scales get the gradient that the chain rule gives (LSQ's, PACT+'s); `forward` keeps them positive.
    """

    def __init__(self, bits: int, how: Clip | None = None) -> None:
        super().__init__()
        self.bits, self.how = bits, how or Clip()
        if self.how.learned:
            self.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))
        else:
            self.register_buffer("scale", torch.zeros((), dtype=torch.float64))
        self.histogram: Histogram | None = None

    def observe(self, x: Tensor) -> None:
        """Count real values into the histogram."""
        if self.histogram is None:
            self.histogram = Histogram()
        self.histogram.add(x)

    def settle(self) -> None:
        """Set the scale from what was seen (nothing seen: leave it)."""
        if self.histogram is None:
            return
        self.histogram.reduce()
        with torch.no_grad():
            self.scale.fill_(self.histogram.clip(self.how, self.bits) / ((1 << (self.bits - 1)) - 1))
        self.histogram = None

    def format(self, name: str) -> Format:
        """The format now.  UncalibratedError if the scale is unset."""
        scale = abs(float(self.scale.detach()))
        if scale == 0.0 or not math.isfinite(scale):
            raise UncalibratedError(f"`{name}` has no scale yet: run calibrate() on real data, or load a checkpoint that has one")
        return Format(scale, 0, self.bits, self.scale.abs() if self.how.learned else None)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, {self.how.method}, scale={float(self.scale.detach()):.6g}{', learned' if self.how.learned else ''}"
