"""Rounding with error feedback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("round")
@frozen
class Gptq(Method):
    """GPTQ on any grid: weights are rounded column by column, and the error of each is put right by the columns that
    follow.

    The measure is the kernel's output on the inputs that calibration saw (a recurrent kernel's are the hidden states of
    the step before).  It happens once, after calibration: with no steps of training it is post-training quantisation,
    otherwise what training starts from.  A grid that is read off the weights stays what it was before.
    Source: background (Frantar et al., arXiv 2210.17323); grids other than uniform, and recurrent kernels: our choice.
    """

    damp: float = argument("fraction", default=0.01, low=1e-6, high=10.0,
                           doc="added to the inputs' energies, as a share of their mean: the higher, the nearer to "
                           "plain rounding")

    def apply(self, w: Tensor, gram: Tensor, nearest: Callable[[Tensor, int], Tensor]) -> Tensor:
        """``w`` [rows, cols] on its grid.  gram [cols, cols]; nearest(column [rows], its number) -> levels [rows]."""
        from nnac.compression._feedback import fed_back

        return fed_back(w, gram, self.damp, nearest)
