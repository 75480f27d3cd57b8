"""A model and audio files in; transcripts out, with cycles and the real-time factor where a machine counts them.  A
device's host."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.decode.front_end import hypotheses
from nnac.decode.integer import Pace, stepping
from nnac.decode.search import ROUNDS, Hypothesis, Machine, Search
from nnac.decode.search.greedy import Greedy
from nnac.decode.streams import Stream
from nnac.executors import Subject, executor
from nnac.progress import progress
from nnac.speech.wer import WordErrors, normalised, word_errors


@runtime_checkable
class Counting(Machine, Protocol):
    """An executor that counts cycles."""

    def cycles(self, entry: str) -> int:
        """Of one step of ``entry``."""
        ...


@frozen
class Recognition:
    """What was heard, and what it cost on the machine (each utterance alone, as a device would run it).

    nbest  of each utterance      rounds  of each: what the search asked for (`nnac.decode.search.ROUNDS`)
    steps  of each entry      cycles  in all, None for an engine that is no machine      clock  Hz
    audio_s, wall_s  seconds of audio, and of executing it
    """

    texts: list[str]
    errors: WordErrors | None
    steps: dict[str, int]
    cycles: int | None
    clock: int | None
    audio_s: float
    wall_s: float
    frames: int = 1            # that a step of the encoder makes
    nbest: list[list[Hypothesis]] = field(factory=list)
    rounds: list[NDArray] = field(factory=list)

    @property
    def rtf(self) -> float | None:
        """Seconds of machine time per second of audio."""
        if self.cycles is None or not self.clock:
            return None
        return self.cycles / self.clock / self.audio_s if self.audio_s else 0.0

    @property
    def cycles_per_frame(self) -> float | None:
        """All cycles, those of prediction and joint network included, per frame of the encoder."""
        return None if self.cycles is None else self.cycles / max(1, self.steps["encoder"] * self.frames)

    def totals(self) -> dict[str, Any]:
        wer = {} if self.errors is None else {"wer": self.errors.rate, "errors": self.errors.errors}
        machine = {} if self.cycles is None else {
            "cycles": self.cycles, "cycles_per_frame": self.cycles_per_frame, "rtf": self.rtf,
            "emulator_rtf": self.wall_s / self.audio_s if self.audio_s else 0.0}
        return {"utterances": len(self.texts), **wer, "steps": self.steps, **machine,
                "audio_s": round(self.audio_s, 3), "wall_s": round(self.wall_s, 3)}

    def __str__(self) -> str:
        wer = "" if self.errors is None else f"WER {self.errors}\n"
        if self.cycles is None:
            return f"{wer}{self.audio_s:.2f} s of audio in {self.wall_s:.1f} s"
        return (f"{wer}{self.audio_s:.2f} s of audio: {self.cycles:,} cycles, {self.cycles_per_frame:,.0f} a frame, "
                f"real-time factor {self.rtf:.4f} at {(self.clock or 0) / 1e6:g} MHz; emulated in {self.wall_s:.1f} s")


def recognise(subject: Subject, features: Sequence[NDArray | Stream], seconds: float,
              references: Sequence[str] | None = None, *, engine: str = "emulator", batch: int = 16,
              quiet: bool = False, search: Search | None = None, normalise: bool = False) -> Recognition:
    """Transcribe normalised features [T, bins] each; ``search`` None: greedy; ``normalise``: word errors without regard
    to case and punctuation.  EngineError: the engine cannot read this form of the model."""
    search, chosen = search or Greedy(), executor(engine, subject)
    front, begun = subject.front, time.monotonic()
    rounds: list[NDArray] = [np.zeros(0, ROUNDS) for _ in features]

    def keep(indices: list[int], asked: NDArray) -> None:
        for row, i in enumerate(indices):
            rounds[i] = asked[asked["utterance"] == row]

    with stepping(chosen) as stepper, progress(f"listening ({engine})", len(features), quiet) as advance:
        nbest = hypotheses(stepper, features, batch, advance=advance, search=search, rounds=keep)
    texts = [front.text(h[0].tokens) for h in nbest]
    pace = Pace.of(chosen)
    steps = dict(encoder=sum(pace.steps(len(f)) for f in features))
    every = np.concatenate(rounds) if rounds else np.zeros(0, ROUNDS)
    steps |= search.steps(every)
    cycles = (steps["encoder"] * chosen.cycles("encoder") + search.cycles(chosen, every)
              if isinstance(chosen, Counting) else None)
    clock = None if cycles is None else subject.program.target.clock
    alike = normalised if normalise else str
    errors = word_errors(list(map(alike, references)), list(map(alike, texts))) if references else None
    wall_s = time.monotonic() - begun
    return Recognition(texts, errors, steps, cycles, clock, seconds, wall_s, pace.frames, nbest, rounds)


def recognise_files(subject: Subject, files: Sequence[str], references: Sequence[str] | None = None,
                    **options: Any) -> Recognition:
    """Transcribe audio files.  AudioError names the first that cannot be read; ProgramError: no front end."""
    front = subject.front
    heard = front.listen_all(files)
    return recognise(subject, [features for features, _ in heard], sum(seconds for _, seconds in heard), references,
                     **options)
