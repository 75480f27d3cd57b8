"""GQ, a general quantiser without regulariser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._forms import Exponential, MuLaw
from nnac.compression._weights import State, WeightRule
from nnac.compression.base import Form, Method, argument, method
from nnac.units import Change

if TYPE_CHECKING:
    from torch import Tensor

    from nnac.compression._grids import Codebook

PLAY = 0.45                    # how far a centroid may leave its place in companded space, of the distance to the next
GAIN = 4.0                     # of the parameter that moves it: its whole way is a few hundred steps of a usual rate


@method("weights")
@frozen
class Gq(WeightRule, Method):
    """GQ, a general quantiser without regulariser: soft assignment to self-adjusting centroids in mu-law space,
    annealed to hard.

    The inverse temperature ends where every weight between the outermost centroids still has a slope of 0.147 or more
    (4 per distance between centroids); then the assignment is hard, and its gradient passes straight through, also
    beyond the outermost, where the largest weights would stand still (4 bits, 200 steps, one seed: 6.20 % of words
    wrong with them still, 6.04 without).  Colder, weights freeze where they are (measured: at 10 half of them).
    Source: Zhen et al., SLT 2022, arXiv 2210.09188.  Seen: softmax annealing, mu-law-constrained centroids, no
    regulariser, bit depth per kernel, quantisation frequency.  Reconstruction: the formulas (docs/methods.md §2); mu,
    schedule and frequency defaults are our choice.
    """

    granularity: ClassVar[str] = "tensor"
    codebook: ClassVar[bool] = True

    bits: int = argument("integer", low=1, high=8, positional=True, doc="width of an index: 2^bits centroids")
    space: Form = argument("form", default=MuLaw(), form="space", doc="space in which the centroids are uniform")
    anneal: Form = argument("form", default=Exponential(Change(1.0, 4.0)), form="anneal",
                            doc="inverse temperature of the soft assignment, per distance between centroids; hard when "
                            "it ends")
    frequency: int = argument("integer", default=1, low=1, high=100000,
                              doc="while soft, quantise on every n-th step only")
    snap: str = argument("choice", default="int8", choices=("int8", "int16"),
                         doc="integers that the centroids are rounded to")

    # ------------------------------------------------------------------------------------------------ behaviour
    # w_hat = size * C / 127, with C the snapped codes of F^-1(uniform + offsets) (one table for the kernel) and a
    # learned size for each group. Distances are measured in units of the region between the two bracketing centroids,
    # so that one temperature hardens narrow regions near zero and wide ones outside at the same time; in the limit that
    # is the nearest centroid, exactly.

    learned: ClassVar[tuple[str, ...]] = ("size", "curvature", "offsets")
    steady: ClassVar[bool] = True

    @property
    def top(self) -> int:
        """The largest integer of a centroid."""
        return 32767 if self.snap == "int16" else 127

    def levels(self, pruned: bool) -> int:
        """2^bits; with pruning one fewer, so that zero is among them and an index still has ``bits`` bits (1 bit
        becomes ternary)."""
        k = 1 << self.bits
        return k if not pruned else max(3, k - 1)

    def centroids(self, curvature: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The centroids before they are integers, in units of the size, and their slopes by ``curvature`` = ln mu and
        by their own offset: float64 [K] each.

        Centroid k stands at ``F^-1(g_k + d_k)``, g uniform in [-1, 1], ``d = PLAY * distance * tanh(GAIN * offset)``,
        never beyond +-1: centroids move, but stay in order and within the space.  Of an odd number the middle one is
        zero and stays.
        """
        import torch

        k, space = len(offsets), self.space
        g = torch.linspace(-1, 1, k, dtype=torch.float64, device=curvature.device)
        mu = curvature.detach().double().exp()
        if not space.learned:  # type: ignore[attr-defined]
            zero = torch.zeros_like(g)
            return space.expand(g, mu), zero, zero  # type: ignore[attr-defined]
        bend = (GAIN * offsets.detach().double()).tanh()
        if k % 2:
            bend[k // 2] = 0.0
        reach = PLAY * 2 / (k - 1)
        at = g + reach * bend
        free = at.abs() <= 1
        if k % 2:
            free[k // 2] = False
        at = at.clamp(-1, 1)
        moved = space.rise(at, mu) * (reach * GAIN * (1 - bend.square())) * free  # type: ignore[attr-defined]
        return space.expand(at, mu), space.slope(at, mu), moved  # type: ignore[attr-defined]

    def table(self, curvature: Tensor, offsets: Tensor) -> Tensor:
        """The integers of the centroids, float32 [1, K]."""
        return (self.centroids(curvature, offsets)[0] * self.top).round().float()[None]

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        """Size of each group and one curvature for all, by least squared error over a search of sizes after which what
        is left free is fitted (our choice).  At one bit that is ``E|w|``, the optimum."""
        import math

        import torch

        from nnac.compression._grids import SMALLEST_UNIT, missed

        top = x.abs().amax(1, keepdim=True).clamp_min(SMALLEST_UNIT * 127)
        sample = x if x.shape[1] <= 1 << 15 else x[:, :: x.shape[1] >> 15]
        # rows that vote for the curvature
        keep = slice(None) if x.shape[0] <= 64 else slice(0, None, x.shape[0] // 64)
        offsets = x.new_zeros(self.levels(live is not None))
        choices = [torch.tensor([math.log(mu)] if mu else [0.0], device=x.device)
                   for mu in self.space.candidates]  # type: ignore[attr-defined]

        def error(curvature: Tensor) -> float:
            rows = sample[keep]
            size = self.searched(rows, top[keep], self.table(curvature, offsets))
            size, bent = self.fitted(rows, size, curvature, offsets)
            return float(missed(rows, self.on(size, self.table(curvature, bent))).sum())

        curvature = min(choices, key=error) if len(choices) > 1 else choices[0]
        size = self.searched(sample, top, self.table(curvature, offsets))
        size, offsets = self.fitted(x, size, curvature, offsets)
        return {"size": size[:, 0], "curvature": curvature, "offsets": offsets}

    def on(self, size: Tensor, table: Tensor) -> Codebook:
        """A table at the ``size`` [G, 1] of each row."""
        from nnac.compression._grids import SMALLEST_UNIT, Codebook

        return Codebook((size / self.top).clamp_min(SMALLEST_UNIT), table)

    def searched(self, x: Tensor, top: Tensor, table: Tensor) -> Tensor:
        """The size of least squared error of each row of x [G, n], of 22 parts of ``top``: [G, 1]."""
        import torch

        from nnac.compression._grids import missed

        best, least = top, torch.full_like(top, torch.inf)
        for k in range(24, 2, -1):
            size = top * (k / 24)
            error = missed(x, self.on(size, table)).sum(1, keepdim=True)
            best, least = torch.where(error < least, size, best), torch.minimum(error, least)
        return best

    def fitted(self, x: Tensor, size: Tensor, curvature: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """(size [G, 1], offsets [K]) of smaller squared error for x [G, n]: each size by least squares for what is
        nearest to its centroids and, where they are learned, each centroid to the mean of what is nearest to it, as far
        as its play goes, until nothing changes, or 24 times."""
        import torch

        from nnac.compression._grids import SMALLEST_UNIT

        for _ in range(24):
            table = self.table(curvature, offsets)
            q = self.on(size, table).nearest(x)
            power = q.square().sum(1, keepdim=True)
            better = torch.where(power > 0, self.top * (x * q).sum(1, keepdim=True) / power.clamp_min(1), size)
            better = better.clamp_min(SMALLEST_UNIT * 127)
            moved = offsets
            if self.space.learned and len(offsets) > 2:    # type: ignore[attr-defined]  # of two, the size says it all
                moved = self.towards(centres(x, q, better / self.top, table[0]) / self.top, curvature, offsets)
            if torch.equal(better, size) and torch.equal(moved, offsets):
                break
            size, offsets = better, moved
        return size, offsets

    def towards(self, centroids: Tensor, curvature: Tensor, offsets: Tensor) -> Tensor:
        """The offsets [K] at which the centroids stand at ``centroids`` [K], in units of the size, NaN: where they are;
        or as near as nine tenths of their play goes, so that training can still move them."""
        import torch

        k, mu = len(offsets), curvature.double().exp()
        g = torch.linspace(-1, 1, k, dtype=torch.float64, device=offsets.device)
        at = self.space.compress(centroids.double().clamp(-1, 1), mu)  # type: ignore[attr-defined]
        bend = ((at - g) / (PLAY * 2 / (k - 1))).clamp(-0.9, 0.9)
        return torch.where(bend.isnan(), offsets.double(), bend.atanh() / GAIN).to(offsets.dtype)

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        return self.on(state["size"].detach().abs()[:, None], self.table(state["curvature"], state["offsets"]))

    def exact_at(self, clock: Any) -> bool:
        return self.anneal.value(clock) is None  # type: ignore[attr-defined]

    def codes(self, state: State, x: Tensor, grid: Any, bits: int, clock: Any | None) -> Tensor:
        from nnac.compression._grids import exact

        alpha = None if clock is None else self.anneal.value(clock)  # type: ignore[attr-defined]
        if alpha is not None and clock is not None and clock.step % self.frequency:
            return x / grid.unit                           # a step on the raw weights
        x0 = x.detach()
        u = x0 / grid.unit
        if alpha is None:
            codes, slope = grid.nearest(x0), grid.inside(x0)
        else:
            codes, slope = bracketed(u, grid, alpha)
        # as LSQ's: what one parameter gathers from thousands of weights would take the whole of a clipped gradient
        factor = (x.shape[1] * grid.codes.shape[1]) ** -0.5
        if not self.space.learned:  # type: ignore[attr-defined]
            return exact(x, codes, grid.unit, slope, state["size"], factor, through=alpha is None)

        def back(g: Tensor) -> tuple[Tensor, Tensor]:
            own_unit = state["size"].detach().abs()[:, None] / self.top
            by_level = moved_by(g * (own_unit / grid.unit), u, codes, slope if alpha is not None else None, grid)
            by_level *= factor * x.shape[0] ** -0.5
            _, curve, own = self.centroids(state["curvature"], state["offsets"])
            return ((by_level * curve).sum().reshape(1).float() * self.top, (by_level * own).float() * self.top)

        return exact(x, codes, grid.unit, slope, state["size"], factor, (state["curvature"], state["offsets"]), back,
                     through=alpha is None)


def centres(x: Tensor, q: Tensor, unit: Tensor, codes: Tensor) -> Tensor:
    """For each of ``codes`` [K] the value, in units [G, 1], of least squared error for the weights x [G, n] whose code
    q [G, n] is that: float64 [K], NaN where there are none."""
    import torch

    at = torch.searchsorted(codes.contiguous(), q).reshape(-1)
    square = unit.double().square().expand_as(x)
    total = torch.bincount(at, (x * unit).double().reshape(-1), len(codes))
    return total / torch.bincount(at, square.reshape(-1), len(codes))


def moved_by(g: Tensor, u: Tensor, codes: Tensor, slope: Tensor | None, grid: Any) -> Tensor:
    """The gradient by each level of the table, float64 [K], of ``sum(g * codes)``; ``slope`` = d codes / d u [G, n];
    None: the assignment is hard.

    A soft code between two levels is ``low + (high - low) s(t)``, t the place between them, so its derivatives are
    ``(1 - s) - s' (1 - t)`` by the lower and ``s - s' t`` by the upper; beyond the outermost it is that one.  A hard
    code moves as the level that it is.
    """
    import torch

    from nnac.compression._grids import places

    k = grid.codes.shape[1]
    if slope is None and grid.is_small:
        return torch.bincount(grid.level_of(codes, u).reshape(-1), g.reshape(-1).double(), k)
    low, high = grid.bracket(u)
    at = (places(grid.codes.contiguous(), u) - 1).clamp_(0, max(0, k - 2))
    width = (high - low).clamp_min(1e-6)
    t, s = ((u - low) / width).clamp(0, 1), ((codes - low) / width).clamp(0, 1)
    to_low, to_high = (1 - s, s) if slope is None else ((1 - s) - slope * (1 - t), s - slope * t)
    out = torch.zeros(k, dtype=torch.float64, device=g.device)
    out += torch.bincount(at.reshape(-1), (g * to_low).reshape(-1).double(), k)
    if k > 1:
        out += torch.bincount((at + 1).reshape(-1), (g * to_high).reshape(-1).double(), k)
    return out


def bracketed(u: Tensor, grid: Any, alpha: float) -> tuple[Tensor, Tensor]:
    """Soft assignment to the two bracketing centroids: (soft codes, their slope by u), both [G, n].

    Softmax of ``-alpha |u - c| / (c_{j+1} - c_j)`` over c_j and c_{j+1}, stretched so that a weight on a centroid
    stays: ``p = (1 + tanh(a (2 t - 1)) / tanh(a)) / 2`` with a = alpha / 2 and t the place between them.  Continuous;
    the raw weights for alpha -> 0, the nearest centroid for alpha -> infinity.  ``soft`` is the oracle over all
    centroids: the larger alpha, the better they agree (tested).
    Source: reconstruction (docs/methods.md §2); two centroids instead of all, for memory, and the stretch are our
    choice.
    """
    import math

    low, high = grid.bracket(u)
    width, a = (high - low).clamp_min(1e-6), alpha / 2
    t = (u - low) / width
    bend = ((t.clamp(0, 1) * 2 - 1) * a).tanh()
    slope = (1 - bend.square()) * (a / math.tanh(a)) * ((t >= 0) & (t <= 1))
    return low + width * (0.5 + bend * (0.5 / math.tanh(a))), slope


def soft(u: Tensor, codes: Tensor, alpha: float) -> Tensor:
    """Soft assignment to all centroids, K times the memory: ``sum_k c_k softmax_k(-alpha |t - k|)``.

    u any shape; codes [K] strictly increasing; t is the place of u among the centroids: k at centroid k, linear
    between.  The oracle of ``bracketed``.
    """
    import torch

    at = (torch.searchsorted(codes, u, right=True) - 1).clamp(0, len(codes) - 2)
    t = (at + (u - codes[at]) / (codes[at + 1] - codes[at])).clamp(0, len(codes) - 1)
    distance = (t[..., None] - torch.arange(len(codes), device=u.device)).abs()
    return ((-alpha * distance).softmax(-1) * codes).sum(-1)
