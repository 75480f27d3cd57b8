"""What layers that are one look-up have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import bind
from nnac.ops._table import table_operator
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State


class TableLayer(Layer):
    """Base of the functions that are read from a table."""

    device = torch.device("cpu")

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.lookup(table_operator(self.node.op).table(), out.scale)
        return Constants(
            c, {}, dict(table=exact.table(c, table_operator(self.node.op).symmetry, ins[0], out, self.device))
        )

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        y = exact.lookup(xs[0], self.constants_of_formats(ins, out, self.device).ready["table"])
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)
