"""The language model as a training module: labels in, log-probabilities of the labels that follow out.

    module = LanguageModel(lower(model, precision), float_state_dict)
    module.calibrate(batches)                                       # of (labels,)
    scores = module(labels)
    loss = module.loss(scores, labels, counts)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nnac.ir import QGraph
from nnac.model.lm import STEP
from nnac.model.lm_torch import cross_entropy, from_edge
from nnac.plan import Plan
from nnac.train.families import family
from nnac.train.integers import dequantise
from nnac.train.module import FloatWeightsError, GraphModule

EMBEDDING, OUTPUT = "lm.embedding", "lm.output"


@family
class LanguageModel(GraphModule):
    """See the module.  With tied weights embedding and output share one parameter, and each has its own quantiser of
    it."""

    learns_from = "text"

    def __init__(self, graph: QGraph, weights: Mapping[str, Tensor] | None = None, plan: Plan | None = None) -> None:
        self.tied = bool(graph.metadata["arguments"].get("tied", False))
        super().__init__(graph, weights, plan)

    def tie(self) -> None:
        if self.tied:
            self.layer(OUTPUT).weight = self.layer(EMBEDDING).weight

    def load_float(self, weights: Mapping[str, Tensor]) -> None:
        """As `GraphModule.load_float`; with tied weights both names may be there, and then they are equal."""
        kept = dict(weights)
        if self.tied and (second := kept.pop(f"{OUTPUT}.weight", None)) is not None and not torch.equal(second,
            kept[f"{EMBEDDING}.weight"]):
            raise FloatWeightsError(f"the float weights do not fit {self.graph.name}: its output is tied to its "
                                    f"embedding, and these two differ")
        super().load_float(kept)

    def start(self, batch: int) -> dict[str, Tensor]:
        """The states before a sentence, by name: zeros [B, width]."""
        return self._state(STEP.name, batch, self._like())

    def scores(self, labels: Any, state: dict[str, Tensor]) -> Tensor:
        """labels [T, B] -> log-probabilities [T, B, vocabulary] of the labels after each, real; ``state`` moves on in
        place."""
        name, = self.graph.inputs[STEP.name]
        labels = torch.as_tensor(labels, device=self._like().device)
        values = self.run(STEP.name, {name: labels[..., None]}, {name: True}, state)
        out, = self.graph.outputs[STEP.name]
        made = values[out]
        if not self.layer(self.graph.producers[out].path).quantised:
            return made
        return dequantise(made, self.format_of(out)).float()

    def forward(self, labels: Tensor) -> Tensor:
        """labels [U, B] of sentences -> log-probabilities [U + 1, B, vocabulary] of each label and of the edge that
        follows the last."""
        return self.scores(from_edge(labels), self.start(labels.shape[1]))

    def loss(self, scores: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """What `forward` returned, labels [U, B] and how many of each row count -> cross entropy in nats, summed over
        the batch."""
        return cross_entropy(scores, labels, counts).sum()
