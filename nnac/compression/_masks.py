"""What the weight quantiser asks of a sparsity method.  Light: torch is imported by the functions that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression.base import Method, argument
from nnac.units import Moment

if TYPE_CHECKING:
    from torch import Tensor

    from nnac.compression._pruning import Blocks


@frozen(eq=False)
class Event:
    """A moment at which weights of one kernel are chosen.

    memory  float64 [1], kept for the method between events      gates  equal blocks of rows
    gram    ``E[x x^T]`` [cols, cols] of what the kernel is multiplied with; None: nobody asked, or nothing met it
    kernel  its name, for what is drawn anew for each
    """

    clock: Any
    memory: Tensor
    gates: int = 1
    gram: Tensor | None = None
    kernel: str = ""


class SparsityRule:
    """Gradual pruning: between the moments ``from_`` and ``to``, every ``every``, the share of dead weights grows to
    ``target``."""

    __slots__ = ()
    monotone: ClassVar[bool] = True      # dead weights stay dead (and are set to zero)

    @property
    def needs_inputs(self) -> bool:
        """Whether the choice is made with what the kernel is multiplied with."""
        return False

    def due(self, clock: Any) -> bool:
        """Whether weights are chosen now: on the period within the span, and at its end."""
        last = max(1, clock.at(self.to))  # type: ignore[attr-defined]
        return clock.step == last or clock.every(self.every, self.from_, self.to)  # type: ignore[attr-defined]

    def share(self, clock: Any) -> float:
        """The share of dead weights wanted now."""
        return self.target * self.growth(clock.progress(self.from_, self._length(clock)))  # type: ignore[attr-defined]

    def _length(self, clock: Any) -> Any:
        return Moment(float(clock.at(self.to) - clock.at(self.from_)))  # type: ignore[attr-defined]

    def growth(self, progress: float) -> float:
        """The cubic law of Zhu & Gupta 2017: fast while there is much to remove, slow at the end."""
        return 1 - (1 - progress) ** 3

    def choose(self, w: Tensor, mask: Tensor, event: Event) -> Tensor:
        """The new mask.  w, mask [rows, cols]"""
        raise NotImplementedError

    def prune(self, w: Tensor, mask: Tensor, event: Event) -> tuple[Tensor, Tensor]:
        """The weights, those that live perhaps moved to make up for the dead, and the new mask."""
        return w, self.choose(w, mask, event)


@frozen
class Gradual(SparsityRule, Method):
    """What methods that reach a target have in common."""

    target: float = argument("fraction", low=0.0, high=0.999, positional=True, doc="share of weights that become zero")
    from_: Moment = argument("moment", default=Moment(0.0), doc="first pruning event")
    to: Moment = argument("moment", default=Moment(0.5, "training"), doc="moment at which the target is reached")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again in between")
    block: int = argument("integer", default=1, low=1, high=256, doc="neighbouring weights that live or die together")
    along: str = argument("choice", default="inputs", choices=("inputs", "outputs"),
                          doc="neighbours: `inputs` of one output (fewer bytes), `outputs` of one input (a block of "
                          "all lanes is skipped)")

    def blocks(self, w: Tensor, gates: int) -> Blocks:
        """The matrix cut into its runs."""
        from nnac.compression._pruning import Blocks

        return Blocks(w.shape[0], w.shape[1], self.block, self.along, gates)


@frozen
class OnInputs(Gradual):
    """What methods have in common that choose with the kernel's own inputs."""

    of: int | None = argument("integer", default=None, low=2, high=64, optional=True,
                              doc="the share holds in every run of so many inputs: 50% of 4 is 2:4; none: in the "
                              "whole kernel")

    def __attrs_post_init__(self) -> None:
        if self.of is not None and (self.block > 1 or round((1 - self.target) * self.of) < 1):
            raise ValueError(f"`of={self.of}` of `{self.keyword}` stands without `block`, and leaves at least one of "
                             f"{self.of} alive, not {self.target * 100:g}% of them dead")

    @property
    def needs_inputs(self) -> bool:
        return True

    def keep(self, energy: Tensor, mask: Tensor, share: float, gates: int) -> Tensor:
        """The mask of the strongest: ``energy`` [rows, cols] is what a weight's death costs, blocks count by their
        mean."""
        from nnac.compression._pruning import means, n_of_m

        if self.of is not None:
            return n_of_m(energy * mask, self.of - round(share * self.of), self.of) & mask
        blocks = self.blocks(energy, gates)
        return blocks.lowest(means(energy * mask, blocks), mask, share)
