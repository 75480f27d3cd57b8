"""What the weight quantiser asks of a weight method.  Light: torch is imported by the functions that need it.

``x`` is always float32 [G, n]: the weights, one row per thing that shares a scale; ``live`` is a mask of the same
shape, or None when nothing is ever pruned; ``bits`` the stored width.
State is a dict of tensors that `nnac.train.quantiser.WeightQuantiser` keeps: those named in ``learned`` are parameters,
the others buffers, so everything is in its state_dict.  ``clock`` tells the time of training (`nnac.train.clock`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, Any]


class WeightRule:
    """Behaviour of a weight method; the defaults are those of a stateless uniform grid with a straight-through
    gradient."""

    __slots__ = ()
    learned: ClassVar[tuple[str, ...]] = ()
    steady: ClassVar[bool] = False         # the grid depends on the state alone, not on the weights of the moment
    by_largest: ClassVar[bool] = False     # a uniform grid up to the largest magnitude, and nothing else

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        """State at the start, from the float weights."""
        return {}

    def renew(self, state: State, x: Tensor, live: Tensor | None, bits: int, clock: Any) -> State:
        """New values of some buffers, after a step of training."""
        return {}

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        """The grid for these weights."""
        from nnac.compression._grids import Uniform

        return Uniform.of_clip(state["clip"] if "clip" in state else self.reach(x, live, bits), bits)

    def reach(self, x: Tensor, live: Tensor | None, bits: int) -> Tensor:
        """The outermost level of each group, [G] real."""
        raise NotImplementedError

    def exact_at(self, clock: Any) -> bool:
        """Whether training at this moment sees integers (False: GQ's soft phase)."""
        return True

    def codes(self, state: State, x: Tensor, grid: Any, bits: int, clock: Any | None) -> Tensor:
        """The codes with their gradient, which weights beyond the outermost level receive too.  ``clock`` None:
        evaluation."""
        from nnac.compression._grids import exact

        return exact(x, grid.nearest(x.detach()), grid.unit)


class Fitted(WeightRule):
    """A rule whose clip is found by a search: kept as a buffer and found again every 100 steps (our choice), not at
    every forward pass."""

    __slots__ = ()
    steady: ClassVar[bool] = True

    def start(self, x: Tensor, live: Tensor | None, bits: int) -> State:
        return {"clip": self.reach(x, live, bits)}

    def renew(self, state: State, x: Tensor, live: Tensor | None, bits: int, clock: Any) -> State:
        return {"clip": self.reach(x, live, bits)} if clock.step % 100 == 0 else {}


def count(live: Tensor | None, x: Tensor) -> Any:
    """How many weights of each group live, at least 1: [G] or a number."""
    return x.shape[1] if live is None else live.sum(1).clamp_min(1)


def mean_magnitude(x: Tensor, live: Tensor | None) -> Tensor:
    """``E|w|`` over the live weights of each group (dead ones are zero already)."""
    return x.abs().sum(1) / count(live, x)


def mean_square(x: Tensor, live: Tensor | None) -> Tensor:
    """``E w^2`` over the live weights of each group."""
    return x.square().sum(1) / count(live, x)
