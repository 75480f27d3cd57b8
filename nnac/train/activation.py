"""Scales of the values between layers: seen on real data (calibration), or learned.

A histogram of magnitudes watches a value while the module runs on real numbers; a method
(`nnac.compression._clips.ActivationRule`) reads its clip from it; scale = clip / largest code.  The histogram's range
is a power of two that doubles as needed, so histograms of several processes merge exactly.
Source: background (TensorRT's calibrators for entropy; FMS-MO for percentiles and learned clips, docs/methods.md §6);
bins and search grid are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nnac.compression._clips import BINS, ActivationRule
from nnac.compression.percentile import Percentile
from nnac.train.format import Format

FINE_BITS = 15                 # of a float32, from the exponent's first: 128 counts an octave
SMALLEST_CLIP = 1e-6           # that training may reach
COARSE = 64.0                  # bins: below, their width is more than a hundredth of the magnitude


class UncalibratedError(RuntimeError):
    """A scale was asked for that neither calibration nor a checkpoint has set."""


class Histogram:
    """Magnitudes of everything seen, in ``bins`` (even) bins over [0, 2^exponent): those of negative numbers, and the
    others."""

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        # the same magnitudes by their leading bits as float32
        self.fine = torch.zeros(1 << FINE_BITS, dtype=torch.float64)
        self.signed = torch.zeros(2, bins, dtype=torch.float64)
        self.exponent = -20
        self.largest = 0.0

    def _widen(self, exponent: int) -> None:
        while self.exponent < exponent:
            self.signed = torch.cat([self.signed.view(2, -1, 2).sum(2),
                                     torch.zeros(2, self.bins // 2, dtype=torch.float64)], 1)
            self.exponent += 1

    def add(self, x: Tensor) -> None:
        """Count the magnitudes of ``x``.  ValueError if one is not finite."""
        x = x.detach().float().flatten()
        if x.numel() == 0:
            return
        largest = float(x.abs().max())
        if not math.isfinite(largest):
            bad = x[~x.isfinite()]
            raise ValueError(f"{bad.numel()} of {x.numel()} numbers are not finite, the first {float(bad[0]):g}")
        self.largest = max(self.largest, largest)
        self._widen(math.frexp(largest)[1])
        at = (x.abs() * (self.bins / 2.0**self.exponent)).to(torch.int64).clamp_(max=self.bins -
                                                                                 1) + self.bins * (x >= 0)
        self.signed += torch.bincount(at, minlength=2 * self.bins).to("cpu", torch.float64).view(2, self.bins)
        self.fine += torch.bincount(x.abs().view(torch.int32) >> (32 - FINE_BITS - 1),
                                    minlength=1 << FINE_BITS).to("cpu", torch.float64)

    @property
    def counts(self) -> Tensor:
        """Of magnitudes, whatever their sign."""
        return self.signed.sum(0)

    def reduce(self) -> None:
        """Merge with the histograms of the other processes of the default group, if there are any."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        limits = torch.tensor([float(self.exponent), self.largest], dtype=torch.float64)
        torch.distributed.all_reduce(limits, torch.distributed.ReduceOp.MAX)
        self._widen(int(limits[0]))
        self.largest = float(limits[1])
        torch.distributed.all_reduce(self.signed)
        torch.distributed.all_reduce(self.fine)

    @property
    def reach(self) -> float:
        """The largest magnitude seen; 1 where nothing but zeros was."""
        return self.largest or 1.0

    def percentile(self, percent: float) -> float:
        """The magnitude that ``percent`` % of everything seen lies below, at most ``reach``.

        Where it lies among the first bins (one outlier has made them wide), the fine counts say where.  ``reach`` where
        so many are zero: zeros are exact under any scale, and the others are what it is for.
        """
        at = _quantile(self.counts, percent / 100.0)
        if at >= COARSE:
            return min(at * self._width, self.largest) or 1.0
        return min(self._fine_magnitude(percent / 100.0), self.largest) or self.reach

    def _fine_magnitude(self, share: float) -> float:
        """As `percentile`, from the fine counts: good to 1/128 of the magnitude."""
        at = _quantile(self.fine, share)
        if at < 1.0:                                       # zeros
            return 0.0
        low, high = (float(torch.tensor(k << (32 - FINE_BITS - 1), dtype=torch.int32).view(torch.float32))
                     for k in (int(at), int(at) + 1))
        return low + (at - int(at)) * (min(high, 3.4e38) - low)

    def least_square_error(self, bits: int, candidates: int) -> float:
        """See `nnac.compression._clips.Magnitudes`."""
        return self._least(self._square_error, bits, candidates)

    def least_divergence(self, bits: int, candidates: int) -> float:
        """See `nnac.compression._clips.Magnitudes`."""
        return self._least(self._divergence, bits, candidates)

    @property
    def _width(self) -> float:
        return 2.0**self.exponent / self.bins

    def _least(self, measure: Callable[[float, int, float], float], bits: int, candidates: int) -> float:
        if self.largest == 0.0:
            return self.reach
        near = self._fine_magnitude(0.9999)
        if measure == self._divergence and 0.0 < near < self.largest * 32 / self.bins:
            # a few outliers have made the bins too wide for the rest: the same search over the rest, the outliers in
            # its last bin
            return self._within(math.frexp(4 * near)[1]).least_divergence(bits, candidates)
        return min((self.reach * (k + 1) / candidates for k in range(candidates)),
                   key=lambda clip: measure(clip, bits, self._width))

    def _within(self, exponent: int) -> Histogram:
        """The fine counts as a histogram over [0, 2^exponent); whatever lies beyond counts as its largest magnitude."""
        made = Histogram(self.bins)
        made.exponent, made.largest = exponent, 2.0**exponent
        middles = ((torch.arange(1 << FINE_BITS, dtype=torch.int64) << (32 - FINE_BITS - 1)) +
                   (1 << (30 - FINE_BITS))).to(torch.int32)
        magnitudes = middles.view(torch.float32).double().nan_to_num(float("inf"), float("inf"))
        magnitudes[0] = 0.0
        at = (magnitudes * (self.bins / 2.0**exponent)).clamp(max=self.bins - 1).to(torch.int64)
        made.signed[1].index_add_(0, at, self.fine)
        made.fine = self.fine
        return made

    def value_at(self, percent: float) -> float:
        """The value (signed) that ``percent`` % of everything seen lies below."""
        whole = torch.cat([self.signed[0].flip(0), self.signed[1]])
        return (_quantile(whole, percent / 100.0) - self.bins) * 2.0**self.exponent / self.bins

    def _square_error(self, clip: float, bits: int, width: float) -> float:
        codes = (1 << (bits - 1)) - 1
        centre = (torch.arange(self.bins, dtype=torch.float64) + 0.5) * width
        step = clip / codes
        rounded = ((centre / step + 0.5).floor() * step).clamp(max=clip)
        # within a bin narrower than a step, rounding error is seen at the centre only: good to width^2 / 12
        return float((self.counts * (centre - rounded).square()).sum())

    def _divergence(self, clip: float, bits: int, width: float) -> float:
        # the greatest candidate leaves nothing out, also where the greatest magnitude is the first of its bin (1.0 of
        # flags)
        whole = clip >= self.largest
        bins = max(1, min(self.bins, math.floor(self.largest / width) + 1 if whole else round(clip / width)))
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


def _quantile(counts: Tensor, share: float) -> float:
    """Where, in bins, the first ``share`` of the counts ends."""
    below = torch.cumsum(counts, 0)
    wanted = below[-1] * share
    at = int(torch.searchsorted(below, wanted.clamp(max=below[-1])))
    before = float(below[at - 1]) if at else 0.0
    return at + (float(wanted) - before) / max(float(counts[at]), 1.0)


class ActivationQuantiser(nn.Module):
    """The format of one value: unset, then calibrated; a parameter if it is learned.

    ``scale`` (a buffer) is 0 while unset.  A learned clip is the parameter ``high``, with ``low`` where the lower one
    is its own.
    """

    scale: Tensor
    high: nn.Parameter
    low: nn.Parameter

    def __init__(self, bits: int, method: ActivationRule | None = None) -> None:
        super().__init__()
        self.bits, self.method = bits, method or Percentile()
        if self.method.learns:
            self.high = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("scale", torch.zeros((), dtype=torch.float64))
        if self.method.sides == "two":
            self.low = nn.Parameter(torch.zeros(()))
        self.histogram: Histogram | None = None

    @property
    def levels(self) -> int:
        """Steps between zero and the clip, or between two clips."""
        return (1 << (self.bits - 1)) - 1 if self.method.sides == "both" else (1 << self.bits) - 1

    def observe(self, x: Tensor) -> None:
        """Count real values into the histogram."""
        if self.histogram is None:
            self.histogram = Histogram(self.method.bins)
        self.histogram.add(x)

    def settle(self, alike: bool = False) -> None:
        """Set the scale from what was seen (nothing seen: leave it), here or by all processes; ``alike``: they have all
        seen the same."""
        if self.histogram is None:
            return
        # counts of several times the same are no finer, and round otherwise
        if not alike:
            self.histogram.reduce()
        self.set(self.method.clip_of(self.histogram, self.bits), self.method.low_clip_of(self.histogram, self.bits))
        self.histogram = None

    @torch.no_grad()
    def set(self, clip: float, low: float = 0.0) -> None:
        """Set the clip, and the lower one where it has one."""
        if not self.method.learns:
            self.scale.fill_(clip / self.levels)
            return
        self.high.fill_(clip)
        if self.method.sides == "two":
            self.low.fill_(low)

    def format(self, name: str) -> Format:
        """The format now.  UncalibratedError if the scale is unset."""
        if not self.method.learns:
            scale = float(self.scale)
        else:
            # a clip that training takes through zero comes back as its magnitude
            high = abs(float(self.high.detach()))
            high, low = max(high, SMALLEST_CLIP) if high else high, min(float(self.low.detach()),
                                                                        0.0) if self.method.sides == "two" else 0.0
            scale = (high - low) / self.levels
        if not (scale > 0.0 and math.isfinite(scale)):
            raise UncalibratedError(f"`{name}` has no scale yet: run calibrate() on real data, or load a checkpoint "
                                    f"that has one")
        zero_point = 0
        if self.method.sides != "both":
            least = -(1 << (self.bits - 1))
            zero_point = min(max(least - math.floor(low / scale + 0.5), least), -least - 1)      # real zero is a level
        return Format(scale, zero_point, self.bits, self if self.method.learns else None)

    def learn(self, y: Tensor, form: Format, unrounded: Callable[[], Tensor]) -> Tensor:
        """``y``, the integers, with the clips' gradients.  ``unrounded()``: real value / scale before rounding and
        saturation."""
        if not torch.is_grad_enabled():
            return y
        with torch.no_grad():
            z = unrounded()
        return _Learn.apply(y, z, self.high, self.low if self.method.sides == "two" else None, form, self)

    def gradients(self, by_real: Tensor, z: Tensor, form: Format) -> tuple[Tensor, Tensor | None]:
        """(d loss / d high, d loss / d low) from ``by_real`` = d loss / d dequantised value, at unrounded codes ``z``
        (zero point aside)."""
        least, most = (v - form.zero_point for v in form.limits)
        above, below = z > most, z < least
        rounding = torch.where(above | below, 0.0, (z + 0.5).floor() -
                               z) / self.levels if self.method.plus else torch.zeros_like(z)
        factor = self.method.factor(z.numel(), self.levels)
        if self.method.sides == "both":
            return (by_real * (above.to(z) - below.to(z) + rounding)).sum() * factor, None
        low = (by_real * (below.to(z) - rounding)).sum() * factor if self.method.sides == "two" else None
        return (by_real * (above.to(z) + rounding)).sum() * factor, low

    def extra_repr(self) -> str:
        try:
            form = self.format("")
            shown = f"scale={form.scale:.6g}" + (f", zero {form.zero_point}" if form.zero_point else "")
        except UncalibratedError:
            shown = "not calibrated"
        return f"int{self.bits}, {self.method}, {shown}{', learned' if self.method.learns else ''}"


class _Learn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, high: Tensor, low: Tensor | None, form: Format,
                quantiser: ActivationQuantiser) -> Tensor:
        ctx.save_for_backward(z)
        ctx.form, ctx.quantiser = form, quantiser
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        high, low = ctx.quantiser.gradients(g / ctx.form.scale, ctx.saved_tensors[0].to(g), ctx.form)
        if float(ctx.quantiser.high) < 0.0:                # the clip is its magnitude: so its slope turns with its sign
            high = -high
        return g, None, high.float(), None if low is None else low.float(), None, None


def learned(y: Tensor, form: Format, unrounded: Callable[[], Tensor]) -> Tensor:
    """``y`` with the gradients of its format's clips, where they are learned."""
    return y if form.learner is None else form.learner.learn(y, form, unrounded)
