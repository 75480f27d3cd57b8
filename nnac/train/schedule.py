"""When things happen in training: the object that any training loop calls.

    compression = Compression(model, steps=4000, steps_per_epoch=100)      # any nn.Module that holds WeightQuantisers
    for step, batch in enumerate(loader, start=compression.step + 1):
        loss = model(batch) + compression.regulariser()
        loss.backward(); optimiser.step()
        compression.on_step(step)                                          # hard compressor, pruning, annealing, ramps
    compression.finish()
    # final hard compression: weights are what the NNA will hold

A step number is the count of optimiser steps done.  All that changes lives in the model's own state_dict
(`WeightQuantiser` keeps its clock, masks, centroids there), so a training stopped at any step and resumed gives the
same weights, bit for bit. Pieces of a model take part by one method, ``compressed_weights``, which yields `Slot`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnac.train.quantiser import KernelQuantiser, WeightQuantiser


@frozen(eq=False)
class Slot:
    """One quantiser and the float weight that it quantises.

    read   returns the weight [rows, cols]; what it returns may be a temporary (kernels joined side by side)
    write  takes a changed weight back; not called when nothing changed
    slope   the gradient of the loss by what ``read`` returns; None where there is none
    columns  what each column of ``read`` is the layer's own weight times, [cols] (kernels in the units of one
             accumulator); None: it is the weight itself
    """

    name: str
    quantiser: WeightQuantiser | KernelQuantiser
    read: Callable[[], Tensor]
    write: Callable[[Tensor], Any]
    columns: Callable[[], Tensor] | None = None
    slope: Callable[[], Tensor | None] = lambda: None

    @classmethod
    def of_parameter(cls, name: str, quantiser: WeightQuantiser | KernelQuantiser, parameter: Tensor) -> Slot:
        """The plain case: the weight is a parameter, changed in place (the optimiser keeps its state)."""
        return cls(name, quantiser, lambda: parameter, parameter.copy_, slope=lambda: parameter.grad)


class Compression:
    """All schedules of a model behind one call.  See the module.

    steps, steps_per_epoch
    the length of training, for moments given as percentages or epochs; None keeps what the quantisers know
    learning_rate  what the optimiser moves a weight by in a step, for periods that are said in spacings of the levels
    UnitError: a period is, and nobody says the learning rate.
    """

    def __init__(self, module: nn.Module, steps: int | None = None, steps_per_epoch: int | None = None,
                 learning_rate: float | None = None) -> None:
        self.module = module
        for slot in self.slots:
            slot.quantiser.set_length(steps, steps_per_epoch, learning_rate)
        lacking = [s.name for s in self.slots if s.quantiser.lacks_rate]
        if lacking:
            from nnac.train.quantiser import without_rate

            raise without_rate(lacking)

    @property
    def slots(self) -> list[Slot]:
        """Every weight that is compressed, in the order of the modules."""
        return list(_slots(self.module))

    @property
    def step(self) -> int:
        """Steps done, as the quantisers remember (0 for a model without any)."""
        return max((s.quantiser.clock.step for s in self.slots), default=0)

    def on_step(self, step: int) -> None:
        """Call once after optimiser step number ``step`` (1 for the first; 0 before any is allowed)."""
        import torch

        self.weigh()

        with torch.no_grad():
            for slot in self.slots:
                weight = slot.read()
                if slot.quantiser.on_step(step, weight):
                    slot.write(weight)

    def weigh(self) -> dict[str, float]:
        """Compare regularisers with the gradient of the task, as it stands in the parameters now; returns, by slot, the
        strengths that were settled by it.  `on_step` does it; a loop that clears its gradients earlier calls it before
        that.
        """
        import torch

        found: dict[str, float] = {}
        with torch.no_grad():
            for slot in self.slots:
                if slot.quantiser.weighs and (slope := slot.slope()) is not None and slope.any():
                    found |= slot.quantiser.weigh(slot.read(), slope)
        return found

    def regulariser(self) -> Any:
        """The sum of all regularisers at their present strength, to add to the loss: a scalar tensor, or 0.0 when there
        is none."""
        return sum((s.quantiser.regulariser(s.read()) for s in self.slots if s.quantiser.regularises), start=0.0)

    def finish(self) -> None:
        """The final hard compression: each weight becomes exactly what its codes say, and the codes never change
        again."""
        import torch

        with torch.no_grad():
            for slot in self.slots:
                weight = slot.read()
                slot.quantiser.freeze(weight)
                slot.write(weight)

    def describe(self) -> str:
        """One line a weight: its shape, how it is held, and where its schedule stands."""
        return "\n".join(f"{s.name:<36} {s.quantiser.describe()}" for s in self.slots)


def _slots(module: nn.Module) -> Iterator[Slot]:
    for child in module.modules():
        if (weights := getattr(child, "compressed_weights", None)) is not None:
            yield from weights()
