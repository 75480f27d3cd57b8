"""What the weight quantiser asks of a sparsity method.  Light: torch is imported by the functions that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class SparsityRule:
    """Gradual pruning: between the moments ``from_`` and ``to``, every ``every``, the share of dead weights grows to
    ``target``."""

    __slots__ = ()
    monotone: ClassVar[bool] = True      # dead weights stay dead (and are set to zero)

    def due(self, clock: Any) -> bool:
        """Whether weights are chosen now: on the period within the span, and at its end."""
        last = max(1, clock.at(self.to))  # type: ignore[attr-defined]
        return clock.step == last or clock.every(self.every, self.from_, self.to)  # type: ignore[attr-defined]

    def share(self, clock: Any) -> float:
        """The share of dead weights wanted now."""
        return self.target * self.growth(clock.progress(self.from_, self._length(clock)))  # type: ignore[attr-defined]

    def _length(self, clock: Any) -> Any:
        from nnac.units import Moment

        return Moment(float(clock.at(self.to) - clock.at(self.from_)))  # type: ignore[attr-defined]

    def growth(self, progress: float) -> float:
        """The cubic law of Zhu & Gupta 2017: fast while there is much to remove, slow at the end."""
        return 1 - (1 - progress) ** 3

    def choose(self, w: Tensor, mask: Tensor, clock: Any, memory: Tensor, gates: int = 1) -> Tensor:
        """The new mask.

        w, mask [rows, cols]      memory  float64 [1], kept for the method between events
        gates  equal blocks of rows
        """
        raise NotImplementedError
