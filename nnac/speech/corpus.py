"""The corpus: sentences of a voice assistant, spoken in many voices, in rooms and noise, as features with an index.

An utterance is a function of (recipe, seed, split, index) and of nothing else: not of the number of utterances, of
workers, or of what was made before it.  Splits: ``train``; and, of sentences that are never in train, ``dev`` and
``sent`` (voices of train) and ``voice`` (voices and accents never in train); on request ``noise``, as ``sent`` in
harder noise (`HARDER`), and ``home_dev`` and ``home``, one household's sentences in the voices of train
(`nnac.speech.home`), with a text of its own for a language model.

Files of a corpus directory
  SPLIT.features.npy   float16 [frames of all utterances end to end, bins]
  SPLIT.json           {"version", "recipe", "split", "count", "sha256" of the features' bytes,
                       "utterances": [{"frames", "text", "voice", "seconds",
                                       "speech_end": seconds to the end of the last word}]}
  SPLIT.jsonl, wav/    on request: 16-bit WAV files of the first utterances of a split, and their manifest
  home.txt             the household's text, a sentence a line: none of it is in a split
  train.txt            as many sentences as training says, those of the split ``train`` first
  shards/              while it is being made: one file per 50 utterances, each whole or absent; making resumes from
                       these
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from attrs import asdict, field, frozen
from attrs.validators import ge
from numpy.typing import NDArray

from nnac.checked import checked, parse_json
from nnac.errors import ABSURD, UserError
from nnac.files import FileError, atomic, memory, read
from nnac.progress import progress
from nnac.speech import home
from nnac.speech.acoustics import Conditions
from nnac.speech.audio import Utterance, write_manifest
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.sentences import allowed

VERSION = 1
# the number enters the seed of every utterance
SPLITS = {"train": 1, "dev": 2, "sent": 3, "voice": 4, "home_dev": 5, "home": 6, "noise": 7}
# of the split ``noise``, instead of the recipe's: every utterance in noise, from as loud as the speech to where the
# recipe's middle is (our choice: more errors say more about a method)
HARDER = dict(snr_low=0.0, snr_high=15.0, noisy=1.0)
TEXTS = ("home.txt", "train.txt")
SHARD = 50  # utterances
INDEX_LIMIT = 1 << 30  # bytes
UTTERANCE_BYTES = 30_000  # of features of a usual utterance, twice: shards, then the whole


class CorpusError(UserError):
    """The corpus cannot be made or read; the message is one clear line."""


@frozen
class Recipe:
    """What an utterance depends on, besides its split and index."""

    seed: int = field(default=1, validator=ge(0))
    conditions: Conditions = field(factory=Conditions)
    features: FeatureSpec = field(factory=FeatureSpec)

    def to_json(self) -> dict:
        return asdict(self) | {"features": self.features.to_json()}

    @classmethod
    def from_json(cls, data: dict) -> Recipe:
        """ValueError: what is wrong with it."""
        return checked(cls, data, "recipe")


@frozen
class CorpusSpec:
    """A recipe and how much of each split; ``wavs``: how many utterances of each test split also become WAV files (of
    ``home`` all)."""

    recipe: Recipe = field(factory=Recipe)
    train: int = field(default=9000, validator=ge(0))
    dev: int = field(default=400, validator=ge(0))
    sent: int = field(default=1500, validator=ge(0))
    voice: int = field(default=1500, validator=ge(0))
    wavs: int = field(default=60, validator=ge(0))
    home_dev: int = field(default=0, validator=ge(0))
    home: int = field(default=0, validator=ge(0))
    noise: int = field(default=0, validator=ge(0))
    text: int = field(default=0, validator=ge(0))  # sentences of each text

    def count(self, split: str) -> int:
        return getattr(self, split)


@frozen(eq=False)
class Split:
    """One split, read.  ``features[i]``: float16 [frames, bins], a view of the file."""

    name: str
    recipe: Recipe
    features: list[NDArray]
    texts: list[str]
    voices: list[str]
    seconds: list[float]
    speech_ends: list[float | None] = field(factory=list)      # seconds; None in corpora made before it was kept

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def hours(self) -> float:
        return sum(self.seconds) / 3600

    def first(self, count: int) -> Split:
        return Split(self.name, self.recipe, self.features[:count], self.texts[:count], self.voices[:count],
                     self.seconds[:count], self.speech_ends[:count])

    def normalisation(self, utterances: int = 1000) -> Normalisation:
        """Mean and deviation per bin over the first ``utterances``."""
        return Normalisation.of(np.concatenate(self.features[:utterances]))


# ---- where things lie


def _features_path(directory: Path, split: str) -> Path:
    return directory / f"{split}.features.npy"


def shard_path(directory: Path, split: str, number: int) -> Path:
    return directory / "shards" / f"{split}-{number:04d}.safetensors"


def manifest_path(directory: str | os.PathLike, split: str) -> Path:
    return Path(directory) / f"{split}.jsonl"


# ---- reading


def _index(directory: Path, split: str) -> dict | None:
    path = directory / f"{split}.json"
    if not path.is_file():
        return None
    try:
        index = parse_json(read(path, INDEX_LIMIT))
        if isinstance(index, dict) and index.get("version") != VERSION:
            raise CorpusError(f"{path}: version {str(index.get('version'))[:40]}, this nnac reads version {VERSION}")
        checked(_Index, index)
        return index
    except FileError as error:
        raise CorpusError(str(error)) from None
    except ValueError as error:
        raise CorpusError(f"{path}: not a corpus index ({error}); remove it and make the corpus again") from None


@frozen
class _Utterance:
    OPEN: ClassVar = True
    frames: int = field(validator=ge(0))
    text: str
    voice: str
    seconds: float = field(validator=ge(0))
    speech_end: float | None = None


@frozen
class _Index:
    OPEN: ClassVar = True
    recipe: dict[str, Any]
    count: int
    sha256: str
    utterances: tuple[_Utterance, ...]


def _absent(directory: str | os.PathLike, split: str) -> CorpusError:
    return CorpusError(f"{directory}: there is no split {split!r}; make the corpus first")


def utterances(directory: str | os.PathLike, split: str) -> int:
    """How many a split has, without reading them.  CorpusError: absent."""
    index = _index(Path(directory), split)
    if index is None:
        raise _absent(directory, split)
    return len(index["utterances"])


def load_split(directory: str | os.PathLike, split: str) -> Split:
    """Read and check one split.  CorpusError: absent, damaged, or of another version."""
    directory = Path(directory)
    index = _index(directory, split)
    path = _features_path(directory, split)
    if index is None or not path.is_file():
        raise _absent(directory, split)
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
        rows, recipe = index["utterances"], Recipe.from_json(index["recipe"])
        ends = np.cumsum([r["frames"] for r in rows])
    except (OSError, *ABSURD):
        raise CorpusError(f"{path}: damaged; remove it and make the corpus again") from None
    if (
        features.ndim != 2
        or features.dtype != np.float16
        or len(features) != (ends[-1] if len(ends) else 0)
        or hashlib.sha256(features.data).hexdigest() != index["sha256"]
    ):
        raise CorpusError(f"{path}: differs from its index; remove both and make the corpus again")
    return Split(
        split,
        recipe,
        list(np.split(features, ends[:-1])) if len(ends) else [],
        [r["text"] for r in rows],
        [r["voice"] for r in rows],
        [r["seconds"] for r in rows],
        [r.get("speech_end") for r in rows],
    )


# ---- making


def build(
    directory: str | os.PathLike, spec: CorpusSpec | None = None, workers: int | None = None, quiet: bool = False
) -> dict[str, dict]:
    """Make what is missing of a corpus; return {split: {"utterances", "hours", "voices", "sentences", "sha256"}}.

    May be stopped at any time and called again: whole shards are kept.  A directory that holds another recipe is
    refused.
    """
    spec, directory = spec or CorpusSpec(), Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    asked = sum(spec.count(split) for split in SPLITS)
    room = min(2 * shutil.disk_usage(directory).free // 3, memory())
    if asked * UTTERANCE_BYTES > room + sum(f.stat().st_size for f in directory.glob("*.npy")):
        raise CorpusError(f"{directory}: {asked:,} utterances take about {2 * asked * UTTERANCE_BYTES / 1e9:,.1f} GB "
                          f"while they are made, and "
                          f"there is room for {room / 1e9:,.1f}")
    _claim(directory, spec.recipe)
    jobs = list(_missing(directory, spec))
    total = sum(high - low for _, _, low, high in jobs)
    if jobs:
        with progress("speaking", total, quiet) as advance:
            for utterances in _run(directory, spec.recipe, jobs, workers or os.cpu_count() or 1):
                advance(utterances)
    for split in SPLITS:
        if spec.count(split) and not _complete(directory, spec, split):
            _join(directory, spec, split)
    if spec.wavs:
        wanted = [s for s in ("sent", "voice", "home") if spec.count(s) and not manifest_path(directory, s).is_file()]
        counts = {s: spec.count(s) if s == "home" else min(spec.wavs, spec.count(s)) for s in wanted}
        list(_run(directory, spec.recipe, [("wav", s, 0, n) for s, n in counts.items()], workers or 1))
    if spec.text:
        _write_texts(directory, spec)
    return {split: _summary(directory, split) for split in SPLITS if spec.count(split)}


def train_sentence(seed: int, index: int) -> str:
    """What utterance ``index`` of the split ``train`` says."""
    return allowed(np.random.default_rng([seed, SPLITS["train"], index]), True)


def _write_texts(directory: Path, spec: CorpusSpec) -> None:
    """The texts for language models, unless they are there with as many sentences."""
    seed, count = spec.recipe.seed, spec.text
    makers = (lambda: home.sentences("text", seed, count), lambda: [train_sentence(seed, i) for i in range(count)])
    for path, make in zip((directory / name for name in TEXTS), makers, strict=True):
        if not path.is_file() or path.read_text("utf-8").count("\n") != count:
            with atomic(path, "w") as out:
                out.write("".join(f"{line}\n" for line in make()))


def _claim(directory: Path, recipe: Recipe) -> None:
    """Say in the directory which recipe it holds, or find out that it holds another."""
    path = directory / "recipe.json"
    mine = {"version": VERSION, **recipe.to_json()}
    if not path.is_file():
        with atomic(path, "w") as out:
            json.dump(mine, out, indent=1)
        return
    try:
        theirs = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        theirs = None
    if theirs != mine:
        raise CorpusError(
            f"{directory} holds a corpus of another recipe (see {path.name}); choose another directory or remove this "
                          f"one"
        )


def _complete(directory: Path, spec: CorpusSpec, split: str) -> bool:
    index = _index(directory, split)
    return index is not None and index["count"] == spec.count(split) and _features_path(directory, split).is_file()


def _missing(directory: Path, spec: CorpusSpec) -> Iterator[tuple[str, str, int, int]]:
    for split in SPLITS:
        count = spec.count(split)
        if not count or _complete(directory, spec, split):
            continue
        for low in range(0, count, SHARD):
            high = min(low + SHARD, count)
            if (
                not shard_path(directory, split, low // SHARD).is_file()
                or _shard_rows(directory, split, low // SHARD) != high - low
            ):
                yield "shard", split, low, high


def _shard_rows(directory: Path, split: str, number: int) -> int:
    """How many utterances a shard holds; 0 when it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard_path(directory, split, number), "numpy") as shard:
            return len(json.loads(shard.metadata()["utterances"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return 0


def _join(directory: Path, spec: CorpusSpec, split: str) -> None:
    """Shards -> features and index, then remove the shards."""
    from safetensors import safe_open

    parts, rows, paths = [], [], []
    for number in range(-(-spec.count(split) // SHARD)):
        paths.append(shard_path(directory, split, number))
        with safe_open(paths[-1], "numpy") as shard:
            parts.append(shard.get_tensor("features"))
            rows += json.loads(shard.metadata()["utterances"])
    features = np.concatenate(parts)
    with atomic(_features_path(directory, split)) as out:
        np.save(out, features, allow_pickle=False)
    index = {
        "version": VERSION,
        "recipe": spec.recipe.to_json(),
        "split": split,
        "count": len(rows),
        "sha256": hashlib.sha256(features.data).hexdigest(),
        "utterances": rows,
    }
    with atomic(directory / f"{split}.json", "w") as out:
        json.dump(index, out)
    for path in paths:
        path.unlink()
    if not any((directory / "shards").iterdir()):
        (directory / "shards").rmdir()


def _summary(directory: Path, split: str) -> dict:
    index = _index(directory, split)
    assert index is not None, "just made"
    rows = index["utterances"]
    return {
        "utterances": len(rows),
        "hours": round(sum(r["seconds"] for r in rows) / 3600, 3),
        "voices": len({r["voice"] for r in rows}),
        "sentences": len({r["text"] for r in rows}),
        "words": sum(len(r["text"].split()) for r in rows),
        "sha256": index["sha256"],
    }


def _run(directory: Path, recipe: Recipe, jobs: list[tuple[str, str, int, int]], workers: int) -> Iterator[int]:
    """Do ``jobs`` in ``workers`` fresh processes; yield the number of utterances whenever one is done.

    Fresh programs and not `multiprocessing`: a worker must never inherit threads or a library that has already spoken.
    """
    todo: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "nnac.speech.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         env=environment
        )
        for _ in range(min(workers, len(jobs)))
    ]

    def feed(process: subprocess.Popen) -> None:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"directory": str(directory), "recipe": recipe.to_json()}) + "\n")
            while not todo.empty():
                job = todo.get_nowait()
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline() or '{"error": "a corpus worker ended early"}')
                done.put(answer.get("error") or job[3] - job[2])
                if "error" in answer:
                    return
        except queue.Empty:
            pass
        except OSError:
            done.put("a corpus worker ended early")

    threads = [threading.Thread(target=feed, args=(p,), daemon=True) for p in processes]
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            result = done.get()
            if isinstance(result, str):
                raise CorpusError(result)
            yield result
    finally:
        for process in processes:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()  # a worker ends at the end of its input
        if sys.exc_info()[0] is not None:
            for process in processes:
                process.terminate()
        for process in processes:
            process.wait()


def write_wav_manifest(directory: Path, split: str, rows: list[Utterance]) -> None:
    """The manifest of the WAV files of a split; called by the worker that wrote them."""
    write_manifest(manifest_path(directory, split), rows)
