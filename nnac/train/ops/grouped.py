"""A matrix of blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.grouped import GroupedAttributes
from nnac.train.ops.linear import Linear


class Grouped(Linear):
    """See `nnac.ops.grouped`: outside the blocks there is no gradient."""

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        a = record(node.attributes, GroupedAttributes)
        inside = blocks(self.width, self.widths[0], a.taps, a.groups)
        with torch.no_grad():
            self.weight.mul_(inside)
        self.weight.register_hook(lambda gradient: gradient * inside.to(gradient))


def blocks(rows: int, columns: int, taps: int, groups: int) -> Tensor:
    """Which weights [rows, columns] there are."""
    inputs, outputs = columns // taps // groups, rows // groups
    of_row = torch.arange(rows)[:, None] // outputs
    of_column = torch.arange(columns)[None] % (columns // taps) // inputs
    return of_row == of_column
