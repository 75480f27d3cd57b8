"""Audio files: one channel at the wanted rate out, block by block, whatever their length; and manifests that list them.

WAV is read here (`wav`), on every machine alike; FLAC, OGG, MP3, AIFF and WAV with coded samples through `soundfile`,
where it is installed.

A manifest is JSON lines: {"audio": path, "text": reference, "duration": seconds, "speech_end": seconds to the end of
the last word}; the last two may be left out, and a relative ``audio`` is relative to the manifest's own folder, so that
a corpus can be moved.
"""

from __future__ import annotations

import json
import math
import os
import stat
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.files import FileError, atomic, check_source, named, open_pipe, read_text, reason
from nnac.speech.wav import HIGHEST_RATE, LOWEST_RATE, AudioError, UnknownFormat, Wav

SAMPLES = 1 << 16              # of a block that another library reads
MANIFEST_LIMIT = 1 << 30       # bytes
MAGIC = ((b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b"FORM", "AIFF"), (b"caff", "CAF"), (b".snd", "AU"),
         (b"riff", "Wave64"))


@frozen
class Utterance:
    """One line of a manifest.  After `read_manifest`, ``audio`` can be opened as it stands."""

    audio: str
    text: str
    duration: float | None = None  # seconds
    speech_end: float | None = None  # seconds from the first sample to the end of the last word


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, Iterator[NDArray]]]:
    """(rate in Hz, blocks [samples, channels] of real numbers, full scale 1) of an audio file.  AudioError: it cannot
    be read."""
    try:
        status = check_source(named(path), 1 << 62)
        with open_pipe(path) if stat.S_ISFIFO(status.st_mode) else open(path, "rb") as file:
            regular = stat.S_ISREG(status.st_mode)
            if regular and status.st_size == 0:
                raise AudioError(f"{path}: the file is empty")
            known = _known_by(file.peek(12)[:12]) if regular else None
            if known is None:
                try:
                    found = Wav.open(str(path), file, status.st_size if regular else None)
                except UnknownFormat as error:
                    if not regular:
                        raise
                    known = str(error).removeprefix(f"{path}: ")
                else:
                    yield found.rate, found.blocks()
                    return
        with _by_library(path, known) as (rate, blocks):
            yield rate, blocks
    except (AudioError, FileError) as error:
        raise AudioError(str(error)) from None
    except OSError as error:
        raise AudioError(f"{path}: {reason(error)}") from None


def _known_by(start: bytes) -> str | None:
    """What a file is by its first bytes, if it is for the other library."""
    if len(start) > 2 and start[0] == 0xFF and start[1] >= 0xE2 and start[1] & 0x18 != 0x08 and start[1] & 0x06:
        return "MP3"
    return next((words for magic, words in MAGIC if start.startswith(magic)), None)


@contextmanager
def _by_library(path: str | os.PathLike[str], what: str) -> Iterator[tuple[int, Iterator[NDArray]]]:
    """As `opened`, through libsndfile."""
    try:
        import soundfile
    except (ImportError, OSError):                         # OSError: the package is there, its library is not
        raise AudioError(f"{path}: {what}: reading it takes the package soundfile: pip install 'nnac[audio]'") from None
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise AudioError(f"{path}: a sample rate of {file.samplerate} Hz; {LOWEST_RATE:,} to {HIGHEST_RATE:,} "
                                 f"Hz are read")
            yield file.samplerate, _library_blocks(file, path)
    except soundfile.LibsndfileError as error:
        words = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(f"{path}: not a {what} file that can be read ({words})") from None


def _library_blocks(file: Any, path: str | os.PathLike[str]) -> Iterator[NDArray]:
    count = max(1, SAMPLES // file.channels)
    done = 0
    while len(block := file.read(count, dtype="float64", always_2d=True)):
        if not np.isfinite(block).all():
            raise AudioError(f"{path}: holds samples that are no numbers")
        done += len(block)
        yield block
    if done < file.frames and file.format in ("FLAC", "AIFF", "AU", "CAF", "W64", "WAV", "WAVEX", "RF64"):
        raise AudioError(f"{path}: cut short: the header promises {file.frames} samples, {done} are there")


def audio_blocks(path: str | os.PathLike[str], rate: int = 16000) -> Iterator[NDArray]:
    """Blocks [samples] float32 at ``rate``: channels averaged, resampled if the file has another rate.  AudioError as
    `opened`.

    Joined they are the same numbers however large the blocks are: the resampler keeps its state between them.
    """
    with opened(path) as (own, blocks):
        mono = (block.mean(axis=1).astype(np.float32) for block in blocks)
        if own == rate:
            yield from mono
            return
        import soxr

        stream = soxr.ResampleStream(own, rate, 1, dtype="float32")
        for block in mono:
            yield stream.resample_chunk(block, last=False)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def load_audio(path: str | os.PathLike[str], rate: int = 16000) -> NDArray:
    """[samples] float32 in -1..1, all blocks of `audio_blocks` joined."""
    return np.concatenate([np.zeros(0, np.float32), *audio_blocks(path, rate)])


def write_wav(path: str | os.PathLike[str], samples: NDArray, rate: int = 16000) -> None:
    """int16 [samples] or [samples, channels] -> 16-bit PCM WAV, whole or not at all."""
    samples = np.asarray(samples)
    if samples.dtype != np.int16:
        raise ValueError(f"write_wav takes int16 samples, not {samples.dtype}")
    with atomic(path) as out, wave.open(out, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """The utterances of a JSON-lines manifest.  AudioError names file and line; whether the audio is there is seen
    later."""
    try:
        lines = read_text(path, MANIFEST_LIMIT).split("\n")
    except FileError as error:
        words = str(error)
        raise AudioError(f"{words} (a manifest is JSON lines in UTF-8: this is not a text file)" if "not text" in words
                         else words) from None
    out = [_line(line, f"{path}:{number}", Path(path).parent) for number, line in enumerate(lines, 1) if line.strip()]
    if not out:
        raise AudioError(f"{path}: lists no utterances")
    return out


def _line(line: str, where: str, folder: Path) -> Utterance:
    try:
        row = json.loads(line)
    except RecursionError:
        raise AudioError(f"{where}: brackets are nested absurdly deep") from None
    except ValueError as error:
        raise AudioError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise AudioError(f"{where}: expected an object with `audio` and `text`")
    for key in ("audio", "text"):
        if not isinstance(row.get(key), str):
            raise AudioError(f"{where}: `{key}` is {'missing' if key not in row else 'not a text'}")
    name = row["audio"]
    if not name or "\0" in name or any(0xD800 <= ord(c) < 0xDC80 or 0xDCFF < ord(c) <= 0xDFFF for c in name):
        raise AudioError(f"{where}: `audio` is {name[:60]!a}, which names no file")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in row["text"]):
        raise AudioError(f"{where}: `text` has half of a character pair")
    seconds = {key: row.get(key) for key in ("duration", "speech_end")}
    for key, value in seconds.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < math.inf):
            raise AudioError(f"{where}: `{key}` is not a number of seconds")
    return Utterance(str(folder / name), row["text"], **seconds)


def write_manifest(path: str | os.PathLike, utterances: list[Utterance]) -> None:
    """``audio`` is written as given: relative names are relative to the manifest's folder."""
    with atomic(path, "w") as out:
        for u in utterances:
            seconds = {"duration": u.duration, "speech_end": u.speech_end}
            row = {"audio": u.audio, "text": u.text} | {k: v for k, v in seconds.items() if v is not None}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
