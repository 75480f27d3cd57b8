"""Batches: which utterances, in which order, as padded time-first tensors.  A function of seed, epoch and step; nothing
remembers.

In:  a corpus split with its token ids.
Out: `Batch` for step s, shard k.  Shards of one step hold utterances of like length, so
that processes which take one shard each finish together.
"""

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

from nnac.speech.corpus import Split
from nnac.speech.features import Normalisation
from nnac.speech.tokens import LETTERS, Tokens


@frozen(eq=False)
class Batch:
    """features [T, B, bins] normalised, zero where padded; tokens [B, U] and letters [B, L] zero where padded; lengths
    [B]."""

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_counts: Tensor
    letters: Tensor
    letter_counts: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, a.name).to(device, non_blocking=True) for a in fields(Batch)))


@frozen(eq=False, slots=False)
class Examples:
    """A split ready to be batched."""

    split: Split
    tokens: Tokens
    normalisation: Normalisation

    @cached_property
    def token_ids(self) -> list[list[int]]:
        return [self.tokens.encode(t) for t in self.split.texts]

    @cached_property
    def letter_ids(self) -> list[list[int]]:
        return [LETTERS.encode(t) for t in self.split.texts]

    @cached_property
    def frames(self) -> NDArray:
        return np.array([len(f) for f in self.split.features])

    def __len__(self) -> int:
        return len(self.split)

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the corpus it was trained on."""
        return {"utterances": len(self), "frames": int(self.frames.sum()), "recipe": self.split.recipe.to_json()}

    def batch(self, rows: NDArray, augment: Generator | None = None) -> Batch:
        """Utterances ``rows`` as tensors; ``augment``: draw a SpecAugment mask for each from this generator."""
        features = np.zeros((int(self.frames[rows].max()), len(rows), self.split.features[rows[0]].shape[1]),
                            np.float32)
        for b, i in enumerate(rows):
            x = self.normalisation.apply(self.split.features[i])
            if augment is not None:
                mask(x, augment)
            features[: len(x), b] = x
        tokens, token_counts = padded([self.token_ids[i] for i in rows])
        letters, letter_counts = padded([self.letter_ids[i] for i in rows])
        return Batch(torch.from_numpy(features), torch.from_numpy(self.frames[rows]), tokens, token_counts, letters,
                     letter_counts)


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids as [B, U], zero where padded, and how many of each are its own [B]."""
    out = np.zeros((len(ids), max(map(len, ids))), np.int64)
    for b, row in enumerate(ids):
        out[b, : len(row)] = row
    return torch.from_numpy(out), torch.tensor([len(row) for row in ids])


def mask(x: NDArray, r: Generator, bands: int = 2, bins: int = 6, gaps: int = 2, share: float = 0.06) -> None:
    """SpecAugment (arXiv 1904.08779), in place: bands of up to ``bins`` bins and gaps up to ``share`` long become the
    mean."""
    T, F = x.shape
    for _ in range(bands):
        width = min(F, int(r.integers(0, bins + 1)))
        low = int(r.integers(0, F - width + 1))
        x[:, low : low + width] = 0
    for _ in range(gaps):
        width = int(r.integers(0, max(2, int(share * T))))
        low = int(r.integers(0, T - width + 1))
        x[low : low + width] = 0


def grouped(frames: NDArray, size: int, r: Generator | None = None) -> list[NDArray]:
    """Rows sorted by length (jittered by ``r``), cut so that a padded batch has at most ``size`` frames; shortest
    first."""
    key = frames + (r.uniform(0, 25, len(frames)) if r is not None else 0.0)
    out: list[NDArray] = []
    rows: list[int] = []
    longest = 0
    for i in np.argsort(key, kind="stable"):
        if rows and max(longest, frames[i]) * (len(rows) + 1) > size:
            out.append(np.array(rows))
            rows, longest = [], 0
        rows.append(int(i))
        longest = max(longest, int(frames[i]))
    return [*out, np.array(rows)] if rows else out


def epoch_order(frames: NDArray, size: int, shards: int, seed: int, epoch: int) -> list[list[NDArray]]:
    """The steps of an epoch: each ``shards`` batches of like length.  What does not fill a step waits for another
    epoch."""
    r = np.random.default_rng([seed, 11, epoch])
    batches = grouped(frames, size, r)
    spare = len(batches) % shards
    for _ in range(spare):  # leave out a random batch, never always the longest
        batches.pop(int(r.integers(len(batches))))
    steps = [batches[k : k + shards] for k in range(0, len(batches), shards)]
    r.shuffle(steps)
    return steps
