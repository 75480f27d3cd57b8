"""One run's result as a small JSON file.

Word errors are kept for every utterance (one character each), with its speaker and its loss: what may be concluded from
several runs is decided from these (`nnac.report.statistics`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, frozen

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
class Searched:
    """What one search of a run found.

    fusion, beam      which; ``options``: its weights, as `nnac run` takes them
    heard             split -> Heard
    cycles_per_frame  of a recognition on the domain, search and language models included, per encoder step, as the
                      program can be called; None for the float network
    upl, engine       of each utterance of the domain, microseconds with blanks between (`nnac.latency.simulate`, its
                      default scenario); "" for the float network
    checked, different, different_nbest
                      integers compared between training module and emulator, those that differ, and n-best lists that
                      do
    """

    fusion: str
    beam: int
    options: str
    heard: dict[str, Heard]
    cycles_per_frame: float | None = None
    upl: str = ""
    engine: str = ""
    checked: int = 0
    different: int = 0
    different_nbest: int = 0

    @property
    def upl_s(self) -> list[float]:
        """Seconds."""
        return [1e-6 * int(v) for v in self.upl.split()]


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
    searched       what beam search found, each search of the experiments' `[search]`
    languages      language model beside it -> [weights, bytes]: not counted in ``weights`` and ``bytes``
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
    searched: tuple[Searched, ...] = ()
    languages: dict[str, tuple[int, ...]] = field(factory=dict)
    notes: dict[str, Any] = field(factory=dict)

    def by(self, fusion: str, beam: int) -> Outcome | None:
        """This run as one of its searches found it: word errors, cycles and comparison of that search; None if it was
        not made."""
        found = next((s for s in self.searched if (s.fusion, s.beam) == (fusion, beam)), None)
        if found is None:
            return None
        return evolve(self, heard=found.heard, cycles_per_frame=found.cycles_per_frame, searched=(found,),
                      checked=found.checked, different=found.different)

    @property
    def cycles_per_second(self) -> float | None:
        """Of audio: what steps of unequal length are compared by."""
        return self.cycles_per_frame and self.frame_ms and 1000 * self.cycles_per_frame / self.frame_ms

    @property
    def whole(self) -> tuple[int, int]:
        """(weights, bytes) with the language models."""
        return (self.weights + sum(w for w, _ in self.languages.values()),
                self.bytes + sum(b for _, b in self.languages.values()))

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
        every = [outcome.heard, *(s.heard for s in outcome.searched)]
        for split, h in (pair for heard in every for pair in heard.items()):
            if len(h.errors) != len(h.lengths) or not set(h.errors + h.lengths + h.speakers) <= set(DIGITS) or (
                    h.speakers and len(h.speakers) != 2 * len(h.errors)) or (h.losses
                                                                             and len(h.losses) != len(h.errors)):
                raise ValueError(f"split {split}: damaged counts")
            counts = (h.substitutions, h.deletions, h.insertions, h.words)
            if min(counts) < 0 or sum(unpacked(h.lengths)) != h.words or sum(unpacked(h.errors)) > sum(counts[:3]):
                raise ValueError(f"split {split}: damaged counts: {h.words} words and {sum(counts[:3])} errors are not "
                                 f"those of its utterances")
        if not all(heard and all(h.lengths for h in heard.values()) for heard in every):
            raise ValueError("it heard no utterances")
        if any(len(pair) != 2 or min(pair) < 0 for pair in outcome.languages.values()) or any(
                min(s.checked, s.different, s.different_nbest, s.beam - 1, *map(int, f"{s.upl} {s.engine}".split())) < 0
                for s in outcome.searched):
            raise ValueError("a count below zero, or a language model without weights and bytes")
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
