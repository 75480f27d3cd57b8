"""One process that makes utterances: reads jobs from stdin, writes shards or WAV files, answers one JSON line per job.

In:  first line {"directory", "recipe"}; then one line per job: ["shard" | "wav", split, low, high].
Out: {"done": n} or {"error": text}.
This process initialises espeak-ng and never speaks in it (see `espeak`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from attrs import evolve, frozen
from numpy.random import Generator
from numpy.typing import NDArray

from nnac.files import atomic
from nnac.speech import acoustics, espeak, home
from nnac.speech.audio import Utterance, write_wav
from nnac.speech.corpus import HARDER, SHARD, SPLITS, Recipe, shard_path, write_wav_manifest
from nnac.speech.features import log_mel
from nnac.speech.sentences import allowed

_TALKERS, _TALKER_SEED = 40, 1000  # clean utterances that babble is made of, and what is added to the seed for them


@frozen(eq=False)
class Spoken:
    """samples int16 at the recipe's rate; speech_end: seconds from the first to the end of the last word."""

    samples: NDArray
    text: str
    voice: str
    speech_end: float


def draw_voice(r: Generator, split: str) -> str:
    """accent+variant: of the new ones for ``voice``, else of the training ones."""

    def a(names: tuple[str, ...]) -> str:
        return names[int(r.integers(len(names)))]

    if split == "voice":
        return f"{a(espeak.ACCENTS + espeak.NEW_ACCENTS)}+{a(espeak.NEW_VARIANTS)}"
    return f"{a(espeak.ACCENTS)}+{a(espeak.VARIANTS)}"


class Speaker:
    """Makes utterances of one recipe.  Never speaks in its own process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self._engine = recipe, espeak.Espeak()
        clean = [
            self._clean(np.random.default_rng([recipe.seed + _TALKER_SEED, SPLITS["train"], i]), "train", i)[0]
            for i in range(_TALKERS)
        ]
        self._home: dict[str, list[str]] = {}
        self._talkers = [x / np.float32(acoustics.root_mean_square(x)) for x in clean]

    def _clean(self, r: Generator, split: str, index: int) -> tuple[NDArray, str, str]:
        text = self._at_home(split, index) if split in home.STREAMS else allowed(r, split == "train")
        voice = draw_voice(r, split)
        samples = self._engine.speak(text, voice, int(r.integers(135, 215)), int(r.integers(15, 85)))
        conditions = self.recipe.conditions
        factor = r.uniform(conditions.warp_low, conditions.warp_high)
        return acoustics.warp(samples, self._engine.rate, self.recipe.features.rate, factor), text, voice

    def _at_home(self, split: str, index: int) -> str:
        """Sentence ``index`` of a household's stream; those before it have to be drawn as well."""
        said = self._home.get(split, [])
        if len(said) <= index:
            said = self._home[split] = home.sentences(split, self.recipe.seed, max(SHARD, 2 * index))
        return said[index]

    def utterance(self, split: str, index: int) -> Spoken:
        """Utterance ``index`` of ``split``: a function of the recipe, the split and the index."""
        r = np.random.default_rng([self.recipe.seed, SPLITS[split], index])
        clean, text, voice = self._clean(r, split, index)
        rate = self.recipe.features.rate
        around = acoustics.pauses(r, rate)
        conditions = evolve(self.recipe.conditions, **HARDER) if split == "noise" else self.recipe.conditions
        samples = acoustics.microphone(clean, around, r, conditions, self._talkers, rate)
        return Spoken(samples, text, voice, round((around[0] + acoustics.last_sample(clean)) / rate, 4))


def write_shard(speaker: Speaker, directory: Path, split: str, low: int, high: int) -> None:
    from safetensors.numpy import save

    spec, features, rows = speaker.recipe.features, [], []
    for index in range(low, high):
        spoken = speaker.utterance(split, index)
        features.append(log_mel(spoken.samples / np.float32(32768), spec).astype(np.float16))
        rows.append(
            {
                "frames": len(features[-1]),
                "text": spoken.text,
                "voice": spoken.voice,
                "seconds": round(len(spoken.samples) / spec.rate, 3),
                "speech_end": spoken.speech_end,
            }
        )
    data = save({"features": np.concatenate(features)}, {"utterances": json.dumps(rows)})
    with atomic(shard_path(directory, split, low // SHARD)) as out:
        out.write(data)


def write_wavs(speaker: Speaker, directory: Path, split: str, low: int, high: int) -> None:
    rows = []
    for index in range(low, high):
        spoken, name = speaker.utterance(split, index), f"wav/{split}-{index:04d}.wav"
        write_wav(directory / name, spoken.samples, speaker.recipe.features.rate)
        seconds = round(len(spoken.samples) / speaker.recipe.features.rate, 3)
        rows.append(Utterance(name, spoken.text, seconds, spoken.speech_end))
    write_wav_manifest(directory, split, rows)


def main() -> int:
    first = sys.stdin.readline()
    if not first:
        return 0
    setup = json.loads(first)
    directory = Path(setup["directory"])
    speaker = None
    for line in sys.stdin:
        kind, split, low, high = json.loads(line)
        try:
            speaker = speaker or Speaker(Recipe.from_json(setup["recipe"]))
            {"shard": write_shard, "wav": write_wavs}[kind](speaker, directory, split, low, high)
            answer: dict = {"done": high - low}
        except (espeak.EspeakError, OSError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
