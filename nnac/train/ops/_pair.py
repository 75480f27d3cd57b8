"""What layers of two values have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State


class Pair(Layer):
    """Base: two symmetric values, which may broadcast."""

    device = torch.device("cpu")

    def combined(self, xs: list[Tensor], scales: tuple[float, float], c: Constants, out: Format) -> Tensor:
        """The integers."""
        raise NotImplementedError

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        y = self.combined(xs, (ins[0].scale, ins[1].scale), self.constants_of_formats(ins, out, self.device), out)
        return learned(
            y,
            out,
            lambda: (
                self.reals([exact.dequantise(x, f) for x, f in zip(xs, ins, strict=True)], state, lengths) / out.scale
            ),
        )
