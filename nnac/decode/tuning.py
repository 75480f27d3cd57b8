"""Weights of fusion, found on a development set: every fusion on the same grid, every point once, resumable.

The encoder runs once for all points.  Results go to a file of JSON lines, one a point, behind a first line that says
what they belong to (network, sentences, language models, beam); what is there is not done again, and a file of
something else is refused.

The optimum is narrow: on the domain this was made for, twice the best weights lose all that fusion gains.  So weights
are tuned, and belong to one domain; and an order among fusions means something only where each had the same grid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, evolve, field, frozen
from attrs.validators import ge, in_
from numpy.typing import NDArray

from nnac.checked import Wrong, checked, parse_json
from nnac.decode.front_end import by_length, pad
from nnac.decode.fusion import Fusion, LanguageModel
from nnac.decode.search import Found, Search
from nnac.decode.search import numpy as _numpy
from nnac.decode.search.beam import Beam
from nnac.errors import UserError
from nnac.files import append, atomic, read_text
from nnac.speech.wer import WordErrors, word_errors

FUSIONS = ("none", "shallow", "density_ratio", "internal")
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.6)          # of the target's language model
SHARES = (0.5, 0.75, 1.0)                    # of that weight, taken off for the source's or the internal one
BONUSES = (0.0, 0.2, 0.4, 0.6)                       # nats a label


class TuningError(UserError):
    """Results that belong to something else, or a file that is none; one line."""


@frozen
class Point:
    """One setting.  ``weight`` of the target's model, ``less`` of the source's or the internal one (positive: it is
    taken off)."""

    fusion: str = field(validator=in_(FUSIONS))
    weight: float = 0.0
    less: float = 0.0
    bonus: float = 0.0

    def build(self, target: LanguageModel | str | None, source: LanguageModel | str | None) -> Fusion:
        """The fusion; ValueError if a model that it needs is absent."""
        if self.fusion == "none":
            return Fusion(bonus=self.bonus)
        if target is None or (self.fusion == "density_ratio" and source is None):
            raise ValueError(f"{self.fusion} needs a language model that was not given")
        if self.fusion == "density_ratio":
            assert source is not None
            return Fusion((target, source), (self.weight, -self.less), bonus=self.bonus)
        return Fusion((target,), (self.weight,), internal=-self.less, bonus=self.bonus)

    def options(self) -> str:
        """The same for `nnac run`."""
        out = "--search beam"
        if self.fusion != "none":
            out += f" --lm-scale {self.weight:g}"
        if self.less:
            out += f" --{'source' if self.fusion == 'density_ratio' else 'ilm'}-scale {self.less:g}"
        return out + (f" --length-bonus {self.bonus:g}" if self.bonus else "")


def grid(fusions: Sequence[str] = FUSIONS, weights: Sequence[float] = WEIGHTS, shares: Sequence[float] = SHARES,
         bonuses: Sequence[float] = BONUSES) -> list[Point]:
    """Every point: the same weights and bonuses for all fusions, the same shares for both that take something off."""
    out = []
    for fusion in fusions:
        for bonus in bonuses:
            if fusion == "none":
                out.append(Point(fusion, bonus=bonus))
                continue
            for w in weights:
                less = [0.0] if fusion == "shallow" else [round(w * s, 6) for s in shares]
                out += [Point(fusion, w, v, bonus) for v in less]
    return out


@frozen(eq=False)
class Encoded:
    """A set of utterances behind the encoder: (their indices, frames [T, B, …], lengths [B]) a batch."""

    batches: list[tuple[list[int], Any, NDArray]]
    count: int

    @classmethod
    def of(cls, model: Any, features: Sequence[NDArray], batch: int = 64,
           carry: Callable[[NDArray], Any] | None = None) -> Encoded:
        """features  normalised, [T, bins] each      carry  as in `nnac.decode.front_end.recognise`"""
        batches = []
        for rows in by_length([len(f) for f in features], batch):
            x, lengths = pad([features[i] for i in rows])
            frames, left = model.encode(carry(x) if carry else x, lengths)
            batches.append((rows, frames, _numpy(left)))
        return cls(batches, len(features))

    def over(self, model: Any, search: Search) -> Iterator[tuple[list[int], Found]]:
        """What a search finds in each batch: (indices of its utterances, found)."""
        for rows, frames, lengths in self.batches:
            yield rows, search.over(model, frames, lengths)

    def texts(self, model: Any, search: Search, text: Callable[[Sequence[int]], str]) -> list[str]:
        """What a search makes of them."""
        out = [""] * self.count
        for rows, found in self.over(model, search):
            for i, h in zip(rows, found.best, strict=True):
                out[i] = text(h.tokens)
        return out


@frozen
class Result:
    """A point and its word errors."""

    point: Point
    errors: int = field(validator=ge(0))
    words: int = field(validator=ge(0))
    per_utterance: tuple[int, ...] = field(repr=False)

    @property
    def rate(self) -> float:
        return 100.0 * self.errors / max(1, self.words)


@frozen
class _Head:
    """The first line of a file of results; any other is a `Result`."""

    of: str


def identity(**parts: Any) -> str:
    """One name for what results belong to."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load(path: str | os.PathLike[str], belongs: str) -> dict[Point, Result]:
    """The results of an earlier run; none if there is no file.  TuningError: of something else, or damaged before its
    last line."""
    if not Path(path).exists():
        return {}
    out: dict[Point, Result] = {}
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if number == 1:
                if checked(_Head, parse_json(line)).of != belongs:
                    raise TuningError(f"{path}: of another network, set, language model or beam: name another file")
                continue
            row = checked(Result, parse_json(line))
            out[row.point] = row
        except Wrong:
            if number == len(lines) > 1:                   # stopped while it was written: that point is done again
                break
            raise TuningError(f"{path}:{number}: not a result of `nnac tune-fusion`") from None
    if lines != [""] and not lines[0].strip():             # the first line is ours, or the file is not
        raise TuningError(f"{path}:1: not a result of `nnac tune-fusion`")
    return out


def tune(model: Any, heard: Encoded, references: Sequence[str], text: Callable[[Sequence[int]], str], beam: Beam,
         points: Sequence[Point], models: tuple[LanguageModel | str | None, LanguageModel | str | None],
         path: str | os.PathLike[str], belongs: str) -> Iterator[Result]:
    """The result of every point, in order; those that ``path`` does not have yet are found and kept there."""
    known = load(path, belongs)
    with atomic(path, "w") as out:                         # whole lines only, also after a stop in the middle of one
        out.write(json.dumps({"of": belongs}) + "\n" + "".join(_line(r) for r in known.values()))
    for point in points:
        if point not in known:
            search = evolve(beam, fusion=point.build(*models))
            errors: WordErrors = word_errors(references, heard.texts(model, search, text))
            known[point] = Result(point, errors.errors, errors.words, errors.per_utterance)
            with append(path) as file:
                file.write(_line(known[point]).encode())
        yield known[point]


def _line(r: Result) -> str:
    return json.dumps(dict(point=asdict(r.point), errors=r.errors, words=r.words, per_utterance=r.per_utterance)) + "\n"


def best(results: Sequence[Result]) -> dict[str, Result]:
    """The best point of each fusion; among equals the one with the least weights."""
    order = sorted(results, key=lambda r: (r.errors, r.point.weight, r.point.less, abs(r.point.bonus)))
    out: dict[str, Result] = {}
    for r in order:
        out.setdefault(r.point.fusion, r)
    return out


def at_the_edge(point: Point, points: Sequence[Point]) -> bool:
    """Whether the grid ends at this point's weight or bonus: the best may lie beyond."""
    same = [p for p in points if p.fusion == point.fusion]
    return any(len({getattr(p, k) for p in same}) > 1 and getattr(point, k) == max(getattr(p, k) for p in same)
               for k in ("weight", "bonus"))


def features_digest(features: Sequence[NDArray]) -> str:
    """SHA-256 of what a set sounds like."""
    total = sha256()
    for f in features:
        total.update(np.ascontiguousarray(f).tobytes())
    return total.hexdigest()
