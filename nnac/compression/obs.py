"""Pruning by the optimal brain surgeon, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression._masks import Event, OnInputs
from nnac.compression.base import argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Obs(OnInputs):
    """OBS as SparseGPT does it: block of columns by block of columns the weights whose death costs the output least
    become zero, and the columns that follow make up for them.

    The share is the same in every 64 columns (or as many as make whole runs).
    Source: background (Hassibi & Stork 1993; Frantar & Alistarh, arXiv 2301.00774).
    """

    damp: float = argument("fraction", default=0.01, low=1e-6, high=10.0,
                           doc="added to the inputs' energies, as a share of their mean")

    def prune(self, w: Tensor, mask: Tensor, event: Event) -> tuple[Tensor, Tensor]:
        import torch

        from nnac.compression._feedback import BLOCK, fed_back

        share = self.share(event.clock)
        if share <= 0:
            return w, mask
        gram = torch.eye(w.shape[1], device=w.device) if event.gram is None or not event.gram.any() else event.gram
        live = torch.zeros_like(mask)

        def choose(part: Tensor, numbers: Tensor, diagonal: Tensor) -> None:
            live[:, numbers] = self.keep((part / diagonal).square(), mask[:, numbers], share, event.gates)

        run = self.of or (self.block if self.along == "inputs" else 1)
        x = fed_back(w * mask, gram, self.damp, lambda column, number: column * live[:, number], choose, False,
                     -(-BLOCK // run) * run)
        return x, live
