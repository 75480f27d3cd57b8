"""Weight-only quantisation-aware training: what accelerator-aware training is compared with.

Training sees the weights as the machine will hold them, and everything else (activations, cells, tables) in real
numbers; when it ends, the scales are found on the trained network, and all of it runs on the machine as any other.
Source: the baseline of AAT, arXiv 2305.07778, as we read its abstract (docs/methods.md §1).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor

from nnac.train.batches import Batch, Examples
from nnac.train.evaluate import Heard
from nnac.train.families.rnnt import Transducer
from nnac.train.module import attribute_path
from nnac.train.policy import PolicyLearner, PolicyTask, calibrate
from nnac.train.rnnt_loss import rnnt_loss


def quantised_weights(module: Transducer) -> dict[str, Tensor]:
    """Parameter name -> the real weight that its codes stand for, with the gradients of the plan's quantisers.

    The kernels of an ``acc32`` LSTM share row scales, in training as on the machine.  AssertionError: another LSTM.
    """
    out: dict[str, Tensor] = {}
    for node in module.graph.nodes:
        layer, name = module.layer(node.path), ".".join(attribute_path(node.path))
        if node.op in ("linear", "embedding"):
            out[f"{name}.weight"] = _real(layer.quantiser(layer.weight))
        elif node.op == "lstm":
            plain = layer.variant == "acc32" and not node.attributes["bidirectional"] and not layer.project
            assert plain, "weight-only training knows plain LSTMs that accumulate in acc32"
            columns = layer.weight_ih_l0.shape[1]
            both = _real(layer.quantisers["l0"](layer._shared("")))
            out[f"{name}.weight_ih_l0"] = both[:, :columns] / layer.ratio
            out[f"{name}.weight_hh_l0"] = both[:, columns:]
    return out


def _real(quantised: tuple[Tensor, Any]) -> Tensor:
    codes, scale = quantised
    return codes * (scale[:, None] if isinstance(scale, Tensor) and scale.ndim == 1 else scale)


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
