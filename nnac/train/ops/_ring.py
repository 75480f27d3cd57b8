"""What layers that remember the vectors of some time have in common."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from nnac.attributes import record
from nnac.ops import operator
from nnac.ops._ring import RingAttributes, RingOperator
from nnac.train.ops import Layer, State


class RingLayer(Layer):
    """Base: the rows that each step sees, with their gradients, as integers or as real numbers."""

    def windows(self, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """See `nnac.ops._ring.RingOperator.windows`; of a sequence that ends within a chunk only whole chunks."""
        a = record(self.node.attributes, RingAttributes)
        made, known = cast(RingOperator, operator(self.node.op)).windows(self.node.path, x, state, a.slots, a.chunk)
        return made, known

    def history(self, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """See `nnac.ops._ring.RingOperator.history`."""
        a = record(self.node.attributes, RingAttributes)
        made, known = cast(RingOperator, operator(self.node.op)).history(self.node.path, x, state, a.slots, a.chunk)
        return made, known
