"""One run's result as a small JSON file, and what may be concluded from several.

Word errors are kept for every utterance (one character each), so that two rows can be compared on the same utterances: paired
bootstrap, which sees differences far smaller than either rate's own interval.  With several seeds an utterance's errors are their mean,
and the seeds are drawn as well, so that an interval covers both the choice of sentences and the luck of training.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, field, frozen
from numpy.typing import NDArray

from nnac.errors import UserError
from nnac.files import atomic
from nnac.speech.wer import WordErrors

VERSION = 1
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
SAMPLES = 2000


class OutcomeError(UserError):
    """A result file that is damaged or of another version; one line."""


@frozen
class Heard:
    """Word errors on one split: counts, and for each utterance errors and reference words as one character (base 36, at most 35)."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    errors: str
    lengths: str

    @classmethod
    def of(cls, e: WordErrors) -> Heard:
        if max(e.words_per_utterance, default=0) > 35:
            raise ValueError("an utterance has more than 35 words: too long for a result file")
        pack = lambda counts: "".join(DIGITS[min(c, 35)] for c in counts)  # noqa: E731
        return cls(e.substitutions, e.deletions, e.insertions, e.words, pack(e.per_utterance), pack(e.words_per_utterance))

    @property
    def rate(self) -> float:
        """Per cent."""
        return 100.0 * (self.substitutions + self.deletions + self.insertions) / max(1, self.words)


@frozen
class Outcome:
    """What one run measured.

    row, seed      which run            digest  of its plan ("" for the float network)      commit  of the code
    start          digest of the float network that it started from      target  machine that it was compiled for
    heard          split -> Heard       weights  their number      bytes  of all compressed weights in the program (float: 4 a weight)
    program_bytes  of the file          cycles_per_frame  of a recognition, all entries, per encoder step; None for the float network
    frame_ms       audio of an encoder step      clock  Hz      bits  weight path -> bits a weight      codecs  path -> codec
    checked, different  integers compared between training module and emulator, and those that differ
    steps          of training          wall_s  of the run, all stages and sittings      notes  anything else, plain JSON
    """

    row: str
    seed: int
    digest: str
    commit: str
    heard: dict[str, Heard]
    weights: int
    bytes: int
    program_bytes: int | None = None
    cycles_per_frame: float | None = None
    frame_ms: float | None = None
    clock: int | None = None
    bits: dict[str, float] = field(factory=dict)
    codecs: dict[str, str] = field(factory=dict)
    checked: int = 0
    different: int = 0
    steps: int = 0
    start: str = ""
    target: str = ""
    wall_s: float = 0.0
    notes: dict[str, Any] = field(factory=dict)

    @property
    def rate(self) -> float:
        """Word error rate over all splits, per cent."""
        errors = sum(h.substitutions + h.deletions + h.insertions for h in self.heard.values())
        return 100.0 * errors / max(1, sum(h.words for h in self.heard.values()))

    @property
    def latency_ms(self) -> float | None:
        """Machine time for one encoder step."""
        return None if self.cycles_per_frame is None or not self.clock else 1e3 * self.cycles_per_frame / self.clock


def save(folder: Path, outcome: Outcome) -> Path:
    """Write ``folder/ROW-sSEED.json``, whole or not at all."""
    path = path_of(folder, outcome.row, outcome.seed)
    with atomic(path, "w") as out:
        json.dump({"nnac_result": VERSION} | asdict(outcome), out, indent=1)
        out.write("\n")
    return path


def path_of(folder: Path, row: str, seed: int) -> Path:
    return folder / f"{row}-s{seed}.json"


def load(path: Path) -> Outcome:
    """OutcomeError if it is not a result file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("nnac_result", None) != VERSION:
            raise ValueError(f"not a result of version {VERSION}")
        data["heard"] = {k: Heard(**v) for k, v in data["heard"].items()}
        outcome = Outcome(**data)
        for split, h in outcome.heard.items():
            if len(h.errors) != len(h.lengths) or not set(h.errors + h.lengths) <= set(DIGITS):
                raise ValueError(f"split {split}: damaged counts")
        return outcome
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutcomeError(f"{path}: {error}") from None


def load_all(folder: Path, rows: Iterable[tuple[str, int]], useless: Container[Path] = ()) -> dict[str, list[Outcome]]:
    """Row -> its outcomes by seed, of those that are there and not ``useless``.  OutcomeError if they did not hear the same utterances."""
    found: dict[str, list[Outcome]] = {}
    for row, seeds in rows:
        found[row] = [load(p) for s in range(seeds) if (p := path_of(folder, row, s)).is_file() and p not in useless]
    heard: dict[tuple, str] = {}
    for o in (o for group in found.values() for o in group):
        heard.setdefault(tuple(sorted((name, h.lengths) for name, h in o.heard.items())), f"{o.row}-s{o.seed}.json")
    if len(heard) > 1:
        raise OutcomeError(f"{folder}: {' and '.join(list(heard.values())[:2])} did not hear the same utterances: keep them in folders of their own")
    return found


# ------------------------------------------------------------------------------------------------ statistics

def _counts(outcomes: Sequence[Outcome]) -> tuple[NDArray, NDArray]:
    """(errors [seeds, utterances], words [utterances]) over all splits, in the splits' order.  ValueError if seeds heard other utterances."""
    unpack = lambda text: [DIGITS.index(c) for c in text]  # noqa: E731
    lengths = ["".join(h.lengths for _, h in sorted(o.heard.items())) for o in outcomes]
    if len(set(lengths)) != 1:
        raise ValueError("the runs did not hear the same utterances")
    return np.array([unpack("".join(h.errors for _, h in sorted(o.heard.items()))) for o in outcomes]), np.array(unpack(lengths[0]))


def _draws(errors: NDArray, seeds: NDArray, utterances: NDArray) -> NDArray:
    """Errors of each bootstrap sample: [samples].  seeds [samples, S], utterances [samples, U]: how often each was drawn."""
    return np.einsum("bs,su,bu->b", seeds / seeds.sum(1, keepdims=True), errors, utterances, optimize=True)


@lru_cache(maxsize=2)
def _utterances_drawn(n: int, samples: int) -> NDArray:
    """How often each of n utterances is in each sample: the same for every row, so that rows are paired.  [samples, n]"""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)


def _bootstrap(groups: Sequence[NDArray], words: NDArray, samples: int = SAMPLES) -> tuple[list[NDArray], NDArray]:
    """(errors of each group's samples, words of each sample): seeds are drawn for each group on its own, utterances for all together."""
    rng = np.random.default_rng(1)
    utterances = _utterances_drawn(words.size, samples)
    drawn = [_draws(g, rng.multinomial(len(g), np.full(len(g), 1 / len(g)), size=samples).astype(np.float64), utterances) for g in groups]
    return drawn, utterances @ words


def rate(outcomes: Sequence[Outcome]) -> tuple[float, float, float]:
    """(word error rate, low, high) in per cent, 95 %: mean over seeds."""
    errors, words = _counts(outcomes)
    (drawn,), total = _bootstrap([errors], words)
    low, high = np.quantile(100 * drawn / np.maximum(1, total), [0.025, 0.975])
    return 100 * float(errors.mean(0).sum()) / max(1, int(words.sum())), float(low), float(high)


def difference(a: Sequence[Outcome], b: Sequence[Outcome], relative: bool = False) -> tuple[float, float, float]:
    """(difference, low, high) of b against a, 95 %, paired over utterances: points of word error rate, or per cent of a's errors.

    ValueError if they did not hear the same utterances.
    """
    ea, words = _counts(a)
    eb, other = _counts(b)
    if not np.array_equal(words, other):
        raise ValueError("the rows did not hear the same utterances")
    (da, db), total = _bootstrap([ea, eb], words)
    scale, centre = (np.maximum(da, 1e-9), ea.mean(0).sum()) if relative else (np.maximum(1, total), words.sum())
    low, high = np.quantile(100 * (db - da) / scale, [0.025, 0.975])
    return 100 * float(eb.mean(0).sum() - ea.mean(0).sum()) / max(1e-9, float(centre)), float(low), float(high)
