"""Weight-only quantisation-aware training: what accelerator-aware training is compared with.

Training sees the weights as the machine will hold them, and everything else (activations, cells, tables) in real
numbers; when it ends, the scales are found on the trained network, and all of it runs on the machine as any other.
Source: the baseline of AAT, arXiv 2305.07778, as we read its abstract (docs/methods.md §1).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen
from torch import Tensor

from nnac.train.batches import Batch, Examples
from nnac.train.evaluate import Heard
from nnac.train.families.rnnt import Transducer
from nnac.train.loop import TrainingError
from nnac.train.module import attribute_path
from nnac.train.policy import PolicyLearner, PolicyTask, calibrate
from nnac.train.rnnt_loss import rnnt_loss


def quantised_weights(module: Transducer) -> dict[str, Tensor]:
    """Parameter name -> the real weight that its codes stand for, with the gradients of the plan's quantisers.

    Kernels that share an accumulator share row scales, in training as on the machine.  TrainingError: a layer that
    does not say what it holds.
    """
    try:
        return {".".join((*attribute_path(node.path), name)): weight
                for node in module.graph.nodes for name, weight in module.layer(node.path).held()}
    except NotImplementedError as error:
        raise TrainingError(f"{error}: weight-only training does not know layers of its kind") from None


class WeightOnlyLearner(PolicyLearner):
    """Trains the same module on real numbers, with quantised weights; at the end the scales are found anew, on the
    first ``utterances`` of ``examples``."""

    examples: Examples
    utterances: int

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        with self.model.real_numbers():
            weights = quantised_weights(self.model)
            logits, lengths = torch.func.functional_call(self.model, weights,
                                                         (batch.features, batch.lengths, batch.tokens.T))
        loss = rnnt_loss(logits, batch.tokens, lengths, batch.token_counts, reduction="sum")
        return loss, float(loss.detach())

    def before_step(self, step: int) -> None:
        super().before_step(step)
        if step == self.steps:
            calibrate(self.model, self.examples, self.utterances)


@frozen
class WeightOnlyTask(PolicyTask):
    """`PolicyTask` with another forward pass."""

    kind: ClassVar[str] = "weight-only"

    def identity(self) -> dict:
        return super().identity() | {"forward": "weight-only"}

    def prepare(self) -> tuple[PolicyLearner, Examples, Heard]:
        learner, examples, dev = super().prepare()
        own = WeightOnlyLearner(learner.model, self.config.steps, 1)
        own.compression, own.examples, own.utterances = learner.compression, examples, self.config.calibration
        return own, examples, dev
