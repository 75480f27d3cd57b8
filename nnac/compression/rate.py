"""The bits that the codes will take, as a term of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._pulls import Pull
from nnac.compression.base import method

if TYPE_CHECKING:
    from torch import Tensor


@method("regularise")
@frozen
class Rate(Pull):
    """Rate: the bits a weight that the program's entropy codec will spend, so that training trades errors for bytes.

    The entropy of the kernel's codes, each weight shared by the two levels around it in proportion to its place between
    them; its gradient draws weights to the likelier neighbour.  The codec comes within 2 % of the entropy
    (`make bench-codec`).
    Source: our own; the idea is that of rate-distortion optimisation (background: entropy-constrained quantisation,
    Chou, Lookabaugh & Gray 1989).
    """

    pulls: ClassVar[bool] = False                          # not to the nearest level: to the likelier

    def penalty(self, w: Tensor, grid: Any, live: Tensor | None) -> Tensor:
        """Bits a living weight.  w [G, n]."""
        from nnac.compression._regularise import Mean, bits

        return Mean.apply(w / grid.unit, live, lambda u: bits(u, grid, live))
