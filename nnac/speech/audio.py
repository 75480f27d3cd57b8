"""Audio files: 16-bit PCM WAV in, one channel at the wanted rate out; and manifests that list them.

A manifest is JSON lines: {"audio": path, "text": reference, "duration": seconds, "speech_end": seconds to the end of
the last word}; the last two may be left out, and a relative ``audio`` is relative to the manifest's own folder, so that
a corpus can be moved.
"""

from __future__ import annotations

import io
import json
import os
import wave
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..errors import UserError
from ..files import atomic


class AudioError(UserError):
    """What is wrong with an audio file or a manifest, in one line that begins with the file's name."""


@frozen
class Utterance:
    """One line of a manifest.  After `read_manifest`, ``audio`` can be opened as it stands."""

    audio: str
    text: str
    duration: float | None = None  # seconds
    speech_end: float | None = None  # seconds from the first sample to the end of the last word


def read_wav(path: str | os.PathLike) -> tuple[NDArray, int]:
    """Any 16-bit PCM WAV -> (int16 [samples, channels], rate in Hz).  AudioError: everything else."""
    try:
        if os.path.getsize(path) == 0:
            raise AudioError(f"{path}: the file is empty")
        with wave.open(io.BytesIO(_plain_pcm(Path(path).read_bytes())), "rb") as file:
            width, channels, rate, declared = file.getsampwidth(), file.getnchannels(), file.getframerate(), file.getnframes()
            data = file.readframes(declared)
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder, not a WAV file") from None
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from None
    except EOFError:
        raise AudioError(f"{path}: the WAV header is cut short") from None
    except wave.Error as error:
        raise AudioError(f"{path}: {_explain(str(error))}") from None
    if width != 2:
        raise AudioError(f"{path}: {8 * width}-bit samples; nnac reads 16-bit PCM WAV")
    if declared == 0:
        raise AudioError(f"{path}: holds no samples")
    if len(data) != declared * 2 * channels:
        raise AudioError(f"{path}: cut short: the header promises {declared} samples, {len(data) // 2 // channels} are there")
    if rate <= 0:
        raise AudioError(f"{path}: a sample rate of {rate} Hz")
    return np.frombuffer(data, "<i2").reshape(-1, channels), rate


PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def _plain_pcm(data: bytes) -> bytes:
    """The same file with an extensible PCM header (which many recorders write) marked as plain PCM, for the standard library."""
    at = data.find(b"fmt ", 12, 4096)
    if at > 0 and data[at + 8: at + 10] == b"\xfe\xff" and data[at + 32: at + 48] == PCM_GUID:
        return data[: at + 8] + b"\x01\x00" + data[at + 10:]
    return data


def _explain(error: str) -> str:
    """The standard library's words for a bad WAV file, in ours."""
    if "unknown format" in error:
        names = {"3": "floating-point samples", "6": "A-law samples", "7": "mu-law samples", "65534": "an extended sample format"}
        return f"{names.get(error.split()[-1], 'compressed samples')}; nnac reads 16-bit PCM WAV"
    if "RIFF" in error or "WAVE" in error:
        return "not a WAV file"
    return f"a broken WAV file ({error})"


def load_audio(path: str | os.PathLike, rate: int = 16000) -> NDArray:
    """[samples] float32 in -1..1: channels averaged, resampled if the file has another rate.  AudioError as `read_wav`."""
    samples, from_rate = read_wav(path)
    mono = samples.mean(axis=1, dtype=np.float64).astype(np.float32) / np.float32(32768)
    if from_rate == rate:
        return mono
    import soxr

    return soxr.resample(mono, from_rate, rate).astype(np.float32)


def write_wav(path: str | os.PathLike, samples: NDArray, rate: int = 16000) -> None:
    """int16 [samples] or [samples, channels] -> 16-bit PCM WAV, whole or not at all."""
    samples = np.asarray(samples)
    if samples.dtype != np.int16:
        raise ValueError(f"write_wav takes int16 samples, not {samples.dtype}")
    with atomic(path) as out, wave.open(out, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def read_manifest(path: str | os.PathLike) -> list[Utterance]:
    """The utterances of a JSON-lines manifest.  AudioError names file and line; whether the audio is there is seen later."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise AudioError(f"{path}: not a text file (a manifest is JSON lines in UTF-8)") from None
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from None
    out = [_line(line, f"{path}:{number}", Path(path).parent) for number, line in enumerate(lines, 1) if line.strip()]
    if not out:
        raise AudioError(f"{path}: lists no utterances")
    return out


def _line(line: str, where: str, folder: Path) -> Utterance:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise AudioError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise AudioError(f"{where}: expected an object with `audio` and `text`")
    for key in ("audio", "text"):
        if not isinstance(row.get(key), str):
            raise AudioError(f"{where}: `{key}` is {'missing' if key not in row else 'not a text'}")
    seconds = {key: row.get(key) for key in ("duration", "speech_end")}
    for key, value in seconds.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise AudioError(f"{where}: `{key}` is not a number of seconds")
    return Utterance(str(folder / row["audio"]), row["text"], **seconds)


def write_manifest(path: str | os.PathLike, utterances: list[Utterance]) -> None:
    """``audio`` is written as given: relative names are relative to the manifest's folder."""
    with atomic(path, "w") as out:
        for u in utterances:
            seconds = {"duration": u.duration, "speech_end": u.speech_end}
            row = {"audio": u.audio, "text": u.text} | {k: v for k, v in seconds.items() if v is not None}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
