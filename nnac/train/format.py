"""The integers a value has at run time.

A record that knows nothing of modules: what trains its clips stands in it as a `Learner`, which
`nnac.train.activation` provides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen
from torch import Tensor, nn

from nnac import arith


class Learner(Protocol):
    """What a format with learned clips asks of the quantiser that made it."""

    high: nn.Parameter

    def learn(self, y: Tensor, form: Format, unrounded: Callable[[], Tensor]) -> Tensor:
        """``y``, the integers, with the clips' gradients."""

    def gradients(self, by_real: Tensor, z: Tensor, form: Format) -> tuple[Tensor, Tensor | None]:
        """(d loss / d high, d loss / d low) from d loss / d dequantised value, at unrounded codes ``z``."""


@frozen
class Format:
    """A value's integers at run time: real = scale (integer - zero_point).  ``learner``: the quantiser whose clips
    are learned, or None.
    """

    scale: float
    zero_point: int
    bits: int
    learner: Learner | None = field(default=None, eq=False, repr=False)

    @property
    def limits(self) -> tuple[int, int]:
        return arith.limits(self.bits)

    def format(self, name: str) -> Format:
        """Itself: a format that nothing changes says what a quantiser says of one that is found or learned."""
        return self
