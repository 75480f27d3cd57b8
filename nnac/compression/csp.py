"""CSP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression._masks import Event, OnInputs
from nnac.compression.base import argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Csp(OnInputs):
    """CSP: which weights live, and what they become, is decided by compressed sensing inside training, at every event
    anew.

    ``measurements=inputs``: the kernel is measured by its own inputs, and the sparse kernel is recovered that gives the
    same outputs; values adapt.  ``measurements=random``: random measurements of the weights and an l1 problem; the
    answer only chooses.
    Source: Zhen et al., ICASSP 2021, arXiv 2102.04932 (seen: compressed sensing inside training, sparsity against
    compression error). Reconstruction: what measures, solvers, blocks (docs/methods.md §4).  Measured at 75 % on the
    demo's LSTM kernels, at once: output error a quarter of magnitude's by inputs; by random measurements, of which half
    as many as weights recover nothing, more than magnitude's.
    """

    measurements: str = argument("choice", default="inputs", choices=("inputs", "random"),
                                 doc="what measures: the kernel's own inputs, as calibration saw them, or a random "
                                 "matrix, drawn anew for every kernel and event")
    iterations: int | None = argument("integer", default=None, low=1, high=10000, optional=True,
                                      doc="of the solver, at each event; none: 8 by inputs, 30 at random")
    refine: int = argument("integer", default=6, low=0, high=10000,
                           doc="by inputs: steps of conjugate gradients on the weights that live")
    rows: float = argument("fraction", default=0.5, low=0.01, high=8.0,
                           doc="at random: rows of the sensing matrix, as a share of its columns; far above 100% it is "
                           "magnitude pruning")
    columns: int = argument("integer", default=256, low=16, high=4096,
                            doc="at random: length of the vectors that are sensed")
    solver: str = argument("choice", default="fista", choices=("ista", "fista"), doc="at random: for the l1 problem")
    seed: int = argument("integer", default=0, low=0, high=2**31 - 1, doc="at random: of the sensing matrices")

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        other = {"inputs": ("rows", "columns", "solver", "seed"), "random": ("refine", "of")}[self.measurements]
        said = [n for n in other if getattr(self, n) != type(self).arguments()[n][1]]
        if said:
            raise ValueError(f"`{said[0]}` of `csp` says nothing with `measurements={self.measurements}`")

    @property
    def needs_inputs(self) -> bool:
        return self.measurements == "inputs"

    def prune(self, w: Tensor, mask: Tensor, event: Event) -> tuple[Tensor, Tensor]:
        if not self.needs_inputs:
            return w, self.choose(w, mask, event)
        import torch

        from nnac.compression._pruning import recovered

        share = self.share(event.clock)
        if share <= 0:
            return w, mask
        gram = torch.eye(w.shape[1], device=w.device) if event.gram is None else event.gram
        x, live = recovered(w * mask, gram, lambda energy: self.keep(energy, mask, share, event.gates),
                            8 if self.iterations is None else self.iterations, self.refine)
        return x, live

    def choose(self, w: Tensor, mask: Tensor, event: Event) -> Tensor:
        """At random: sense the weights in pieces of a row (or column), solve the l1 problem for the share wanted, keep
        the support.

        The answer ranks the blocks; where it is zero, |w| does (below all others), so that the share is met to within
        one block.
        """
        import torch

        from nnac.compression._pruning import fresh_seed, magnitudes, sensing_matrix, sparse_code

        blocks, share = self.blocks(w, event.gates), self.share(event.clock)
        if share <= 0:
            return mask
        lines, length = blocks.lines
        d = min(self.columns, length) // self.block * self.block or self.block
        pieces = -(-length // d)
        turned = torch.nn.functional.pad(blocks.turn((w * mask).float()), (0, pieces * d - length)).reshape(-1, d)
        phi = sensing_matrix(max(1, round(self.rows * d)), d,
                             fresh_seed(self.seed, event.kernel, event.clock.step)).to(w.device)
        padding = 1 - lines * length / turned.numel()      # zeros that are none of ours
        code, strength = sparse_code(turned, phi, padding + share * (1 - padding), self.iterations or 30, self.block,
                                     self.solver == "fista", float(event.memory[0]) or None)
        event.memory[0] = strength
        code = blocks.back(code.reshape(lines, -1)[:, :length])
        scores = magnitudes(code, blocks)
        weak = magnitudes(w * mask, blocks)
        smallest = scores[scores > 0].min() if (scores > 0).any() else scores.new_ones(())
        return blocks.lowest(torch.where(scores > 0, scores, weak / weak.max().clamp_min(1e-30) * smallest * 0.5), mask,
                             share)
