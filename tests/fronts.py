"""Transducers whose encoders begin with convolutions that hear what comes or leave frames out, saved so that they hear
audio.  As `tests.patches`, one a front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

import nnac
from nnac.decode.front_end import FrontEnd
from nnac.executors import Subject
from nnac.speech.audio import write_wav
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens
from tests import published
from tests.patches import joined, seen

BINS, H = 12, published.H
POLICY = """
import "specs/targets/edge.nnac"
policy mine {
  model  transducer
  target edge
  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }
%s}
"""
LENGTHS = (9_300, 6_011, 700)      # samples at 11,025 a second: 82, 52 and 4 frames


class Front(nn.Module):
    """Convolutions over [B, C, T] or [B, 1, T, F], what comes behind them, and LSTMs."""

    def __init__(self, *layers: nn.Module, stack: int = 1, memory: bool = True) -> None:
        super().__init__()
        self.c, self.plane, self.stack = nn.Sequential(*layers), isinstance(layers[0], nn.Conv2d), stack
        with torch.no_grad():
            width = self.convolved(torch.zeros(1, 64, BINS)).shape[-1]
        self.out = nn.Linear(width * stack, H)
        self.rnn = nn.LSTM(H, H, 2, batch_first=True) if memory else None

    def convolved(self, x: Tensor) -> Tensor:
        return joined(self.c(x.unsqueeze(1))) if self.plane else self.c(x.transpose(1, 2)).transpose(1, 2)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        y = self.convolved(x)
        if self.stack > 1:
            y = y[:, : y.shape[1] // self.stack * self.stack] if y.shape[1] % self.stack else y
            y = y.reshape(len(y), -1, y.shape[-1] * self.stack)
        y = self.out(y)
        return y if self.rnn is None else self.rnn(y)[0]


class Before(nn.Module):
    """Zeros before the first frame alone, fewer than a causal convolution has."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.out = nn.Conv1d(BINS, 8, 4), nn.Linear(8, H)
        self.rnn = nn.LSTM(H, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.out(torch.relu(self.c(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2))))[0]


def fronts() -> dict[str, Callable[[], nn.Module]]:
    """Name -> an encoder of frames of ``BINS`` features."""
    one, two, R = nn.Conv1d, nn.Conv2d, nn.ReLU
    return {
        "Conv1d, a frame that comes": lambda: Front(one(BINS, 8, 3, padding=1), R()),
        "Conv1d, no zeros": lambda: Front(one(BINS, 8, 3), R()),
        "Conv1d, every second": lambda: Front(one(BINS, 8, 4, 2, 1), R()),
        "Conv1d, every fourth": lambda: Front(one(BINS, 8, 5, 4, 2), R()),
        "Conv1d, every fourth, no zeros": lambda: Front(one(BINS, 8, 5, 4), R()),
        "Conv1d, frames that no step reads": lambda: Front(one(BINS, 8, 2, 4), R()),
        "Conv1d, as long as its input": lambda: Front(one(BINS, 8, 4, padding="same", dilation=2), nn.Tanh()),
        "Conv1d, zeros before alone": Before,
        "two Conv1d": lambda: Front(one(BINS, 8, 3, 2, 1), R(), one(8, 8, 3, 2), nn.SiLU()),
        "two Conv1d, a frame a step": lambda: Front(one(BINS, 8, 3), R(), one(8, 8, 3), R()),
        "two Conv1d, steps stacked": lambda: Front(one(BINS, 8, 3, 2, 1), R(), one(8, 8, 3), R(), stack=2),
        "Conv1d, no memory behind": lambda: Front(one(BINS, 8, 3, 2, 1), R(), memory=False),
        "Conv2d": lambda: Front(two(1, 4, 3, padding=1), R()),
        "Conv2d, every second": lambda: Front(two(1, 4, 3, 2), R()),
        "Conv2d, every second, zeros": lambda: Front(two(1, 4, 3, 2, 1), seen(nn.BatchNorm2d(4)), R()),
        "Conv2d, every fourth": lambda: Front(two(1, 4, (5, 3), (4, 2), (2, 0)), R()),
        "two Conv2d": lambda: Front(two(1, 4, 3, 2), R(), two(4, 6, 3, 2), R()),
        "two Conv2d, zeros": lambda: Front(two(1, 4, 3, 2, 1), R(), two(4, 6, 3, 2), R()),
        "three Conv2d, zeros beside the bands": lambda: Front(two(1, 4, 3, padding=(0, 1)), R(), two(4, 4, 3, 2), R(),
                                                              two(4, 6, 3, (1, 2)), nn.SiLU()),
    }


@frozen
class Made:
    """A transducer that hears, in a file and loaded; ``arrays``: the same, saved as one that takes arrays."""

    encoder: nn.Module
    module: Any
    front: FrontEnd
    checkpoint: Path
    subject: Subject
    arrays: Subject
    audio: tuple[str, ...]


def spoken(folder: Path) -> tuple[str, ...]:
    """WAV files of noise that comes and goes, at a rate that is resampled."""
    draw, out = np.random.default_rng(5), []
    for i, n in enumerate(LENGTHS):
        out.append(str(folder / f"{i}.wav"))
        loud = 4000 * np.sin(np.arange(n) / 900) ** 2
        write_wav(out[-1], (draw.standard_normal(n) * loud).astype(np.int16), 11025)
    return tuple(out)


def made(folder: Path, encoder: Callable[[], nn.Module], more: str = "") -> Made:
    """Everything in ``folder``.  ``more``: further lines of the policy."""
    audio = spoken(folder)
    torch.manual_seed(0)
    net, joint = encoder().eval(), published.IcefallJoiner(False)
    with torch.no_grad():
        joint.output_linear.weight *= 20                          # so that it has opinions, and says something
        joint.output_linear.bias[0] -= 2
    plain = FrontEnd(FeatureSpec(bins=BINS), Normalisation(np.zeros(BINS), np.ones(BINS)), Tokens(tuple("abcdefgh")))
    features = [plain.hear(path)[0] for path in audio]
    normalisation = Normalisation.of(np.concatenate(features))
    front = FrontEnd(plain.features, normalisation, plain.tokens)
    x = torch.from_numpy(np.stack([normalisation.apply(features[0][at:at + 44]) for at in (0, 18, 36)]))
    module = nnac.prepare_transducer(encoder=net, prediction=published.Labels(), joint=joint, blank=0,
                                     example=(x, published.LABELS), policy=POLICY % more)
    module.calibrate([(x, torch.full((3,), 44), published.LABELS)])
    module.save(folder / "m.nnc", front)
    module.save(folder / "arrays.nnc")
    return Made(net, module, front, folder / "m.nnc",
                Subject.load(folder / "m.nnc"), Subject.load(folder / "arrays.nnc"), audio)
