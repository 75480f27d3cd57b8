"""A recogniser: the float network with all that is needed to hear and to write.  As one checkpoint file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from attrs import field, frozen

from .. import checkpoint
from ..checkpoint import CheckpointError
from ..model.rnnt_torch import Rnnt, RnntConfig
from ..speech.features import FeatureSpec, Normalisation
from ..speech.tokens import Tokens

KIND = "rnnt-float"


@frozen(eq=False)
class Recogniser:
    """``model`` takes features as ``features`` defines and ``normalisation`` scales them; its ids are those of ``tokens``."""

    model: Rnnt
    features: FeatureSpec
    normalisation: Normalisation
    tokens: Tokens
    training: dict[str, Any] = field(factory=dict)  # how it came to be: recipe, steps, word error rate

    def __attrs_post_init__(self) -> None:
        config = self.model.config
        if (config.features, config.vocabulary) != (self.features.bins, self.tokens.count) or len(
            self.normalisation.mean
        ) != config.features:
            raise ValueError(
                f"a network of {config.features} features and {config.vocabulary} tokens, features of {self.features.bins} bins, "
                f"normalisation of {len(self.normalisation.mean)}, {self.tokens.count} tokens"
            )


def save_recogniser(path: str | os.PathLike, recogniser: Recogniser) -> None:
    checkpoint.save(
        path,
        recogniser.model.state_dict(),
        {
            "kind": KIND,
            "model": recogniser.model.config.to_json(),
            "features": recogniser.features.to_json(),
            "normalisation": recogniser.normalisation.to_json(),
            "tokens": recogniser.tokens.to_json(),
            "training": recogniser.training,
        },
    )


def load_recogniser(path: str | os.PathLike) -> Recogniser:
    """In evaluation mode.  CheckpointError: absent, damaged, of another kind, or tensors that do not fit the declared sizes."""
    file = checkpoint.load(path, KIND)
    try:
        meta = file.metadata
        model = Rnnt(RnntConfig.from_json(meta["model"]))
        if not all(np.isfinite(v).all() for v in file.tensors.values()):
            raise ValueError("weights that are not finite numbers")
        model.load_state_dict(file.state_dict())
        return Recogniser(
            model.eval(),
            FeatureSpec.from_json(meta["features"]),
            Normalisation.from_json(meta["normalisation"]),
            Tokens.from_json(meta["tokens"]),
            meta.get("training", {}),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not describe a network: {' '.join(str(error).split())[:200]}") from None
