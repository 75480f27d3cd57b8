"""How one weight matrix is compressed, and how it falls into groups that share a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import field, frozen
from torch import Tensor

from nnac.compression.base import Method

if TYPE_CHECKING:
    from nnac.plan import SitePlan


@frozen
class Settings:
    """How a matrix is compressed.

    method  None: real numbers      bits  of the stored index or integer
    granularity  tensor | channel | gate (``gates`` equal blocks of rows) | group (of ``group`` inputs)
    """

    method: Any = None
    bits: int = 8
    granularity: str = "channel"
    group: int | None = None
    gates: int = 1
    regularise: Method | None = None
    harden: Method | None = None
    sparsity: Method | None = None
    round: Method | None = None

    @classmethod
    def of_site(cls, site: SitePlan, gates: int = 1) -> Settings:
        """The settings that a plan holds for a kernel or a gate."""
        w = site.weights
        assert w is not None, f"{site.path} has no weights"
        return cls(w.method, w.bits, w.granularity.kind, w.granularity.size, gates, site.regularise, site.harden,
                   site.sparsity, site.round)

    def __str__(self) -> str:
        if self.method is None:
            return "float"
        width = "" if type(self.method).takes_bits() else f"int{self.bits} "
        group = f"({self.group})" if self.granularity == "group" else ""
        others = "".join(f"; {o}" for o in (self.round, self.regularise, self.harden, self.sparsity) if o is not None)
        return f"{width}per_{self.granularity}{group} {self.method}{others}"


@frozen(eq=False)
class Layout:
    """How a matrix [rows, cols] falls into groups that share a scale: [G, n]."""

    rows: int
    cols: int
    granularity: str = "channel"
    group: int | None = None
    gates: int = 1
    index: Tensor | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.granularity == "gate" and self.rows % max(1, self.gates):
            raise ValueError(f"{self.rows} rows are not {self.gates} gates of equal size")
        if self.granularity == "group" and self.cols % self.size:
            # the last group is filled up with its own values again: its maximum, mean and spread stay what they are
            start = self.cols // self.size * self.size
            tail = start + torch.arange(self.size) % (self.cols - start)
            object.__setattr__(self, "index", torch.cat([torch.arange(start), tail]))

    @property
    def size(self) -> int:
        """Inputs in a group."""
        return min(self.group or self.cols, self.cols)

    @property
    def per_row(self) -> int:
        """Groups in a row (1 unless groups cut rows)."""
        return -(-self.cols // self.size) if self.granularity == "group" else 1

    @property
    def groups(self) -> int:
        return {"tensor": 1, "gate": max(1, self.gates), "channel": self.rows,
                "group": self.rows * self.per_row}[self.granularity]

    def grouped(self, w: Tensor) -> Tensor:
        """[rows, cols] as [G, n]."""
        if self.index is not None:
            w = w.index_select(1, self.index.to(w.device))
        return w.reshape(self.groups, -1)

    def ungrouped(self, x: Tensor) -> Tensor:
        """[G, n] as [rows, cols]."""
        return x.reshape(self.rows, -1)[:, : self.cols]

    def rows_of(self, v: Tensor) -> Tensor:
        """A value of each group [G, 1] as one of each row [rows]; the largest where groups cut rows."""
        if self.granularity == "group":
            return v.view(self.rows, self.per_row).amax(1)
        each = self.rows // self.groups
        return (v.expand(self.groups, 1) if each == 1 else v.expand(self.groups, 1).repeat_interleave(each, 0))[:, 0]

    def groups_at(self, column: int) -> Tensor:
        """The groups that a column's weights are in, in the order of the rows."""
        if self.granularity != "group":
            return torch.arange(self.groups)
        return torch.arange(self.rows) * self.per_row + column // self.size

    def groups_of(self, v: Tensor) -> Tensor:
        """A value of each row [rows] as one of each group [G, 1]; the largest of a group's rows."""
        if self.granularity == "group":
            return v.repeat_interleave(self.per_row)[:, None]
        return v.view(self.groups, -1).amax(1, keepdim=True)
