"""The plain weight quantiser: one scale a row, from the row's largest magnitude.  Used where no plan says otherwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w: Tensor, scale: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(scale)
        return (w / scale[:, None]).add_(0.5).floor_().clamp_(-limit, limit)

    @staticmethod
    def backward(ctx, g: Tensor):
        scale, = ctx.saved_tensors
        return g / scale[:, None], None, None


class MinMaxQuantiser(nn.Module):
    """``forward(w [rows, cols]) -> (codes float32 [rows, cols], scale float32 [rows])``; w_hat = codes * scale.  Straight-through."""

    exact = True

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        limit = float((1 << (self.bits - 1)) - 1)
        scale = (w.detach().abs().amax(1) / limit).clamp_(min=1e-9)
        return _Round.apply(w, scale, limit), scale

    def regulariser(self, w: Tensor) -> Tensor:
        return w.new_zeros(())

    def on_step(self, step: int, w: Tensor) -> None:
        """Nothing changes over time."""

    def describe(self) -> str:
        return f"int{self.bits} per_channel minmax"
