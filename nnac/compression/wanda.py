"""Pruning by weights and activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression._masks import Event, OnInputs
from nnac.compression.base import method

if TYPE_CHECKING:
    from torch import Tensor


@method("sparsity")
@frozen
class Wanda(OnInputs):
    """Wanda: the smallest |w| times the root mean square of its input become zero; the others stay as they are.

    Source: background (Sun et al., arXiv 2306.11695, which ranks within each output; here, as in the other methods,
    within the kernel, unless `of` says otherwise).
    """

    def choose(self, w: Tensor, mask: Tensor, event: Event) -> Tensor:
        energy = (w * mask).square()
        if event.gram is not None:
            energy = energy * event.gram.diagonal()
        return self.keep(energy, mask, self.share(event.clock), event.gates)
