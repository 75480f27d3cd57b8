"""A program and audio files in; transcripts, cycles and the real-time factor out.  The host's side of a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.decode.front_end import FrontEnd, hypotheses
from nnac.decode.integer import IntegerStepper
from nnac.decode.search import ROUNDS, Hypothesis, Search
from nnac.decode.search.greedy import Greedy
from nnac.emulator.executor import Emulator
from nnac.program import Program, ProgramError
from nnac.progress import progress
from nnac.speech.wer import WordErrors, word_errors


@frozen
class Recognition:
    """What a program heard, and what it cost on the machine (each utterance alone, as a device would run it).

    nbest  of each utterance      rounds  of each: what the search asked for (`nnac.decode.search.ROUNDS`)
    steps  of each entry      cycles  in all      clock  Hz      audio_s, wall_s  seconds of audio, and of emulating it
    """

    texts: list[str]
    errors: WordErrors | None
    steps: dict[str, int]
    cycles: int
    clock: int
    audio_s: float
    wall_s: float
    nbest: list[list[Hypothesis]] = field(factory=list)
    rounds: list[NDArray] = field(factory=list)

    @property
    def rtf(self) -> float:
        """Seconds of machine time per second of audio."""
        return self.cycles / self.clock / self.audio_s if self.audio_s else 0.0

    @property
    def cycles_per_frame(self) -> float:
        """All cycles, those of prediction and joint network included, per encoder step."""
        return self.cycles / max(1, self.steps["encoder"])

    def totals(self) -> dict[str, Any]:
        wer = {} if self.errors is None else {"wer": self.errors.rate, "errors": self.errors.errors}
        return {"utterances": len(self.texts), **wer, "steps": self.steps, "cycles": self.cycles, "cycles_per_frame": self.cycles_per_frame,
                "rtf": self.rtf, "audio_s": round(self.audio_s, 3), "wall_s": round(self.wall_s, 3),
                "emulator_rtf": self.wall_s / self.audio_s if self.audio_s else 0.0}

    def __str__(self) -> str:
        wer = "" if self.errors is None else f"WER {self.errors}\n"
        return (f"{wer}{self.audio_s:.2f} s of audio: {self.cycles:,} cycles, {self.cycles_per_frame:,.0f} a frame, real-time factor {self.rtf:.4f} "
                f"at {self.clock / 1e6:g} MHz; emulated in {self.wall_s:.1f} s")


def front_end_of(program: Program) -> FrontEnd:
    """The front end a program carries.  ProgramError if it carries none (a program of random weights, say)."""
    try:
        return FrontEnd.from_json(program.metadata["front_end"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProgramError(f"the program carries no usable front end (features, normalisation, tokens): {error}") from None


def recognise(program: Program, features: Sequence[NDArray], seconds: float, references: Sequence[str] | None = None, *, batch: int = 16,
              fast: bool = True, quiet: bool = False, search: Search | None = None) -> Recognition:
    """Transcribe normalised features [T, bins] each on the emulator; ``search`` None: greedy."""
    search = search or Greedy()
    front, emulator, begun = front_end_of(program), Emulator(program, fast), time.monotonic()
    stepper = IntegerStepper(emulator)
    rounds: list[NDArray] = [np.zeros(0, ROUNDS) for _ in features]

    def keep(indices: list[int], asked: NDArray) -> None:
        for row, i in enumerate(indices):
            rounds[i] = asked[asked["utterance"] == row]

    with progress("emulating", len(features), quiet) as advance:
        nbest = hypotheses(stepper, features, batch, advance=advance, search=search, rounds=keep)
    texts = [front.text(h[0].tokens) for h in nbest]
    steps = dict(encoder=stepper.steps["encoder"]) | (search.steps(np.concatenate(rounds)) if rounds else {})
    cycles = sum(n * emulator.cycles(entry) for entry, n in steps.items())
    errors = word_errors(references, texts) if references else None
    wall_s = time.monotonic() - begun
    return Recognition(texts, errors, steps, cycles, program.target.clock, seconds, wall_s, nbest, rounds)


def recognise_files(program: Program, files: Sequence[str], references: Sequence[str] | None = None, **options: Any) -> Recognition:
    """Transcribe audio files.  AudioError names the first that cannot be read; ProgramError: no front end."""
    front = front_end_of(program)
    heard = [front.hear(f) for f in files]
    return recognise(program, [features for features, _ in heard], sum(seconds for _, seconds in heard), references, **options)
