"""A fixed clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression._weights import WeightRule
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights", "activations", "hidden")
@frozen
class Fixed(WeightRule, ActivationRule, Method):
    """A fixed clip: no statistics, no learning.  ``fixed(1)`` is exact for ``h = o * tanh(c)``, which never leaves [-1,
    1].

    Source: FMS-MO's fixed clip (docs/methods.md §6).
    """

    from_data: ClassVar[bool] = False

    clip: float = argument("number", low=1e-6, high=1e6, positional=True, doc="largest magnitude represented")

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        return x.new_full((x.shape[0],), self.clip)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return float(self.clip)
