"""Word error rate, counted by `jiwer`, and how sure one may be of it.

Intervals are bootstraps over utterances; a comparison of two systems is paired (the same draw of utterances for both),
which shows differences far smaller than either rate's own interval.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray


@frozen
class WordErrors:
    """Counts over a set.  ``per_utterance``: errors of each utterance; ``words_per_utterance``: its reference words."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    per_utterance: tuple[int, ...]
    words_per_utterance: tuple[int, ...]

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word, in per cent; 0 for a set without words or errors."""
        return 100.0 * self.errors / max(1, self.words)

    def __str__(self) -> str:
        kinds = f"{self.substitutions} S, {self.deletions} D, {self.insertions} I"
        return f"{self.rate:.2f} % ({self.errors} errors in {self.words} words: {kinds})"


def normalised(text: str) -> str:
    """A text as it is compared where case and punctuation do not matter: lower case, typographic apostrophes as plain
    ones, no other punctuation than apostrophes and hyphens within words (a hyphen parts them), single spaces.

    Marks of accents and digits stay: to write them otherwise is another language's, or a number's, own matter.  Source:
    our choice.
    """
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LNM" else " " for c in plain)
    return " ".join(word for w in kept.split() if (word := w.strip("'")))


_APOSTROPHES = {ord(c): "'" for c in "\u2018\u2019\u02bc\u02b9\u00b4`"}


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Fewest word substitutions, deletions and insertions, utterance by utterance.  An empty reference counts its
    insertions."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, {len(hypotheses)} hypotheses")
    import jiwer

    s = d = i = 0
    errors, words = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        if reference.split():  # jiwer refuses an empty reference
            out = jiwer.process_words(" ".join(reference.split()), " ".join(hypothesis.split()))
            counts = out.substitutions, out.deletions, out.insertions
        else:
            counts = 0, 0, len(hypothesis.split())
        s, d, i = s + counts[0], d + counts[1], i + counts[2]
        errors.append(sum(counts))
        words.append(len(reference.split()))
    return WordErrors(s, d, i, sum(words), tuple(errors), tuple(words))


def _draws(utterances: int, samples: int, seed: int) -> NDArray:
    return np.random.default_rng(seed).multinomial(utterances, np.full(utterances, 1 / utterances), size=samples)


def rate_interval(errors: WordErrors, level: float = 0.95, samples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """(low, high) in per cent of the word error rate."""
    weights = _draws(len(errors.per_utterance), samples, seed)
    rates = 100.0 * (weights @ np.array(errors.per_utterance)) / np.maximum(1,
        weights @ np.array(errors.words_per_utterance))
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference_interval(
    a: WordErrors, b: WordErrors, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) in per cent points of rate(b) - rate(a), paired: both over the same utterances in the same order."""
    if a.words_per_utterance != b.words_per_utterance:
        raise ValueError("a paired comparison needs the same utterances in the same order")
    weights = _draws(len(a.per_utterance), samples, seed)
    more = np.array(b.per_utterance) - np.array(a.per_utterance)
    points = 100.0 * (weights @ more) / np.maximum(1, weights @ np.array(a.words_per_utterance))
    low, high = np.quantile(points, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
