"""One run's result as a small JSON file.

Word errors are kept for every utterance (one character each), with its speaker and its loss: what may be concluded from
several runs is decided from these (`nnac.report.statistics`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from nnac.checked import checked, parse_json
from nnac.errors import UserError
from nnac.files import TEXT_LIMIT, FileError, atomic, read
from nnac.speech.wer import WordErrors

VERSION = 1
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class OutcomeError(UserError):
    """A result file that is damaged or of another version; one line."""


@frozen
class Heard:
    """Word errors on one split: counts, and for each utterance errors and reference words as one character (base 36, at
    most 35).

    speakers   two characters an utterance (base 36): which speaker of the split; "" where that is not known
    losses     nats an utterance, in thousandths; () where they were not measured
    """

    substitutions: int
    deletions: int
    insertions: int
    words: int
    errors: str
    lengths: str
    speakers: str = ""
    losses: tuple[int, ...] = ()

    @classmethod
    def of(cls, e: WordErrors, voices: Sequence[str] = (), losses: Sequence[float] = ()) -> Heard:
        """``voices``: accent+variant of each utterance (the corpus has them): the variant is the speaker.  losses:
        nats."""
        if max(e.words_per_utterance, default=0) > 35:
            raise ValueError("an utterance has more than 35 words: too long for a result file")
        for what, given in (("voices", voices), ("losses", losses)):
            if given and len(given) != len(e.per_utterance):
                raise ValueError(f"{len(given)} {what} of {len(e.per_utterance)} utterances")
        pack = lambda counts: "".join(DIGITS[min(c, 35)] for c in counts)  # noqa: E731
        return cls(e.substitutions, e.deletions, e.insertions, e.words, pack(e.per_utterance),
                   pack(e.words_per_utterance),
                   packed_speakers(voices), tuple(round(1000 * x) for x in losses))

    @property
    def speaker_names(self) -> list[str]:
        """Of each utterance."""
        return [self.speakers[i:i + 2] for i in range(0, len(self.speakers), 2)]

    @property
    def rate(self) -> float:
        """Per cent."""
        return 100.0 * (self.substitutions + self.deletions + self.insertions) / max(1, self.words)


def packed_speakers(voices: Sequence[str]) -> str:
    """The speaker of each utterance, two characters: speakers are numbered in the order of their names.  ValueError for
    more than 1,296."""
    people = [v.partition("+")[2] or v for v in voices]
    numbers = {name: i for i, name in enumerate(sorted(set(people)))}
    if len(numbers) > len(DIGITS) ** 2:
        raise ValueError(f"{len(numbers)} speakers: a result file numbers at most {len(DIGITS) ** 2}")
    return "".join(DIGITS[n // 36] + DIGITS[n % 36] for n in map(numbers.__getitem__, people))


def unpacked(text: str) -> list[int]:
    """Counts of utterances from their characters."""
    return [DIGITS.index(c) for c in text]


@frozen
class Outcome:
    """What one run measured.

    row, seed      which run            digest  of its plan ("" for the float network)      commit  of the code
    start          digest of the float network that it started from      target  machine that it was compiled for
    heard          split -> Heard       weights  their number
    bytes  of all compressed weights in the program (float: 4 a weight)
    program_bytes  of the file
    cycles_per_frame  of a recognition, all entries, per encoder step; None for the float network
    frame_ms       audio of an encoder step      clock  Hz      bits  weight path -> bits a weight
    codecs  path -> codec
    checked, different  integers compared between training module and emulator, and those that differ
    steps          of training          wall_s  of the run, all stages and sittings
    notes  anything else, plain JSON
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
        data = parse_json(read(path, TEXT_LIMIT))
        if not isinstance(data, dict) or data.pop("nnac_result", None) != VERSION:
            raise ValueError(f"not a result of version {VERSION}")
        outcome = checked(Outcome, data)
        for split, h in outcome.heard.items():
            if len(h.errors) != len(h.lengths) or not set(h.errors + h.lengths + h.speakers) <= set(DIGITS) or (
                    h.speakers and len(h.speakers) != 2 * len(h.errors)) or (h.losses
                                                                             and len(h.losses) != len(h.errors)):
                raise ValueError(f"split {split}: damaged counts")
            counts = (h.substitutions, h.deletions, h.insertions, h.words)
            if min(counts) < 0 or sum(unpacked(h.lengths)) != h.words or sum(unpacked(h.errors)) > sum(counts[:3]):
                raise ValueError(f"split {split}: damaged counts: {h.words} words and {sum(counts[:3])} errors are not "
                                 f"those of its utterances")
        if not outcome.heard or not all(h.lengths for h in outcome.heard.values()):
            raise ValueError("it heard no utterances")
        if min(outcome.weights, outcome.bytes, outcome.seed, outcome.checked, outcome.different, outcome.steps,
               outcome.wall_s,
               outcome.program_bytes or 0, outcome.cycles_per_frame or 0, outcome.frame_ms or 0, outcome.clock
               or 0) < 0:
            raise ValueError("a count below zero")
        return outcome
    except FileError as error:
        raise OutcomeError(str(error)) from None
    except ValueError as error:
        raise OutcomeError(f"{path}: {error}") from None


def load_all(folder: Path, rows: Iterable[tuple[str, int]], useless: Container[Path] = ()) -> dict[str, list[Outcome]]:
    """Row -> its outcomes by seed, of those that are there and not ``useless``.  OutcomeError if they did not hear the
    same utterances."""
    found: dict[str, list[Outcome]] = {}
    for row, seeds in rows:
        found[row] = [load(p) for s in range(seeds) if (p := path_of(folder, row, s)).is_file() and p not in useless]
    heard: dict[tuple, str] = {}
    for o in (o for group in found.values() for o in group):
        heard.setdefault(tuple(sorted((name, h.lengths) for name, h in o.heard.items())), f"{o.row}-s{o.seed}.json")
    if len(heard) > 1:
        raise OutcomeError(f"{folder}: {' and '.join(list(heard.values())[:2])} did not hear the same utterances: keep "
                           f"them in folders of their own")
    return found
