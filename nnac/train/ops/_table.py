"""What layers that are one look-up have in common."""

from __future__ import annotations

import numpy as np
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

    def table(self, out: Format) -> bind.Constants:
        """The node's constants."""
        return bind.lookup(table_operator(self.node.op).table(), out.scale)

    def slope(self, real: np.ndarray) -> np.ndarray | None:
        """The function's derivative at real numbers; None where it follows from the function's value, as a sigmoid's
        and a tanh's does."""
        return None

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c, x = self.table(out), ins[0]
        slope = self.slope(np.arange(-32768, 32768) * x.scale)
        return Constants(c, {}, dict(table=exact.table(c, table_operator(self.node.op).symmetry, x, out, self.device,
                                                       slope)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        y = exact.lookup(xs[0], self.constants_of_formats(ins, out, self.device).ready["table"])
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)
