"""Learned clips for activations: the PACT family as one function of two clips.  Torch; imported only by functions that
run.

The training module computes the same on integers (`nnac.train.activation`); these are the formulas on real numbers,
with the published gradients: fake quantisation of a float network, and the oracle of the integer path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, levels: int, plus: bool) -> Tensor:
        step = (high - low) / levels
        z = (x - low) / step
        q = (z + 0.5).floor().clamp(0, levels)
        ctx.save_for_backward(z, q)
        ctx.levels, ctx.plus = levels, plus
        return low + step * q

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, q = ctx.saved_tensors
        below, above = z < 0, z > ctx.levels
        inside = ~(below | above)
        rounding = (q - z) / ctx.levels * inside if ctx.plus else torch.zeros_like(z)
        return g * inside, (g * (below.to(g) - rounding)).sum(), (g * (above.to(g) + rounding)).sum(), None, None


def clipped(x: Tensor, low: Tensor, high: Tensor, levels: int, plus: bool = True) -> Tensor:
    """``x`` rounded to the nearest of ``levels + 1`` equally spaced values from ``low`` to ``high``; ties up.

    x any shape, real      low < high, scalars, either may be learned
    Gradients: ``dy/dx`` = 1 inside, 0 outside; ``dy/dhigh`` = 1 above, ``dy/dlow`` = 1 below; with ``plus`` the
    rounding term inside, ``+-(round(z) - z) / levels`` with z in levels.  Source: PACT and FMS-MO's PACT+
    (docs/methods.md §6).
    """
    return _Clipped.apply(x, low, high, levels, plus)
