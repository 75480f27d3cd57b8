"""Grids: which integers a weight may become, on what real unit.  Torch; imported only by functions that run.

Weights arrive grouped: ``x`` [G, n], one row per thing that shares a scale (tensor, gate, channel, group).  A grid
gives for each weight an integer (carried exactly by float32) and for each group the real value of one integer, its
``unit``.  Two kinds: `Uniform`, and `Codebook`, one table of integers for the whole kernel, shared by all its groups,
so that an index of n bits says it all. `on` re-expresses a grid on a coarser or finer unit, for kernels that add into
one accumulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

# of dead rows: small, yet a real bias of some units still fits the accumulator (our choice)
SMALLEST_UNIT = 2.0**-18


def largest(bits: int) -> int:
    """The largest level of a symmetric grid of ``bits`` bits: 7 for 4 bits (15 levels, zero among them), 1 for 1 and 2
    bits."""
    return max(1, (1 << (bits - 1)) - 1)


def places(bounds: Tensor, u: Tensor) -> Tensor:
    """How many of ``bounds`` [1 or G, K], increasing, are at most each ``u`` [G, n]: int64.

    As torch.searchsorted on the right, which takes 60 ns a weight; a few comparisons over all weights take a third of
    that (measured).
    """
    if bounds.shape[1] > 32:
        return torch.searchsorted(bounds.expand(u.shape[0], -1).contiguous(), u, right=True)
    count = torch.zeros(u.shape, dtype=torch.uint8, device=u.device)
    for k in range(bounds.shape[1]):
        count += (u >= bounds[:, k: k + 1]).view(torch.uint8)
    return count.long()


def over(x: Tensor, n: int) -> Tensor:
    """``x / n``, rounded as IEEE says on every device: a GPU multiplies by the rounded reciprocal of a plain number."""
    return x / torch.full_like(x, n)


@frozen(eq=False)
class Uniform:
    """Levels ``step * q``: q every integer in +-top, or every odd one (``odd``: no zero among the levels).

    step  [G, 1] real, positive
    multiple  integer by which q is multiplied to give the code (1, or [G, 1] after `on`)
    """

    step: Tensor
    top: int
    odd: bool = False
    multiple: Any = 1

    @classmethod
    def of_clip(cls, clip: Tensor, bits: int, odd: bool = False) -> Uniform:
        """The grid of ``bits`` bits whose outermost level is ``clip`` [G].  One bit is always odd: +-clip."""
        odd = (odd and bits < 8) or bits == 1              # 256 odd levels would not fit int8
        top = (1 << bits) - 1 if odd else largest(bits)
        return cls(over(clip[:, None], top).clamp_min(SMALLEST_UNIT), top, odd)

    @property
    def unit(self) -> Tensor:
        return self.step if isinstance(self.multiple, int) and self.multiple == 1 else self.step / self.multiple

    @property
    def reach(self) -> Tensor:
        """The largest magnitude represented, [G, 1] real."""
        return self.step * self.top

    @property
    def codes(self) -> Tensor:
        """All codes in order, [1 or G, K]."""
        q = torch.arange(-self.top, self.top + 1, 2 if self.odd else 1, device=self.step.device, dtype=torch.float32)
        return q[None] * self.multiple

    def nearest(self, x: Tensor) -> Tensor:
        """The code of each weight, exact integers in float32.  x [G, n]."""
        q = x * self.step.reciprocal()
        q = q.mul_(0.5).floor_().mul_(2).add_(1) if self.odd else q.round_()
        q = q.clamp_(-self.top, self.top)
        return q if isinstance(self.multiple, int) and self.multiple == 1 else q.mul_(self.multiple)

    def bracket(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The codes below and above each ``u`` [G, n] (code units); the two outermost for what lies outside."""
        wide = 2 if self.odd else 1
        q = u / self.multiple
        low = ((q - 1) / 2).floor() * 2 + 1 if self.odd else q.floor()
        low = low.clamp(-self.top, self.top - wide)
        return low * self.multiple, (low + wide) * self.multiple

    def inside(self, x: Tensor) -> Tensor:
        """Which weights lie within the outermost levels."""
        return x.abs() <= self.reach

    def at(self, groups: Tensor) -> Uniform:
        """The same for some of the groups."""
        each = isinstance(self.multiple, Tensor) and self.multiple.shape[0] > 1
        return evolve(self, step=self.step[groups], multiple=self.multiple[groups] if each else self.multiple)

    def on(self, unit: Tensor) -> Uniform:
        """The same levels as integer multiples of ``unit`` [G, 1]: the step moves to the nearest multiple."""
        multiple = (self.step / unit).round().clamp_min(1)
        return evolve(self, step=multiple * unit, multiple=multiple)


@frozen(eq=False)
class Codebook:
    """Levels ``unit * codes``.  unit [G, 1]; codes float32 [1 or G, K], increasing (equal neighbours allowed),
    integers.

    ``bounds`` [1 or G, K-1] in code units: weights between two bounds take one code; None: half-way, so the nearest.
    """

    unit: Tensor
    codes: Tensor
    bounds: Tensor | None = None

    @property
    def reach(self) -> Tensor:
        return self.unit * self.codes.abs().amax(1, keepdim=True)

    @property
    def midpoints(self) -> Tensor:
        return (self.codes[:, 1:] + self.codes[:, :-1]) / 2 if self.bounds is None else self.bounds

    @property
    def is_small(self) -> bool:
        """Whether one table serves all groups, of integers so small that a level is a function of an integer part: one
        gather instead of a search."""
        return self.codes.shape[0] == 1 and bool(self.codes.abs().max() < 256)

    def nearest(self, x: Tensor) -> Tensor:
        """The code of each weight; a weight half-way takes the upper one."""
        u = x * (1.0 / self.unit)
        if self.bounds is None and self.is_small:
            return self._table[u.mul_(2).floor_().add_(512).clamp_(0, 1023).int()]
        if self.codes.shape[1] <= 4:                       # a few comparisons are cheaper than a search
            q = self.codes[:, :1].expand_as(u)
            for k in range(self.codes.shape[1] - 1):
                q = q + (u >= self.midpoints[:, k: k + 1]) * (self.codes[:, k + 1: k + 2] - self.codes[:, k: k + 1])
            return q
        return torch.gather(self.codes.expand(u.shape[0], -1), 1, places(self.midpoints.expand(u.shape[0], -1), u))

    @property
    def _table(self) -> Tensor:
        # midpoints of integers are multiples of 1/2, so the nearest code is a function of floor(2u): one gather, no
        # search
        cells = (torch.arange(-512, 512, device=self.codes.device) + 0.5) / 2
        return self.codes[0][torch.bucketize(cells, self.midpoints[0].contiguous(), right=True)]

    def bracket(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The codes below and above each ``u`` [G, n] (code units); the two outermost for what lies outside."""
        if self.is_small:
            # centroids are integers, so the one below u is a function of floor(u)
            cells = torch.arange(-256, 256, device=u.device, dtype=torch.float32)
            below = (torch.searchsorted(self.codes[0].contiguous(), cells.to(self.codes.dtype), right=True) - 1)
            below = below.clamp_(0, max(0, self.codes.shape[1] - 2))
            above = (below + 1).clamp_max(self.codes.shape[1] - 1)
            cell = u.floor().clamp_(-256, 255).add_(256).int()
            return self.codes[0][below][cell], self.codes[0][above][cell]
        codes = self.codes.expand(u.shape[0], -1).contiguous()
        low = (places(codes, u) - 1).clamp_(0, max(0, codes.shape[1] - 2))
        return torch.gather(codes, 1, low), torch.gather(codes, 1, (low + 1).clamp_max(codes.shape[1] - 1))

    def level_of(self, codes: Tensor, u: Tensor) -> Tensor:
        """Which level each hard code of ``u`` is, of a table that `is_small`: int64.  Of equal ones the lowest for what
        comes from below, the highest for the rest."""
        table = self.codes[0].contiguous()
        cells = torch.arange(-256, 256, device=u.device, dtype=table.dtype)
        first = torch.searchsorted(table, cells).clamp_max(len(table) - 1)
        cell = (codes + 256).int()
        if not (table[1:] == table[:-1]).any():
            return first[cell]
        last = (torch.searchsorted(table, cells, right=True) - 1).clamp_min(0)
        return torch.where(u < codes, first[cell], last[cell])

    def inside(self, x: Tensor) -> Tensor:
        return (x >= self.unit * self.codes[:, :1]) & (x <= self.unit * self.codes[:, -1:])

    def at(self, groups: Tensor) -> Codebook:
        """The same for some of the groups."""
        some = [v if v is None or len(v) == 1 else v[groups] for v in (self.codes, self.bounds)]
        assert some[0] is not None
        return Codebook(self.unit[groups], some[0], some[1])

    def on(self, unit: Tensor) -> Codebook:
        """The same levels rounded to multiples of ``unit`` [G, 1]."""
        ratio = self.unit / unit
        codes = (self.codes * ratio).round()
        bounds = None if self.bounds is None else self.bounds * ratio
        if (ratio == ratio[:1]).all():                     # one table for all groups stays one table
            codes, bounds = codes[:1], None if bounds is None else bounds[:1]
        return Codebook(unit, codes, bounds)


Grid = Uniform | Codebook


def missed(x: Tensor, grid: Grid) -> Tensor:
    """The squared distance of each weight of x [G, n] to the nearest level: [G, n]."""
    return grid.nearest(x).mul_(grid.unit).sub_(x).square_()          # in place: what `nearest` makes is nobody else's


def snapped(centroids: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Centroids [..., K] as integers, the largest magnitude 127 (``bits`` 8): (codes float32, unit [..., 1])."""
    top = largest(bits)
    unit = over(centroids.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_UNIT * top), top)
    return (centroids / unit).round().float(), unit.float()


def fitted_integers(centroids: Tensor, points: Tensor, mass: Tensor, bits: int = 8,
                    candidates: int = 96) -> tuple[Tensor, Tensor]:
    """Centroids [K] as integers of at most ``bits`` bits on the unit of least squared error over weighted points:
    (codes float32 [K], unit [1]).

    points, mass [n], float64.  Tried are even fractions of the unit that puts the outermost centroid at the end of the
    range, down to a quarter of it, where the outermost saturate; for each the integers are the rounded means of what is
    nearest to them.  Never worse than `snapped` (it is the first candidate).  Source: our choice.
    """
    top = largest(bits)
    codes, unit = snapped(centroids, bits)
    whole = float(unit)

    def near(levels: Tensor) -> Tensor:
        return torch.searchsorted((levels[1:] + levels[:-1]) / 2, points, right=True)

    def error(levels: Tensor) -> float:
        return float((mass * (points - levels[near(levels)]).square()).sum())

    best, least = (codes, whole), error(codes.double() * whole)
    for k in range(candidates):
        step = whole * (1 - 0.75 * k / candidates)
        q = (centroids.double() / step).round().clamp_(-top, top)
        for _ in range(3):
            if (e := error(q * step)) < least:
                best, least = (q.float(), step), e
            at = near(q * step)
            weight = torch.zeros_like(q).index_add_(0, at, mass)
            mean = torch.zeros_like(q).index_add_(0, at, mass * points) / weight.clamp_min(1e-300)
            q = torch.where(weight > 0, (mean / step).round().clamp_(-top, top), q).sort().values
    return best[0], torch.full_like(unit, best[1])


# ------------------------------------------------------------------------------------------------------------ gradients

class _Exact(torch.autograd.Function):
    """Codes that are exact going forward and, going backward, stand for ``w_hat / unit`` with ``w_hat`` a function of
    weights and size.

    ``w_hat(x, size)`` is homogeneous of degree one (twice the weights and twice the size give twice the result), so its
    slopes obey ``x dw_hat/dx + size dw_hat/dsize = w_hat``: with ``slope = dw_hat/dx`` chosen, the gradient of the size
    follows. With slope 1 inside the clip and 0 outside this is LSQ's and PACT+'s formula; with the softmax's slope, the
    derivative of GQ's soft assignment. ``through``: the weights' own gradient passes as if the slope were 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, unit: Tensor, slope: Tensor | None, size: Tensor | None,
                factor: float, back: Any, through: bool, *shapes: Tensor) -> Tensor:
        learns = size is not None and size.requires_grad
        ctx.factor, ctx.back, ctx.through = factor, back, through
        ctx.save_for_backward(unit, slope, *((x, codes, size) if learns else (None, None, None)))
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        unit, slope, x, codes, size = ctx.saved_tensors
        gx = g / unit
        if slope is not None and not ctx.through:
            gx = gx * slope
        g_size = None
        if size is not None and ctx.needs_input_grad[4]:
            u = x / unit if slope is None else (x / unit) * slope
            g_size = (g * (codes - u)).sum(1) / size * ctx.factor
        g_shapes = ctx.back(g) if any(ctx.needs_input_grad[8:]) else (None,) * (len(ctx.needs_input_grad) - 8)
        return gx, None, None, None, g_size, None, None, None, *g_shapes


def exact(x: Tensor, codes: Tensor, unit: Tensor, slope: Tensor | None = None, size: Tensor | None = None,
          factor: float = 1.0, shapes: tuple[Tensor, ...] = (),
          back: Callable[[Tensor], tuple[Tensor, ...]] | None = None, through: bool = False) -> Tensor:
    """``codes``, exactly, with the gradient of ``w_hat / unit`` to the weights and to what is learned.

    x [G, n] weights      codes [G, n]      unit [G, 1]
    slope  d w_hat / d x, [G, n], bool or real; None: 1 everywhere
    size [G] the learned size (its gradient times ``factor``)
    shapes  what else is learned; back(gradient of the codes [G, n]) gives theirs
    through  the weights' gradient takes no notice of the slope, which then is only the learned size's
    The codes carry the whole gradient: a unit is a constant to whoever multiplies with it.
    """
    return _Exact.apply(x, codes, unit, slope, size, factor, back, through, *shapes)
