"""Frames to learn from: utterances with an HMM state for every step of the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from attrs import fields, frozen
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from nnac.hybrid.alignments import NONE
from nnac.speech.corpus import Split
from nnac.speech.features import Normalisation
from nnac.train.batches import mask


@frozen(eq=False)
class FrameBatch:
    """features [T, B, bins] normalised, zero where padded; lengths [B]; labels [T', B] of the network's steps, -1 where
    there is none.  Its size is the number of its labels: losses are means of frames."""

    features: Tensor
    lengths: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return max(1, int((self.labels != NONE).sum()))

    def to(self, device: torch.device | str) -> FrameBatch:
        """The same batch on another device."""
        return FrameBatch(*(getattr(self, a.name).to(device, non_blocking=True) for a in fields(FrameBatch)))


@frozen(eq=False, slots=False)
class AlignedExamples:
    """A split with its labels (`nnac.hybrid.alignments.Alignments.of`), ready to be batched."""

    split: Split
    normalisation: Normalisation
    labels: Sequence[NDArray[np.int16]]
    alignment: str                                   # the digest of their file

    @cached_property
    def frames(self) -> NDArray:
        return np.array([len(f) for f in self.split.features])

    def __len__(self) -> int:
        return len(self.split)

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the corpus it was trained on."""
        return {"utterances": len(self), "frames": int(self.frames.sum()), "recipe": self.split.recipe.to_json(),
                "alignment": self.alignment}

    def batch(self, rows: NDArray, augment: Generator | None = None) -> FrameBatch:
        """Utterances ``rows`` as tensors; ``augment``: draw a SpecAugment mask for each from this generator."""
        bins = self.split.features[rows[0]].shape[1]
        features = np.zeros((int(self.frames[rows].max()), len(rows), bins), np.float32)
        labels = np.full((max(len(self.labels[i]) for i in rows), len(rows)), NONE, np.int64)
        for b, i in enumerate(rows):
            x = self.normalisation.apply(self.split.features[i])
            if augment is not None:
                mask(x, augment)
            features[: len(x), b] = x
            labels[: len(self.labels[i]), b] = self.labels[i]
        return FrameBatch(torch.from_numpy(features), torch.from_numpy(self.frames[rows]), torch.from_numpy(labels))
