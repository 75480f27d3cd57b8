"""Uniform grid from the largest magnitude seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from nnac.compression._clips import ActivationRule, Magnitudes
from nnac.compression._weights import WeightRule
from nnac.compression.base import Method, method

if TYPE_CHECKING:
    from torch import Tensor


@method("weights", "activations", "hidden")
@frozen
class MinMax(WeightRule, ActivationRule, Method):
    """Uniform grid from the largest magnitude seen: the plain ``int8`` of every toolkit.

    Source: background; FMS-MO's MAX quantiser is the same rule (docs/methods.md §6).
    """

    by_largest: ClassVar[bool] = True

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        return x.abs().amax(1)

    def clip_of(self, seen: Magnitudes, bits: int) -> float:
        return seen.reach
