"""The Conformer transducer as a training module: the RNN-T's calls, over whole chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnac.model.conformer_torch import folded
from nnac.model.rnnt import ENCODER
from nnac.train.families import family
from nnac.train.families.rnnt import Transducer


@family
class Conformer(Transducer):
    """`Transducer` whose encoder takes whole chunks: an utterance that ends within one goes on with zeros."""

    def load_float(self, weights: Mapping[str, Tensor]) -> None:
        """See `GraphModule.load_float`; batch norms are folded."""
        super().load_float(folded(weights))

    def encode(self, features: Tensor, lengths: Any) -> tuple[Tensor, Tensor]:
        name, = self.graph.inputs[ENCODER.name]
        rate = self.graph.values[name].rate
        x = torch.as_tensor(features, device=self._like().device, dtype=torch.float32)
        frames, lengths = super().encode(nn.functional.pad(x, (0, 0, 0, 0, 0, -len(x) % rate)), lengths)
        return frames[: int(lengths.max())] if len(lengths) else frames, lengths
