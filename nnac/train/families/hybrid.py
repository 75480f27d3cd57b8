"""A hybrid's acoustic model as a training module: features in, log-probabilities of HMM states out.

    module = Hybrid(lower(model, precision), float_state_dict)
    module.calibrate(batches)                                       # of (features, lengths)
    scores, lengths = module(features, lengths)
    loss = module.loss(scores, labels)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from nnac.decode.fusion import real_rows
from nnac.model.hybrid import ENCODER
from nnac.model.hybrid_torch import cross_entropy
from nnac.train.families import family
from nnac.train.integers import dequantise
from nnac.train.module import GraphModule


@frozen(eq=False)
class Hearing:
    """A module as a graph search wants it: its log-probabilities, the machine's integers."""

    module: Hybrid

    def encode(self, features: Any, lengths: Any) -> tuple[NDArray, NDArray]:
        """Normalised features [T, B, bins], lengths [B] -> log-probabilities [T', B, states] Q4.11, lengths."""
        with torch.no_grad():
            made, ends = self.module.encode(features, lengths)
        out, = self.module.graph.outputs[ENCODER.name]
        integer = self.module.layer(self.module.graph.producers[out].path).quantised
        values = made.cpu().numpy()
        return values.astype(np.int64) if integer else real_rows(values), ends.cpu().numpy()


@family
class Hybrid(GraphModule):
    """See the module."""

    learns_from = "alignments"

    def encode(self, features: Any, lengths: Any) -> tuple[Tensor, Tensor]:
        """Real features [T, B, bins], lengths [B] -> log-probabilities [T', B, states] as the last layer makes them
        (integers in float32), lengths."""
        like = self._like()
        x = torch.as_tensor(features, device=like.device, dtype=torch.float32)
        lengths = torch.as_tensor(lengths, device=like.device)
        name, = self.graph.inputs[ENCODER.name]
        made = self.run(ENCODER.name, {name: x}, {name: False}, self._state(ENCODER.name, x.shape[1], like), lengths)
        for node in self.graph.entry(ENCODER.name):
            lengths = self.layer(node.path).lengths(lengths)
        return made[self.graph.outputs[ENCODER.name][0]], lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [T, B, bins], lengths [B] -> real log-probabilities [T', B, states], lengths."""
        made, lengths = self.encode(features, lengths)
        out, = self.graph.outputs[ENCODER.name]
        if self.layer(self.graph.producers[out].path).quantised:
            made = dequantise(made, self.format_of(out)).float()
        return made, lengths

    def scorer(self) -> Hearing:
        """This module as a search wants it."""
        return Hearing(self)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """What `forward` returned, labels [T', B] (-1: none) -> cross entropy in nats, summed over the frames."""
        return cross_entropy(scores, labels)
