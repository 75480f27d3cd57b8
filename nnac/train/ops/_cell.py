"""A layer whose state has a cell: what calibration sees of it, and the fraction bits that it has.

They are the policy's, or with `cell int16 auto` those that calibration chooses; then they are a buffer of the layer,
so that a checkpoint keeps them, and the layer is uncalibrated until they are chosen.
Source: our choice.  A cell grows by at most one a step and nothing clips it, so unlike an activation it has no
outliers to cut: `auto` holds whatever was seen, with `ROOM` for what was not, and for training, which moves it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from nnac.ir import Node, QGraph
from nnac.train.activation import UncalibratedError
from nnac.train.ops import Layer

BITS = 16
LEAST, MOST = 1, 14                    # fraction bits to choose among: +-16384 to +-2
ROOM = 1.25                            # times the largest cell seen


@frozen
class Cells:
    """What calibration saw: how many cells lie beyond what the format holds, how many there were, and the largest
    magnitude."""

    beyond: int = 0
    seen: int = 0
    largest: float = 0.0

    @property
    def share(self) -> float:
        """The share that saturates."""
        return self.beyond / max(self.seen, 1)

    @property
    def fraction(self) -> int | None:
        """The most fraction bits that hold the largest; None: none do."""
        return None if self.largest > 2.0 ** (BITS - 1 - LEAST) else holding(self.largest)

    def with_others(self) -> Cells:
        """Merged with what the other processes of the default group saw, if there are any."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self
        counts = torch.tensor([self.beyond, self.seen])
        largest = torch.tensor(self.largest, dtype=torch.float64)
        torch.distributed.all_reduce(counts)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return Cells(int(counts[0]), int(counts[1]), float(largest))


def holding(largest: float) -> int:
    """The most fraction bits with which a cell of 16 bits holds the magnitude ``largest``."""
    return min(max(BITS - 1 - math.ceil(math.log2(max(largest, 2.0**-BITS))), LEAST), MOST)


class Looking(Layer):
    """A layer that chooses formats of its own while calibration looks: ``looked`` is what is seen, None while nobody
    looks."""

    looked: Cells | None = None

    def settle_cell(self, alike: bool) -> Cells | None:
        """The end of looking, which chooses what is to be chosen; what was seen, None if nothing."""
        raise NotImplementedError

    def saturation(self, seen: Cells) -> str:
        """What saturates and what would hold it, in words; "" where nothing does."""
        raise NotImplementedError


class Celled(Looking):
    """A layer with a cell.  ``looked`` is what is seen of it while calibration looks; None: it does not."""

    cell_fraction: Tensor
    cell_share: Tensor

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.looked: Cells | None = None
        if self.chooses:
            self.register_buffer("cell_fraction", torch.zeros((), dtype=torch.int64))
            self.register_buffer("cell_share", torch.zeros((), dtype=torch.float64))

    @property
    def chooses(self) -> bool:
        """Whether calibration chooses the fraction."""
        return self.node.attributes["fraction"] == 0

    @property
    def fraction(self) -> int:
        """Fraction bits of the cell.  UncalibratedError while there are none."""
        said = int(self.cell_fraction) if self.chooses else self.node.attributes["fraction"]
        if said == 0:
            raise UncalibratedError(f"the cell of `{self.node.path}` has no fraction yet (`cell int16 auto`): run "
                                    f"calibrate() on real data, or load a checkpoint that has one")
        return said

    def state_scale(self, name: str) -> float:
        """The real value of one in the cell."""
        return 2.0**-self.fraction

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
                              strict: bool, missing: list[str], unexpected: list[str], errors: list[str]) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        if self.chooses and not 0 <= int(self.cell_fraction) < BITS:
            errors.append(f"the cell of `{self.node.path}` cannot have {int(self.cell_fraction)} fraction bits")
            self.cell_fraction.zero_()

    def look(self, cells: Tensor, live: Tensor | None = None) -> None:
        """While calibration looks: count ``cells`` [B, H], real, of the rows that are ``live``."""
        if self.looked is None:
            return
        size = (cells if live is None else cells[live]).abs()
        if size.numel():
            bound = 2.0 ** (BITS - 1 - (LEAST if self.chooses else self.fraction))
            self.looked = Cells(self.looked.beyond + int((size > bound).sum()), self.looked.seen + size.numel(),
                                max(self.looked.largest, float(size.max())))

    def settle_cell(self, alike: bool) -> Cells | None:
        """The end of looking, which chooses the fraction where it is to be chosen; what was seen, None if nothing."""
        assert self.looked is not None, "nobody looked"
        seen, self.looked = self.looked if alike else self.looked.with_others(), None
        if not seen.seen:
            return None
        if self.chooses:
            self.cell_fraction.fill_(holding(ROOM * seen.largest))
            self.cell_share.fill_(seen.share)
        return seen

    def saturation(self, seen: Cells) -> str:
        """What saturates and what would hold it, in words; "" where nothing does."""
        if not seen.beyond:
            return ""
        mend = (f"`fraction({seen.fraction})` would hold them" if seen.fraction is not None else
                f"no fraction holds them (`fraction({LEAST})` reaches +-{1 << (BITS - 1 - LEAST)}): bring down what it "
                f"adds up, or let it forget")
        return (f"{100 * seen.share:.2g} % of the cells of `{self.node.path}` ({seen.beyond:,} of {seen.seen:,}, the "
                f"largest {seen.largest:.3g}) saturate under `cell int16 fraction({self.fraction})`: {mend}")

    def bound(self, node: Node) -> Node:
        if not self.chooses:
            return node
        states = tuple(evolve(s, scale=2.0**-self.fraction) if s.name.endswith(".cell") else s for s in node.states)
        return evolve(node, attributes=evolve(node.attributes, fraction=self.fraction),  # type: ignore[misc]
                      states=states)

    def described(self) -> str:
        if not self.chooses:
            return ""
        if not int(self.cell_fraction):
            return ", cell not calibrated"
        return f", cell fraction({self.fraction}): {100 * float(self.cell_share):.2g} % saturated"

    def extra_repr(self) -> str:
        return super().extra_repr() + self.described()

