"""Text to learn from: sentences, one a line, as labels of a recogniser's tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from attrs import fields, frozen
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from nnac.errors import UserError
from nnac.files import read_text
from nnac.speech.tokens import TokenError, Tokens
from nnac.train.batches import padded

EVERY = 20                     # the sentence that is held back, of so many: the dev split


class TextError(UserError):
    """A text that cannot be learned from; one line that begins with the file's name."""


def read_sentences(path: str | os.PathLike[str]) -> list[str]:
    """The sentences of a UTF-8 text file, one a line; empty lines say nothing.  TextError: too few; FileError: it
    cannot be read."""
    found = [" ".join(line.split()) for line in read_text(path).splitlines()]
    found = [line for line in found if line]
    if len(found) < 2 * EVERY:
        raise TextError(f"{path}: {len(found)} sentences (one a line) are too few to learn from; {2 * EVERY} is the "
                        f"least")
    return found


def divided(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(to learn from, to be judged by): every twentieth sentence is held back, and so is each that equals one of
    those."""
    held = list(dict.fromkeys(texts[::EVERY]))
    away = set(held)
    return [t for t in texts if t not in away], held


@frozen(eq=False)
class SentenceBatch:
    """labels [U, B], zero where padded; counts [B], how many are a sentence's own."""

    labels: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, device: torch.device | str) -> SentenceBatch:
        """The same batch on another device."""
        return SentenceBatch(*(getattr(self, a.name).to(device, non_blocking=True) for a in fields(SentenceBatch)))


@frozen(eq=False, slots=False)
class Sentences:
    """Sentences ready to be batched.  TextError names the first that the tokens cannot spell."""

    texts: Sequence[str]
    tokens: Tokens
    name: str = "text"

    def __attrs_post_init__(self) -> None:
        _ = self.label_ids                             # what cannot be spelled is said before anything is done

    @cached_property
    def label_ids(self) -> list[list[int]]:
        out = []
        for text in self.texts:
            try:
                out.append(self.tokens.encode(text))
            except TokenError as error:
                raise TextError(f"{self.name}: {error}") from None
        return out

    @cached_property
    def frames(self) -> NDArray:
        """Terms of each sentence's loss: its labels, and its end."""
        return np.array([len(ids) + 1 for ids in self.label_ids])

    @property
    def labels(self) -> int:
        """Terms in all."""
        return int(self.frames.sum())

    def __len__(self) -> int:
        return len(self.texts)

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the text it was trained on."""
        import hashlib

        digest = hashlib.sha256("\n".join(self.texts).encode()).hexdigest()
        return {"sentences": len(self), "labels": self.labels, "sha256": digest}

    def batch(self, rows: NDArray, augment: Generator | None = None) -> SentenceBatch:
        """Sentences ``rows``; nothing is drawn."""
        labels, counts = padded([self.label_ids[i] for i in rows])
        return SentenceBatch(labels.T.contiguous(), counts)
