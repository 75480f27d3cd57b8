"""Which weights die: blocks, their scores, and the l1 problem of CSP.  Torch; imported only by functions that run.

A mask is bool [rows, cols], True where a weight lives.  Blocks are runs of ``block`` neighbours: ``inputs`` of one
output (a run in a row) or ``outputs`` of one input (a run in a column: as many as the machine has lanes make a whole
weight word, which is skipped).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class Blocks:
    """A matrix [rows, cols] cut into runs; a run at the end of a line may be shorter.

    gates  equal blocks of rows: a run of outputs then holds the same cells of all gates, as the machine's weight words
           do (a word of
    64 lanes is 16 cells x 4 gates), if ``block`` can be divided among them
    """

    rows: int
    cols: int
    block: int = 1
    along: str = "inputs"
    gates: int = 1

    @property
    def lines(self) -> tuple[int, int]:
        """(lines, length) of the matrix turned so that runs lie along lines."""
        return (self.rows, self.cols) if self.along == "inputs" else (self.cols, self.rows)

    @property
    def runs(self) -> int:
        return -(-self.lines[1] // self.block)

    @cached_property
    def order(self) -> Tensor | None:
        """The rows in the order in which runs take them; None: as they are."""
        cells, each = self.rows // self.gates, self.block // self.gates
        if self.along == "inputs" or self.gates == 1 or self.block % self.gates or self.rows % self.gates:
            return None
        rows = torch.arange(self.rows).view(self.gates, cells)
        return torch.cat([rows[:, first: first + each].reshape(-1) for first in range(0, cells, each)])

    def turn(self, w: Tensor) -> Tensor:
        """[rows, cols] with its runs along lines: [lines, length]."""
        if self.along == "inputs":
            return w
        return w.T if self.order is None else w[self.order.to(w.device)].T

    def back(self, turned: Tensor) -> Tensor:
        """[lines, length] as [rows, cols] again."""
        if self.along == "inputs":
            return turned
        return turned.T if self.order is None else turned.T[self.order.argsort().to(turned.device)]

    def sums(self, w: Tensor) -> Tensor:
        """The sum over each block, [lines, runs]."""
        lines, length = self.lines
        padded = torch.nn.functional.pad(self.turn(w), (0, self.runs * self.block - length))
        return padded.reshape(lines, self.runs, self.block).sum(-1)

    def sizes(self, like: Tensor) -> Tensor:
        """Weights in each block, [lines, runs]."""
        lines, length = self.lines
        size = torch.full((self.runs,), self.block, device=like.device)
        size[-1] = length - (self.runs - 1) * self.block
        return size.expand(lines, self.runs)

    def spread(self, live: Tensor) -> Tensor:
        """Blocks [lines, runs] as a mask [rows, cols]."""
        return self.back(live.repeat_interleave(self.block, 1)[:, : self.lines[1]]).contiguous()

    def lowest(self, scores: Tensor, mask: Tensor, share: float) -> Tensor:
        """The mask after killing the blocks of lowest score until ``share`` of all weights is dead, to within one
        block.

        scores [lines, runs]; blocks that are dead in ``mask`` stay dead: masks only ever shrink.  Equal scores die in
        order of place.
        """
        wanted = round(share * self.rows * self.cols)
        if self.block == 1:                                # all alike in size: a selection, thrice as fast as sorting
            turned = self.turn(mask)
            scores = torch.where(turned, scores, -1.0).reshape(-1)
            live = turned.reshape(-1).clone()
            if wanted:
                bound = scores.kthvalue(wanted).values
                live &= scores >= bound
                equal = (scores == bound).nonzero()[:, 0]
                live[equal[: wanted - int((scores < bound).sum())]] = False
            return self.back(live.view(self.lines)).contiguous() & mask
        alive = self.sums(mask.float()) > 0
        scores = torch.where(alive, scores.double(), -1.0).reshape(-1)
        order = scores.argsort(stable=True)
        dead_after = self.sizes(scores).reshape(-1)[order].cumsum(0)
        kill = int(torch.searchsorted(dead_after, torch.tensor(wanted, device=scores.device), right=True))
        live = alive.reshape(-1).clone()
        live[order[:kill]] = False
        return self.spread(live.view(self.lines[0], self.runs)) & mask


def means(v: Tensor, blocks: Blocks) -> Tensor:
    """The mean over each block, [lines, runs]."""
    return blocks.turn(v) if blocks.block == 1 else blocks.sums(v) / blocks.sizes(v)


def magnitudes(w: Tensor, blocks: Blocks) -> Tensor:
    """Mean |w| of each block."""
    return means(w.abs(), blocks)


def n_of_m(w: Tensor, n: int, m: int) -> Tensor:
    """The mask with the ``n`` largest of each run of ``m`` inputs; a shorter run at the end of a row keeps at most
    ``n``."""
    rows, cols = w.shape
    runs = -(-cols // m)
    padded = torch.nn.functional.pad(w.abs(), (0, runs * m - cols), value=-1.0).view(rows, runs, m)
    chosen = padded.argsort(dim=-1, descending=True, stable=True)[..., :n]
    return torch.zeros_like(padded, dtype=torch.bool).scatter_(-1, chosen, True).view(rows, -1)[:, :cols].contiguous()


# --------------------------------------------------------------------------------------------- compressed sensing (CSP)

def sensing_matrix(measurements: int, length: int, seed: int) -> Tensor:
    """Gaussian with columns of length one, float32 [measurements, length]; the same for a seed on every machine and
    device.  Columns of unlike length would decide themselves who lives (measured: survivors of a column follow its
    norm)."""
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randn(measurements, length, generator=generator, dtype=torch.float64)
    return (phi / phi.norm(dim=0).clamp_min(1e-30)).float()


def fresh_seed(seed: int, kernel: str, step: int) -> int:
    """The seed of what is drawn anew for each kernel and event."""
    return int(np.random.SeedSequence([seed, zlib.crc32(kernel.encode()), step]).generate_state(1)[0])


def shrink(v: Tensor, threshold: Tensor | float, block: int = 1) -> Tensor:
    """Soft threshold ``sgn(v) max(|v| - t, 0)``; for blocks the whole run shrinks by its root mean square (group
    l1)."""
    if block == 1:
        return v.sign() * (v.abs() - threshold).clamp_min(0)
    runs = v.reshape(v.shape[0], -1, block)
    size = runs.square().mean(-1, keepdim=True).sqrt()
    return (runs * (1 - threshold / size.clamp_min(1e-30)).clamp_min(0)).reshape(v.shape)


def sense(w: Tensor, phi: Tensor, strength: float, start: Tensor, iterations: int, block: int = 1,
          accelerate: bool = True) -> Tensor:
    """``argmin_x 1/2 |phi w - phi x|^2 + strength |x|_1`` for each row of ``w`` [N, d], by FISTA (or ISTA) from
    ``start``.

    phi [m, d].  For an orthonormal ``phi`` the first iteration is the answer: soft thresholding of ``w`` (tested).
    Source: background (Beck and Teboulle's FISTA); the role in CSP is docs/methods.md §4, a reconstruction.
    """
    gram = phi.T @ phi
    rate = 1.0 / float(torch.linalg.eigvalsh(gram.double())[-1])
    target = w @ gram
    x, ahead, momentum = start, start, 1.0
    for _ in range(iterations):
        new = shrink(torch.addmm(ahead + rate * target, ahead, gram, alpha=-rate), strength * rate, block)
        if accelerate:
            following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
            ahead = new + (momentum - 1) / following * (new - x)
            momentum = following
        else:
            ahead = new
        x = new
    return x


def sparse_code(w: Tensor, phi: Tensor, share: float, iterations: int, block: int = 1, accelerate: bool = True,
                strength: float | None = None) -> tuple[Tensor, float]:
    """The solution of ``sense`` of which ``share`` is zero, and its strength, found by bisection (in the logarithm,
    warm starts).

    w [N, d] with d a multiple of ``block``.  ``strength`` a first guess (that of the last event).  At most 12 trials,
    each from where the last one ended.  The share is met to 2 %, or as near as the trials came; ranking the answer
    makes it exact.
    """
    low, high = 1e-9, max(1e-8, float(w.abs().max()) * 4)
    trial = min(max(strength, low * 2), high / 2) if strength else (low * high) ** 0.5
    x, best = w, (float("inf"), w, trial)
    for _ in range(12):
        x = sense(w, phi, trial, x, iterations, block, accelerate)
        zeros = float((x == 0).float().mean())
        best = min(best, (abs(zeros - share), x, trial), key=lambda t: t[0])
        if best[0] < 0.02:
            break
        low, high = (low, trial) if zeros > share else (trial, high)
        near = 2.0 if strength else 16.0                   # from a good guess the answer is near
        trial = min(max((low * high) ** 0.5, trial / near), trial * near)
    return best[1], best[2]


def recovered(w: Tensor, gram: Tensor, keep: Callable[[Tensor], Tensor], iterations: int, refine: int,
              damp: float = 0.01) -> tuple[Tensor, Tensor]:
    """The sparse kernel whose output on the layer's own inputs is nearest to ``w``'s, and its mask: least
    ``E |(w - x) inputs|^2`` by iterative hard thresholding, then the living by conjugate gradients.

    w [rows, cols], gram ``E[x x^T]`` [cols, cols]     keep(energy [rows, cols]) -> mask of the strongest
    Measured in units of each input's root mean square, so that |w|^2 is what a weight's death costs to first order
    (Wanda's score); ``damp`` of it is added.  ``gram`` diagonal: the largest by that score, unchanged (tested).
    Source: background (iterative hard thresholding, Blumensath & Davies 2009; measurements that are the layer's inputs:
    Net-Trim, arXiv 1611.05162, by l1); its place in CSP: docs/methods.md §4, a reconstruction.
    """
    rms = gram.diagonal().clamp_min(1e-8 * float(gram.diagonal().mean()) + 1e-30).sqrt()
    g = gram / (rms[:, None] * rms)
    g = (g + damp * torch.eye(len(g), device=g.device)).float()
    rate = 1.0 / float(torch.linalg.eigvalsh(g.double())[-1])
    u = w.float() * rms
    pull = u @ g * rate
    mask = keep(u.square())
    x = u * mask
    for _ in range(iterations):
        z = torch.addmm(x + pull, x, g, alpha=-rate)
        mask = keep(z.square())
        x = z * mask
    residual = (pull / rate - x @ g) * mask                  # conjugate gradients on the support, every row for itself
    step, energy = residual.clone(), residual.square().sum(1, keepdim=True)
    for _ in range(refine):
        moved = (step @ g) * mask
        length = energy / (step * moved).sum(1, keepdim=True).clamp_min(1e-30)
        x.addcmul_(step, length)
        residual.addcmul_(moved, length, value=-1)
        now = residual.square().sum(1, keepdim=True)
        step = residual + step * (now / energy.clamp_min(1e-30))
        energy = now
    return x / rms, mask
