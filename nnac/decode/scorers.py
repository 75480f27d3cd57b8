"""Networks as beam search wants them: `RealScorer` over a float network, whose log-probabilities are rounded to the
integers of the search.

The training module has its own (`nnac.train.families.rnnt.ModuleScorer`), an executor of integers too
(`nnac.decode.integer.IntegerStepper`).
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.decode.fusion import FusionError, LanguageModel, labels_alone, real_rows
from nnac.decode.search import numpy as _numpy


@frozen(eq=False)
class RealScorer:
    """Keeps the protocol of `nnac.decode.search.beam.Scorer` over a network that keeps that of greedy decoding and
    gives real logits.

    Reproducible on one machine only: real sums depend on how many rows are computed together.
    """

    network: Any

    def encode(self, features: Any, lengths: Any) -> tuple[Any, NDArray]:
        with _no_gradients():
            frames, lengths = self.network.encode(features, lengths)
        return frames, _numpy(lengths)

    def start(self, batch: int) -> tuple[Any, tuple]:
        with _no_gradients():
            return self.network.start(batch)

    def predict(self, tokens: NDArray, state: tuple) -> tuple[Any, tuple]:
        with _no_gradients():
            return self.network.predict(tokens, state)

    def joint(self, frames: Any, prediction: Any) -> Any:
        with _no_gradients():
            return self.network.joint(frames, prediction)

    def scores(self, frames: Any, prediction: Any) -> NDArray:
        return real_rows(_numpy(self.joint(frames, prediction)))

    def language(self, entry: str) -> LanguageModel:
        raise FusionError(f"a float network has no entry `{entry}`: give its language model as an ARPA file")

    def internal(self, prediction: Any) -> NDArray:
        return labels_alone(np.asarray(_numpy(self.joint(prediction * 0, prediction)), np.float64))


def _no_gradients() -> AbstractContextManager[Any]:
    """Search remembers much: it must not keep what torch would need to go back through it."""
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.no_grad()


def scorer(model: Any) -> Any:
    """``model`` itself where it answers `Scorer.scores`, or what it says is its scorer (``model.scorer()``); else a
    `RealScorer` of it."""
    if hasattr(model, "scores"):
        return model
    return model.scorer() if hasattr(model, "scorer") else RealScorer(model)
