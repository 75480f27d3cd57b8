"""Log-mel features: the one definition, for training, inference and streaming.

In:  samples in [-1, 1), float, one channel, at ``spec.rate``.   Out: [frames, bins] float32.
Frame t covers samples ``t*hop .. t*hop + window``; there is no padding, so a frame exists only once all its samples do.
Every frame is computed from its own samples alone, in float64 and in a fixed order of additions: the same frame comes
out bit for bit whether it is computed alone, in a chunk or in a whole utterance (a matrix product would not promise
that).

Source: our choice (the usual 25/10 ms Hann log-mel of speech recognition, HTK mel scale); ``kaldi``: Kaldi's
compute-fbank-feats, tested against kaldi-native-fbank.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from attrs import asdict, field, frozen
from attrs.validators import ge, gt, in_, le
from numpy.typing import ArrayLike, NDArray

from nnac.checked import checked

# log_mel: pre-emphasis over the audio, a Hann window, ``log(energy + floor)``.  kaldi: each frame without its mean and
# emphasised by itself, Povey's window (Hann's to the power of 0.85), ``log(max(energy, floor))``
LOG_MEL, KALDI = KINDS = ("log_mel", "kaldi")


@frozen
class FeatureSpec:
    """What a feature frame is.  Stored with every corpus, checkpoint and program, so that no two of them can
    disagree."""
    rate: int = field(default=16000, validator=[gt(0), le(768_000)])        # Hz
    bins: int = field(default=40, validator=[ge(1), le(4096)])
    window: int = field(default=400, validator=[gt(1), le(1 << 20)])        # samples
    hop: int = field(default=160, validator=[gt(0), le(1 << 20)])           # samples
    fft: int = field(default=512, validator=[gt(1), le(1 << 20)])           # points
    low: float = field(default=20.0, validator=ge(0.0))        # Hz
    high: float = field(default=7600.0, validator=gt(0.0))     # Hz
    preemphasis: float = field(default=0.97, validator=ge(0.0))
    floor: float = field(default=1e-7, validator=gt(0.0))      # added to the energy before the logarithm
    kind: str = field(default=LOG_MEL, validator=in_(KINDS))

    def __attrs_post_init__(self) -> None:
        if self.window > self.fft:
            raise ValueError(f"a window of {self.window} samples does not fit a {self.fft}-point transform")
        if not self.low < self.high <= self.rate / 2:
            raise ValueError(f"the band {self.low:g}-{self.high:g} Hz is not within 0-{self.rate / 2:g} Hz")

    def frames(self, samples: int) -> int:
        """Number of whole frames in ``samples`` samples."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    @classmethod
    def kaldi(cls, bins: int = 80, rate: int = 16000) -> FeatureSpec:
        """What icefall trains on and sherpa-onnx hears: Kaldi's filter banks of 25 ms every 10, samples in [-1, 1), no
        dither, 20 Hz to 400 below half the rate.  Frames begin with the audio (`snip_edges`), theirs 7.5 ms before
        it."""
        window = rate // 40
        return cls(rate, bins, window, rate // 100, 1 << (window - 1).bit_length(), 20.0, rate / 2 - 400, 0.97,
                   float(np.finfo(np.float32).eps), KALDI)

    def to_json(self) -> dict:
        out = asdict(self)
        if self.kind == LOG_MEL:                           # as files say that are older than kinds
            del out["kind"]
        return out

    @classmethod
    def from_json(cls, data: dict) -> FeatureSpec:
        """ValueError: what is wrong with it."""
        return checked(cls, data, "features")


def _float32(values: ArrayLike) -> NDArray:
    return np.asarray(values, np.float32)


@frozen(eq=False)
class Normalisation:
    """Per-bin mean and standard deviation over a training set, as data.  ``apply`` gives (x - mean) / deviation."""
    mean: NDArray = field(converter=_float32)          # [bins]
    deviation: NDArray = field(converter=_float32)     # [bins], > 0

    def __attrs_post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.deviation.shape:
            raise ValueError(f"mean {self.mean.shape} and deviation {self.deviation.shape} must be vectors of one "
                             f"length")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.deviation).all() and (self.deviation > 0).all()):
            raise ValueError("normalisation needs finite means and positive deviations")

    def apply(self, features: NDArray) -> NDArray:
        return (np.asarray(features, np.float32) - self.mean) / self.deviation

    def to_json(self) -> dict:
        # float32 -> Python float -> JSON -> float32 is exact
        return {"mean": [float(v) for v in self.mean], "deviation": [float(v) for v in self.deviation]}

    @classmethod
    def from_json(cls, data: dict) -> Normalisation:
        """ValueError: what is wrong with it."""
        numbers = checked(dict[str, list[float]], data, "normalisation")
        if set(numbers) != {"mean", "deviation"}:
            raise ValueError("normalisation: `mean` and `deviation` are expected")
        return cls(numbers["mean"], numbers["deviation"])

    @classmethod
    def of(cls, features: NDArray) -> Normalisation:
        """Measured over ``features`` [frames, bins]."""
        wide = np.asarray(features, np.float64)
        return cls(wide.mean(0), np.maximum(wide.std(0), 1e-3))


@lru_cache(maxsize=8)
def _tables(spec: FeatureSpec) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """(window, bins, weights, starts): the window, and the triangles of all filters end to end.

    A filter is a run ``starts[m] : starts[m+1]`` of (bin, weight) pairs.
    """
    def mel(f: ArrayLike) -> NDArray:
        return 1127.0 * np.log1p(np.asarray(f, np.float64) / 700.0)
    edges = np.linspace(mel(spec.low), mel(spec.high), spec.bins + 2)
    at = mel(np.arange(spec.fft // 2 + 1) * spec.rate / spec.fft)[:, None]
    rise, fall = (at - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - at) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rise, fall))
    bins: list[NDArray] = []
    weights: list[NDArray] = []
    starts: list[int] = []
    for m in range(spec.bins):
        k = np.flatnonzero(triangles[:, m])
        if len(k) == 0:
            raise ValueError(f"mel bin {m} of {spec.bins} lies between two points of a {spec.fft}-point transform: use "
                             f"fewer bins")
        starts.append(sum(len(b) for b in bins))
        bins.append(k)
        weights.append(triangles[k, m])
    shape = np.hanning(spec.window) ** (1.0 if spec.kind == LOG_MEL else 0.85)
    return shape, np.concatenate(bins), np.concatenate(weights), np.array(starts)


def _frames(emphasised: NDArray, spec: FeatureSpec) -> NDArray:
    """[samples] pre-emphasised float64 -> [frames, bins] float32."""
    window, bins, weights, starts = _tables(spec)
    if len(emphasised) < spec.window:
        return np.zeros((0, spec.bins), np.float32)
    framed = np.lib.stride_tricks.sliding_window_view(emphasised, spec.window)[::spec.hop]
    if spec.kind == KALDI:
        framed = framed - framed.mean(1, keepdims=True)
        framed = framed - spec.preemphasis * np.concatenate([framed[:, :1], framed[:, :-1]], 1)
    framed = framed * window
    spectrum = np.fft.rfft(framed, spec.fft)
    power = spectrum.real ** 2 + spectrum.imag ** 2
    energy = np.add.reduceat(power[:, bins] * weights, starts, axis=1)
    loud = energy + spec.floor if spec.kind == LOG_MEL else np.maximum(energy, spec.floor)
    return np.log(loud).astype(np.float32)


def _emphasise(samples: NDArray, before: float, spec: FeatureSpec) -> NDArray:
    x = np.asarray(samples, np.float64)
    if spec.kind == KALDI:                                 # frame by frame
        return x
    return x - spec.preemphasis * np.concatenate([[before], x[:-1]])


def log_mel(samples: NDArray, spec: FeatureSpec | None = None) -> NDArray:
    """[samples] float in [-1, 1) -> [frames, bins] float32 (natural logarithm of mel energies).

    Silence stands before the first sample.  Fewer samples than one window give zero frames.
    """
    spec = spec or FeatureSpec()
    if np.ndim(samples) != 1:
        raise ValueError(f"log_mel takes one channel [samples], not an array of shape {np.shape(samples)}")
    return _frames(_emphasise(samples, 0.0, spec), spec)


class StreamingLogMel:
    """``log_mel`` in chunks: feed samples as they arrive, get the frames that became complete.

    Joined, the frames of all chunks are exactly ``log_mel`` of the joined samples.
    """

    def __init__(self, spec: FeatureSpec | None = None) -> None:
        self.spec = spec or FeatureSpec()
        self.reset()

    def reset(self) -> None:
        self._before = 0.0                    # the last sample, for the pre-emphasis of the next
        self._kept = np.zeros(0)              # pre-emphasised samples that a later frame still needs
        self._skip = 0                        # samples between frames, where hop > window

    def feed(self, samples: NDArray) -> NDArray:
        """[n] more samples -> [frames, bins] float32; often no frame, sometimes several."""
        if len(samples) == 0:
            return np.zeros((0, self.spec.bins), np.float32)
        fresh = _emphasise(samples, self._before, self.spec)
        self._before = float(samples[-1])
        kept = np.concatenate([self._kept, fresh])
        drop = min(self._skip, len(kept))
        kept, self._skip = kept[drop:], self._skip - drop
        out = _frames(kept, self.spec)
        used = len(out) * self.spec.hop
        self._skip += max(0, used - len(kept))
        self._kept = kept[used:]
        return out
