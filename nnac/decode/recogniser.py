"""A recogniser: the float network with all that is needed to hear and to write.  As one checkpoint file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.errors import ABSURD
from nnac.model.networks import config_from_json, network
from nnac.model.rnnt_torch import Rnnt
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens

KIND = "rnnt-float"


@frozen(eq=False)
class Recogniser:
    """``model`` takes features as ``features`` defines and ``normalisation`` scales them; its ids are those of
    ``tokens``."""

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
                f"a network of {config.features} features and {config.vocabulary} tokens, features of "
                             f"{self.features.bins} bins, "
                f"normalisation of {len(self.normalisation.mean)}, {self.tokens.count} tokens"
            )


def bfloat16(x: NDArray) -> NDArray[np.uint16]:
    """float32 rounded to nearest, ties to even: the upper half of its 32 bits."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(x: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (x.astype(np.uint32) << 16).view(np.float32)


def save_recogniser(path: str | os.PathLike, recogniser: Recogniser, coding: str | None = None) -> None:
    """``coding``: None, float32; or bf16, all weights rounded to bfloat16 and kept as its 16 bits."""
    weights = {name: value.detach().cpu().numpy() for name, value in recogniser.model.state_dict().items()}
    checkpoint.save(
        path,
        weights if coding is None else {name: bfloat16(value) for name, value in weights.items()},
        {
            "kind": KIND,
            **({} if coding is None else {"coding": coding}),
            "model": recogniser.model.config.to_json(),
            "features": recogniser.features.to_json(),
            "normalisation": recogniser.normalisation.to_json(),
            "tokens": recogniser.tokens.to_json(),
            "training": recogniser.training,
        },
    )


def load_recogniser(path: str | os.PathLike) -> Recogniser:
    """In evaluation mode.  CheckpointError: absent, damaged, of another kind, or tensors that do not fit the declared
    sizes."""
    file = checkpoint.load(path, KIND)
    try:
        meta = file.metadata
        config = config_from_json(meta["model"])
        with torch.device("meta"):                           # shapes without memory: the sizes may be absurd
            shapes = {k: tuple(v.shape) for k, v in network(config).state_dict().items()}
        weights = file.tensors
        if differ := sorted(k for k in {*shapes, *weights} if k not in shapes or k not in weights):
            raise ValueError(f"{differ[0]} is {'missing' if differ[0] in shapes else 'no weight of it'}")
        if differ := sorted(k for k in shapes if shapes[k] != weights[k].shape):
            raise ValueError(f"size mismatch: {differ[0]} is {list(weights[differ[0]].shape)}, not "
                             f"{list(shapes[differ[0]])}")
        if (coding := meta.get("coding")) == "bf16":
            if odd := [name for name, v in weights.items() if v.dtype != np.uint16]:
                raise ValueError(f"{odd[0]} is not coded in bf16")
            weights = {name: from_bfloat16(v) for name, v in weights.items()}
        elif coding is not None:
            raise ValueError(f"weights coded as {coding!r}, which this nnac does not know")
        if not all(np.isfinite(v).all() for v in weights.values()):
            raise ValueError("weights that are not finite numbers")
        model = network(config)
        model.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in weights.items()})
        return Recogniser(
            model.eval(),
            FeatureSpec.from_json(meta["features"]),
            Normalisation.from_json(meta["normalisation"]),
            Tokens.from_json(meta["tokens"]),
            meta.get("training", {}),
        )
    except ABSURD as error:
        raise CheckpointError(f"{path}: does not describe a network: {' '.join(str(error).split())[:200]}") from None
