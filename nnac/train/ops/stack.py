"""Frames joined: no arithmetic."""

from __future__ import annotations

from torch import Tensor

from nnac.attributes import record
from nnac.ops.stack import StackAttributes
from nnac.train.format import Format
from nnac.train.ops import Layer, State


class Stack(Layer):
    """See `nnac.ops.stack`."""

    def lengths(self, lengths: Tensor) -> Tensor:
        return lengths // record(self.node.attributes, StackAttributes).frames

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        k, x = record(self.node.attributes, StackAttributes).frames, xs[0]
        steps = x.shape[0] // k
        return x[: steps * k].unflatten(0, (steps, k)).transpose(1, 2).flatten(2)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        return self.reals(xs, state, lengths)
