"""A hybrid's float network with all that is needed to hear with it.  As one checkpoint file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.decode.front_end import FrontEnd, pad
from nnac.decode.fusion import real_rows
from nnac.errors import ABSURD
from nnac.hybrid.scores import PRIOR, Hmm, likelihoods
from nnac.model.hybrid_torch import HybridConfig, HybridNetwork
from nnac.speech.features import FeatureSpec, Normalisation

KIND = "hybrid-float"


@frozen(eq=False)
class Acoustic:
    """``model`` takes features as ``front`` prepares them; its outputs are the states of ``front.hmm``."""

    model: HybridNetwork
    features: FeatureSpec
    normalisation: Normalisation
    hmm: Hmm
    training: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        c, states = self.model.config, self.hmm.inventory.count
        if (c.features, c.states, len(self.normalisation.mean)) != (self.features.bins, states, self.features.bins):
            raise ValueError(f"a network of {c.features} features and {c.states} states, features of "
                             f"{self.features.bins} bins, normalisation of {len(self.normalisation.mean)}, an "
                             f"inventory of {states} states")

    @property
    def front(self) -> FrontEnd:
        return FrontEnd.of_hybrid(self.features, self.normalisation, self.hmm)

    def save(self, path: str | os.PathLike[str]) -> None:
        checkpoint.save(path, self.model.state_dict(), dict(
            kind=KIND, model=self.model.config.to_json(), features=self.features.to_json(),
            normalisation=self.normalisation.to_json(), hmm=self.hmm.to_json(), training=self.training))

    @torch.no_grad()
    def scores(self, features: Sequence[NDArray]) -> list[NDArray[np.float32]]:
        """Of utterances, unnormalised [frames, bins] each: scaled likelihoods [steps, states], as alignment wants
        them."""
        x, lengths = pad([self.normalisation.apply(f) for f in features])
        made, ends = RealHearing(self.model).encode(torch.from_numpy(x), torch.from_numpy(lengths))
        return [likelihoods(made[:n, b], self.hmm, 1.0, PRIOR) for b, n in enumerate(ends)]


@frozen(eq=False)
class RealHearing:
    """A float network as a graph search wants it: log-probabilities rounded to the integers Q4.11.

    Reproducible on one machine only: real sums depend on how many rows are computed together.
    """

    network: HybridNetwork

    @torch.no_grad()
    def encode(self, features: Any, lengths: Any) -> tuple[NDArray, NDArray]:
        """Normalised features [T, B, bins], lengths [B] -> log-probabilities [T', B, states], lengths."""
        made, ends = self.network(features, torch.as_tensor(lengths))
        return real_rows(made.cpu().numpy()), ends.cpu().numpy()


def load(path: str | os.PathLike[str]) -> Acoustic:
    """In evaluation mode.  CheckpointError: absent, damaged, of another kind, or tensors that do not fit the declared
    sizes."""
    file = checkpoint.load(path, KIND)
    try:
        meta = file.metadata
        config = HybridConfig.from_json(meta["model"])
        with torch.device("meta"):                           # shapes without memory: the sizes may be absurd
            shapes = {k: tuple(v.shape) for k, v in HybridNetwork(config).state_dict().items()}
        if differ := sorted(k for k in {*shapes, *file.tensors}
                            if k not in shapes or k not in file.tensors or shapes[k] != file.tensors[k].shape):
            raise ValueError(f"{differ[0]} does not fit the declared sizes")
        model = HybridNetwork(config)
        model.load_state_dict(file.state_dict())
        return Acoustic(model.eval(), FeatureSpec.from_json(meta["features"]),
                        Normalisation.from_json(meta["normalisation"]), Hmm.from_json(meta["hmm"]),
                        meta.get("training", {}))
    except ABSURD as error:
        raise CheckpointError(f"{path}: does not describe a hybrid: {' '.join(str(error).split())[:200]}") from None


