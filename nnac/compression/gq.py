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


@method("weights")
@frozen
class Gq(WeightRule, Method):
    """GQ, a general quantiser without regulariser: soft assignment to self-adjusting centroids in mu-law space,
    annealed to hard.

    Source: Zhen et al., SLT 2022, arXiv 2210.09188.  Seen: softmax annealing, mu-law-constrained centroids, no
    regulariser, bit depth per kernel, quantisation frequency.  Reconstruction: the formulas (docs/methods.md §2); mu,
    schedule and frequency defaults are our choice.
    """

    granularity: ClassVar[str] = "tensor"
    codebook: ClassVar[bool] = True

    bits: int = argument("integer", low=1, high=8, positional=True, doc="width of an index: 2^bits centroids")
    space: Form = argument("form", default=MuLaw(), form="space", doc="space in which the centroids are uniform")
    anneal: Form = argument("form", default=Exponential(Change(2.0, 300.0)), form="anneal",
                            doc="inverse temperature of the soft assignment, per distance between centroids; hard when "
                            "it ends")
    frequency: int = argument("integer", default=1, low=1, high=100000,
                              doc="while soft, quantise on every n-th step only")
    snap: str = argument("choice", default="int8", choices=("int8", "int16"),
                         doc="integers that the centroids are rounded to")

    # ------------------------------------------------------------------------------------------------ behaviour
    # w_hat = size * C / 127, with C the snapped codes of F^-1(uniform) (one table for the kernel) and a learned size
    # for each group. Distances are measured in units of the region between the two bracketing centroids, so that one
    # temperature hardens narrow regions near zero and wide ones outside at the same time; in the limit that is the
    # nearest centroid, exactly.

    learned: ClassVar[tuple[str, ...]] = ("size", "curvature")
    steady: ClassVar[bool] = True

    def levels(self, pruned: bool) -> int:
        """2^bits; with pruning one fewer, so that zero is among them and an index still has ``bits`` bits (1 bit
        becomes ternary)."""
        k = 1 << self.bits
        return k if not pruned else max(3, k - 1)

    def table(self, curvature: Tensor, pruned: bool) -> tuple[Tensor, Tensor]:
        """The integers of the centroids, float32 [1, K], and their slope by ``curvature`` = ln mu, in the same unit."""
        import torch

        from nnac.compression._grids import largest

        top = largest(16 if self.snap == "int16" else 8)
        g = torch.linspace(-1, 1, self.levels(pruned), dtype=torch.float64, device=curvature.device)
        mu = curvature.detach().double().exp()
        space: Any = self.space
        slope = space.slope(g, mu) * top if space.learned else torch.zeros_like(g)
        return (space.expand(g, mu) * top).round().float()[None], slope.float()[None]

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        """Size of each group and one curvature for all, by least squared error over a search (our choice)."""
        import math

        import torch

        from nnac.compression._grids import SMALLEST_UNIT, Codebook

        top = x.abs().amax(1, keepdim=True).clamp_min(SMALLEST_UNIT * 127)
        sample = x if x.shape[1] <= 8192 else x[:, :: x.shape[1] // 8192]
        # rows that vote for the curvature
        keep = slice(None) if x.shape[0] <= 64 else slice(0, None, x.shape[0] // 64)

        def search(rows: Tensor, top: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
            codes, _ = self.table(curvature, live is not None)
            best, error = top.clone(), torch.full_like(top, math.inf)
            for k in range(24, 2, -1):
                size = top * (k / 24)
                grid = Codebook(size / codes.abs().max(), codes)
                e = (grid.nearest(rows) * grid.unit - rows).square().sum(1, keepdim=True)
                best, error = torch.where(e < error, size, best), torch.minimum(e, error)
            return best, error

        choices = [torch.tensor([math.log(mu)] if mu else [0.0], device=x.device)
                   for mu in self.space.candidates]  # type: ignore[attr-defined]
        errors = [search(sample[keep], top[keep], c)[1].sum()
                  for c in choices] if len(choices) > 1 else [torch.zeros(())]
        curvature = choices[min(range(len(choices)), key=lambda i: float(errors[i]))]
        return {"size": search(sample, top, curvature)[0][:, 0], "curvature": curvature}

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        from nnac.compression._grids import SMALLEST_UNIT, Codebook

        codes, _ = self.table(state["curvature"], live is not None)
        return Codebook((state["size"].detach().abs()[:, None] / codes.abs().max()).clamp_min(SMALLEST_UNIT), codes)

    def exact_at(self, clock: Any) -> bool:
        return self.anneal.value(clock) is None  # type: ignore[attr-defined]

    def codes(self, state: State, x: Tensor, grid: Any, bits: int, clock: Any | None) -> Tensor:
        from nnac.compression._grids import exact

        alpha = None if clock is None else self.anneal.value(clock)  # type: ignore[attr-defined]
        if alpha is not None and clock is not None and clock.step % self.frequency:
            return x / grid.unit                           # a step on the raw weights
        x0 = x.detach()
        codes, slope = (grid.nearest(x0), grid.inside(x0)) if alpha is None else bracketed(x0 / grid.unit, grid, alpha)
        shape = state["curvature"] if self.space.learned else None  # type: ignore[attr-defined]
        return exact(x, codes, grid.unit, slope, state["size"], shape=shape,
                     shape_gradient=self._sensitivity(state, codes, grid) if
                     shape is not None else None)

    def _sensitivity(self, state: State, codes: Tensor, grid: Any) -> Tensor:
        """How each code moves with the curvature, its assignment held: interpolated between the centroids'."""
        import torch

        _, slope = self.table(state["curvature"], grid.codes.shape[1] % 2 == 1)
        at = (torch.searchsorted(grid.codes[0].contiguous(), codes.detach(), right=True) - 1).clamp_(0,
            grid.codes.shape[1] - 2)
        low, high = grid.codes[0][at], grid.codes[0][at + 1]
        part = ((codes - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
        return slope[0][at] * (1 - part) + slope[0][at + 1] * part


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
