"""What happens to clean speech before a microphone: vocal tract, room, noise, gain.

Every function takes and gives float32 samples and draws only from the generator it is given.  Source: our choice.
"""
from __future__ import annotations

import numpy as np
from attrs import field, frozen
from attrs.validators import ge, le
from numpy.random import Generator
from numpy.typing import NDArray


@frozen
class Conditions:
    """How hard the task is.  ``snr_low`` is the knob that moves word error rate most."""
    snr_low: float = 10.0                                             # dB
    snr_high: float = 30.0                                            # dB
    noisy: float = field(default=0.85, validator=[ge(0.0), le(1.0)])  # share of utterances with noise
    reverberant: float = field(default=0.3, validator=[ge(0.0), le(1.0)])
    decay_high: float = field(default=0.4, validator=ge(0.13))        # s, longest time to fall by 60 dB
    warp_low: float = 0.92                                            # vocal tract length, speed and pitch together
    warp_high: float = 1.09


def root_mean_square(x: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) + 1e-9


def warp(samples: NDArray, rate: float, to_rate: float, factor: float) -> NDArray:
    """int16 samples at ``rate`` -> float32 at ``to_rate``, ``factor`` times as long: a shorter or longer vocal
    tract."""
    import soxr
    return soxr.resample(samples.astype(np.float32) / 32768.0, rate, to_rate * factor, quality="MQ").astype(np.float32)


def _fast_length(n: int) -> int:
    return -(-n // 4096) * 4096      # 2^12 k with small k: cheap transforms


def reverberate(x: NDArray, r: Generator, conditions: Conditions, rate: int) -> NDArray:
    """Convolve with a direct path and exponentially decaying noise; the tail is kept for half its length."""
    n = int(r.uniform(0.12, conditions.decay_high) * rate)
    response = r.standard_normal(n, np.float32) * np.exp(-6.9 * np.arange(n, dtype=np.float32) / n)
    response[: int(0.002 * rate)] = 0
    response *= r.uniform(0.2, 0.9) / (root_mean_square(response) * np.sqrt(n))
    response[0] = 1.0
    m = _fast_length(len(x) + n)
    return np.fft.irfft(np.fft.rfft(x, m) * np.fft.rfft(response, m), m)[: len(x) + n // 2].astype(np.float32)


def babble(n: int, r: Generator, talkers: list[NDArray]) -> NDArray:
    """[n] two to five of ``talkers`` at once."""
    out = np.zeros(n, np.float32)
    for _ in range(int(r.integers(2, 6))):
        one = talkers[int(r.integers(len(talkers)))]
        out += np.resize(np.roll(one, int(r.integers(len(one)))), n) * np.float32(r.uniform(0.4, 1))
    return out


def noise(n: int, r: Generator, talkers: list[NDArray]) -> NDArray:
    """[n] babble (35 %), coloured noise (45 %) or a motor's band (20 %); the last two sometimes swell and fade."""
    kind = r.random()
    if kind < 0.35 and talkers:
        return babble(n, r, talkers)
    m = _fast_length(n)
    spectrum = np.fft.rfft(r.standard_normal(m, np.float32))
    position = np.arange(len(spectrum), dtype=np.float32) / len(spectrum)
    spectrum *= np.maximum(position, 8.0 / len(spectrum)) ** np.float32(-r.uniform(0.0, 1.2))
    if kind > 0.8:
        spectrum *= 0.15 + np.exp(-np.square((position - r.uniform(0.02, 0.6)) / 0.05))
    out = np.fft.irfft(spectrum, m)[:n].astype(np.float32)
    if r.random() < 0.4:
        out *= np.interp(np.arange(n), np.linspace(0, n, 8), r.uniform(0.2, 1.5, 8)).astype(np.float32)
    return out


def pauses(r: Generator, rate: int) -> tuple[int, int]:
    """Samples of silence before and after the speech."""
    return int(r.uniform(0.05, 0.25) * rate), int(r.uniform(0.1, 0.3) * rate)


def last_sample(x: NDArray) -> int:
    """How many samples of clean speech there are up to the last one within 40 dB of the loudest: the end of its last
    word (our choice: a synthesiser's tail is silence, and nobody waits for it)."""
    loud = np.flatnonzero(np.abs(x) >= 0.01 * np.abs(x).max(initial=0))
    return int(loud[-1]) + 1 if len(loud) else 0


def microphone(x: NDArray, around: tuple[int, int], r: Generator, conditions: Conditions, talkers: list[NDArray],
               rate: int) -> NDArray:
    """Clean float32 speech -> int16 as recorded: pauses ``around`` it, a room, noise, and a gain within 20 dB."""
    x = np.pad(x / np.float32(root_mean_square(x)), around)
    if r.random() < conditions.reverberant:
        x = reverberate(x, r, conditions, rate)
    if r.random() < conditions.noisy:
        z = noise(len(x), r, talkers)
        x = x + z * np.float32(10 ** (-r.uniform(conditions.snr_low, conditions.snr_high) / 20) / root_mean_square(z))
    x = x * np.float32(0.05 * 10 ** (r.uniform(-12, 8) / 20))
    return np.clip(np.rint(x * 32768.0), -32768, 32767).astype(np.int16)
