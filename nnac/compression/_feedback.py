"""Error feedback: what one column of a matrix loses is put right by the columns that follow.  Torch; imported only by
functions that run.

A kernel [rows, cols] multiplies inputs x with ``gram = E[x x^T]`` [cols, cols].  Changing it by d costs
``sum_rows d gram d^T`` of its output's energy; settle one column, and the least cost of the rest is met by moving the
columns that are still free by ``-e / U_jj * U_j,free``, U the upper Cholesky factor of the inverse of ``gram``.
Source: background (Optimal Brain Surgeon, Hassibi & Stork 1993; GPTQ, arXiv 2210.17323; SparseGPT, arXiv 2301.00774).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 64     # columns that are settled before the rest is moved: for speed only


def damped(gram: Tensor, damp: float) -> Tensor:
    """``gram`` in float64 with ``damp`` times its mean diagonal added to the diagonal: positive definite."""
    g = gram.double()
    mean = g.diagonal().mean()
    return g + damp * mean * torch.eye(len(g), dtype=g.dtype, device=g.device)


def output_error(change: Tensor, gram: Tensor) -> Tensor:
    """Energy of the output that ``change`` [rows, cols] of a kernel makes: ``E |change x|^2``, a scalar."""
    return ((change.double() @ gram.double()) * change).sum()


def fed_back(w: Tensor, gram: Tensor, damp: float, settle: Callable[[Tensor, int], Tensor],
             block: Callable[[Tensor, Tensor, Tensor], None] | None = None, by_energy: bool = True,
             width: int = BLOCK) -> Tensor:
    """``w`` [rows, cols] with every column settled and its error fed to those that follow.

    settle(column [rows], its number) -> what it becomes        gram  [cols, cols], not zero
    block(columns [rows, b], their numbers [b], U_jj [b])  called before the columns of a block of ``width`` are settled
    by_energy  columns of strong inputs first: they have the most followers to put them right (our choice, as GPTQ's
               ``act_order``); False: in their own order
    """
    order = gram.diagonal().argsort(descending=True, stable=True) if by_energy else torch.arange(len(gram),
                                                                                                device=gram.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(gram, damp)[order][:, order]))
    u = torch.linalg.cholesky(inverse, upper=True).float()
    rest, out = w.float()[:, order], torch.empty_like(w, dtype=torch.float32)
    numbers = order.tolist()
    for first in range(0, len(numbers), width):
        last = min(first + width, len(numbers))
        part, errors = rest[:, first:last].clone(), torch.empty_like(rest[:, first:last])
        if block is not None:
            block(part, order[first:last], u.diagonal()[first:last])
        for j in range(first, last):
            column = part[:, j - first]
            settled = settle(column, numbers[j])
            out[:, numbers[j]] = settled
            errors[:, j - first] = error = (column - settled) / u[j, j]
            part[:, j - first + 1:].addr_(error, u[j, j + 1: last], alpha=-1)
        rest[:, last:].addmm_(errors, u[first:last, last:], alpha=-1)
    return out
