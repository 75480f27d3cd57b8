"""CSP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.compression._masks import SparsityRule
from nnac.compression.base import Method, argument, method
from nnac.units import Moment

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Csp(SparsityRule, Method):
    """CSP: which weights live is decided by compressed sensing, an l1 problem on random measurements of the weights.

    Source: Zhen et al., ICASSP 2021, arXiv 2102.04932 (seen: compressed sensing inside training, sparsity against
    compression error). Reconstruction: Gaussian measurements, ISTA or FISTA, target by bisection, blocks
    (docs/methods.md §4).  Measured: trained weights are not sparse enough to be recovered from half as many
    measurements, so one choice at once keeps 44 to 54 % of the energy of a kernel of the trained RNN-T at 75 %
    sparsity, magnitude 73 to 77 %, measurements of 400 % 67 to 72 %.  In a dozen events while training goes on most of
    that is made good (RESULTS.md).
    """

    target: float = argument("fraction", low=0.0, high=0.999, positional=True, doc="share of weights that become zero")
    from_: Moment = argument("moment", default=Moment(0.0), doc="first pruning event")
    to: Moment = argument("moment", default=Moment(0.5, "training"), doc="moment at which the target is reached")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again in between")
    block: int = argument("integer", default=1, low=1, high=256, doc="neighbouring weights that live or die together")
    along: str = argument("choice", default="inputs", choices=("inputs", "outputs"),
                          doc="neighbours: `inputs` of one output (fewer bytes), `outputs` of one input (a block of "
                          "all lanes is skipped)")
    measurements: float = argument("fraction", default=0.5, low=0.01, high=8.0,
                                   doc="rows of the sensing matrix, as a share of its columns; far above 100% it is "
                                   "magnitude pruning")
    columns: int = argument("integer", default=256, low=16, high=4096, doc="length of the vectors that are sensed")
    solver: str = argument("choice", default="fista", choices=("ista", "fista"), doc="iteration for the l1 problem")
    iterations: int = argument("integer", default=30, low=1, high=10000, doc="of the solver, at each event")
    seed: int = argument("integer", default=0, low=0, high=2**31 - 1, doc="of the sensing matrix")

    def choose(self, w: Tensor, mask: Tensor, clock: Any, memory: Tensor, gates: int = 1) -> Tensor:
        """Sense the weights in pieces of a row (or column), solve the l1 problem for the share wanted, keep the
        support.

        The answer ranks the blocks; where it is zero, |w| does (below all others), so that the share is met to within
        one block.
        """
        import torch

        from nnac.compression._pruning import Blocks, magnitudes, sensing_matrix, sparse_code

        blocks, share = Blocks(w.shape[0], w.shape[1], self.block, self.along, gates), self.share(clock)
        if share <= 0:
            return mask
        lines, length = blocks.lines
        d = min(self.columns, length) // self.block * self.block or self.block
        pieces = -(-length // d)
        turned = torch.nn.functional.pad(blocks.turn((w * mask).float()), (0, pieces * d - length)).reshape(-1, d)
        phi = sensing_matrix(max(1, round(self.measurements * d)), d, self.seed).to(w.device)
        padding = 1 - lines * length / turned.numel()      # zeros that are none of ours
        code, strength = sparse_code(turned, phi, padding + share * (1 - padding), self.iterations, self.block,
                                     self.solver == "fista",
                                     float(memory[0]) or None)
        memory[0] = strength
        code = blocks.back(code.reshape(lines, -1)[:, :length])
        scores = magnitudes(code, blocks)
        weak = magnitudes(w * mask, blocks)
        smallest = scores[scores > 0].min() if (scores > 0).any() else scores.new_ones(())
        return blocks.lowest(torch.where(scores > 0, scores, weak / weak.max().clamp_min(1e-30) * smallest * 0.5), mask,
                             share)
