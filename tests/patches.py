"""Convolutions that begin a model and hear what comes, or leave frames out: read right, or refused.  As
`tests.constructs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.loops import Of

L = nn.Linear
X = torch.randn(3, 19, 10, generator=torch.Generator().manual_seed(0))      # [B, T, C]
Made = Callable[[], nn.Module]


def seen(norm: Any) -> Any:
    """A batch norm with statistics of something."""
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return norm


def image(s: Any, x: Tensor) -> Tensor:
    return s.c(x.unsqueeze(1))


def joined(y: Tensor) -> Tensor:
    """ESPnet's way."""
    b, c, t, f = y.size()
    return y.transpose(1, 2).contiguous().view(b, t, c * f)


def one(*of: Any, out: int, **more: Any) -> Made:
    """A convolution over time and frequency, ReLU, and a linear layer."""
    return lambda: Of(lambda s, x: s.out(joined(torch.relu(image(s, x)))), c=nn.Conv2d(1, 4, *of, **more),
                      out=L(out, 6))


def two(s: Any, x: Tensor) -> Tensor:
    """ESPnet's Conv2dSubsampling, with an LSTM behind it."""
    return s.rnn(s.out(joined(s.c(x.unsqueeze(1)))))[0]


def front(*layers: nn.Module, width: int) -> Made:
    return lambda: Of(two, c=nn.Sequential(*layers), out=L(width, 6), rnn=nn.LSTM(6, 8, batch_first=True))


def over(s: Any, x: Tensor) -> Tensor:
    """Frequency before time, as DeepSpeech has it."""
    y = s.c(x.transpose(1, 2).unsqueeze(1))
    b, c, f, t = y.size()
    return s.out(y.view(b, c * f, t).transpose(1, 2))


def bands_first(s: Any, x: Tensor) -> Tensor:
    return s.out(torch.relu(image(s, x)).permute(0, 2, 3, 1).flatten(2))


def normed(s: Any, x: Tensor) -> Tensor:
    """Channels and frequencies that something else than a matrix reads."""
    return s.out(s.n(joined(image(s, x))))


def line(**more: Any) -> Made:
    """A convolution over time, an LSTM and a residual around it: icefall's TdnnLstm."""
    def body(s: Any, x: Tensor) -> Tensor:
        y = torch.relu(s.c(x.transpose(1, 2))).transpose(1, 2)
        return s.out(s.rnn(y)[0] + y)

    return lambda: Of(body, c=nn.Conv1d(10, 8, **more), rnn=nn.LSTM(8, 8, batch_first=True), out=L(8, 4))


def several(*convolutions: nn.Module) -> Made:
    """One behind the other, over time."""
    return lambda: Of(lambda s, x: s.out(s.c(x.transpose(1, 2)).transpose(1, 2)), c=nn.Sequential(*convolutions),
                      out=L(8, 4))


def right() -> dict[str, tuple[Made, tuple[Any, ...]]]:
    """Read right."""
    C = nn.Conv2d
    made: dict[str, tuple[Made, tuple[Any, ...]]] = {
        "subsampling by four": (front(C(1, 4, 3, 2), nn.ReLU(), C(4, 6, 3, 2), nn.ReLU(), width=6), (X,)),
        "subsampling with zeros at the edge of the bands": (
            front(C(1, 4, 3, padding=(0, 1)), nn.ReLU(), C(4, 4, 3, 2), nn.ReLU(), C(4, 6, 3, (1, 2)), nn.SiLU(),
                  width=6), (X,)),
        "subsampling with batch norm": (front(C(1, 4, 3, 2, bias=False), seen(nn.BatchNorm2d(4)), nn.Hardtanh(0, 20),
                                              width=16), (X,)),
        "subsampling with zeros around": (front(C(1, 4, 3, 2, 1), nn.ReLU(), C(4, 4, (2, 3), (2, 1)), nn.ReLU(),
                                                width=12), (X,)),
        "subsampling in groups": (front(C(1, 4, 3, 2), nn.ReLU(), C(4, 4, 3, 2, groups=4), C(4, 6, 1), nn.ReLU(),
                                        width=6), (X,)),
        "subsampling with dropout": (front(C(1, 4, 3, 2), nn.ReLU(), nn.Dropout2d(0.1), nn.Dropout(0.1), width=16),
                                     (X,)),
        "every second band": (one(3, (1, 2), out=16), (X,)),
        "every third frame": (one((2, 3), (3, 1), out=32), (X,)),
        "frames that are left out": (one((1, 3), (2, 1), out=32), (X,)),
        "taps that lie apart in both directions": (one(3, 2, dilation=(2, 3), out=8), (X,)),
        "more zeros than taps": (one(2, 1, (2, 1), out=44), (X,)),
        "frequencies before time": (lambda: Of(over, c=nn.Conv2d(1, 4, (5, 3), (2, 2), (2, 1)), out=L(20, 6)), (X,)),
        "bands before channels": (lambda: Of(bands_first, c=nn.Conv2d(1, 4, 3, 2), out=L(16, 6)), (X,)),
        "bands that a norm reads": (lambda: Of(normed, c=nn.Conv2d(1, 4, 3, 2), n=nn.LayerNorm(16), out=L(16, 6)),
                                    (X,)),
        "one band alone": (one((3, 10), 2, out=4), (X,)),
        "one channel alone": (lambda: Of(lambda s, x: s.out(joined(image(s, x))), c=nn.Conv2d(1, 1, 3), out=L(8, 6)),
                              (X,)),
        "time first": (lambda: Of(lambda s, x: s.out(joined(image(s, x.transpose(0, 1)))), c=nn.Conv2d(1, 4, 3, 2),
                                  out=L(16, 6)), (X.transpose(0, 1).contiguous(),)),
        "a convolution that hears what comes": (line(kernel_size=3, padding=1), (X,)),
        "a convolution that begins with whole frames": (line(kernel_size=3), (X,)),
        "a convolution as long as its input": (line(kernel_size=5, padding="same"), (X,)),
        "a convolution of an even length, as long as its input": (line(kernel_size=4, padding="same", dilation=2),
                                                                  (X,)),
        "a convolution of frames that lie apart, every second": (line(kernel_size=3, dilation=2, stride=2), (X,)),
        "zeros before the first frame that are too few": (lambda: Of(
            lambda s, x: s.out(s.c(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2)), c=nn.Conv1d(10, 8, 4),
            out=L(8, 4)), (X,)),
        "a wave's samples": (lambda: Of(lambda s, x: s.out(torch.relu(s.c(x.transpose(1, 2))).transpose(1, 2)),
                                        c=nn.Conv1d(1, 8, 10, 5), out=L(8, 4)), (torch.randn(3, 60, 1),)),
        "two convolutions that hear what comes": (several(nn.Conv1d(10, 6, 3, 2, 1), nn.ReLU(), nn.Conv1d(6, 8, 3)),
                                                  (X,)),
        "two convolutions, the second in groups": (several(nn.Conv1d(10, 6, 3), nn.Tanh(),
                                                           nn.Conv1d(6, 8, 2, groups=2)), (X,)),
    }
    return made


def refused() -> dict[str, tuple[Made, tuple[Any, ...], str]]:
    """Refused, each with words of its reason."""
    C = nn.Conv2d
    return {
        "zeros around the second convolution": (front(C(1, 4, 3, 2), nn.ReLU(), C(4, 4, 3, 2, 1), width=8), (X,),
                                                "zeros stand around"),
        "zeros around the second convolution over time": (several(nn.Conv1d(10, 6, 3, padding=1), nn.ReLU(),
                                                                  nn.Conv1d(6, 8, 3, padding=1)), (X,),
                                                          "zeros stand around"),
        "a convolution that hears what an LSTM says": (lambda: Of(
            lambda s, x: s.c(s.rnn(x)[0].transpose(1, 2)), rnn=nn.LSTM(10, 8, batch_first=True),
            c=nn.Conv1d(8, 4, 3, padding=1)), (X,), "before the first frame"),
        "an image of what an LSTM says": (lambda: Of(
            lambda s, x: s.out(joined(s.c(s.rnn(x)[0].unsqueeze(1)))), rnn=nn.LSTM(10, 8, batch_first=True),
            c=C(1, 4, 3), out=L(24, 4)), (X,), "stands behind other layers"),
        "frames that something else reads": (lambda: Of(lambda s, x: s.a(x[:, :]) + s.c(x.transpose(1, 2)).transpose(
            1, 2), a=L(10, 8), c=nn.Conv1d(10, 8, 3, padding=1)), (X,), "reads as well"),
        "frames that something else reads behind it": (lambda: Of(
            lambda s, x: s.c(x.transpose(1, 2)).transpose(1, 2) + s.a(x), a=L(10, 8),
            c=nn.Conv1d(10, 8, 3, padding=1)), (X,), "beside another convolution"),
        "two convolutions of one input": (lambda: Of(
            lambda s, x: s.c(x.transpose(1, 2)) + s.d(x.transpose(1, 2)), c=nn.Conv1d(10, 8, 3, padding=1),
            d=nn.Conv1d(10, 8, 5, padding=2)), (X,), "reads as well"),
        "what the first convolution makes is returned": (lambda: Of(
            lambda s, x: (lambda y: (s.d(y), y))(s.c(x.transpose(1, 2))), c=nn.Conv1d(10, 6, 3),
            d=nn.Conv1d(6, 8, 3)), (X,), "beside another convolution"),
        "a mean over frequencies": (lambda: Of(lambda s, x: s.out(image(s, x).mean(-1).transpose(1, 2)), c=C(1, 4, 3),
                                               out=L(4, 4)), (X,), "mean"),
        "an image that is returned": (lambda: Of(image, c=C(1, 4, 3)), (X,), "not what a layer makes"),
        "pooling over frequencies": (lambda: Of(lambda s, x: s.out(joined(F.max_pool2d(image(s, x), (1, 2)))),
                                                c=C(1, 4, 3), out=L(16, 4)), (X,), "max_pool2d"),
        "two images added": (lambda: Of(lambda s, x: s.out(joined(image(s, x) + image(s, x))), c=C(1, 4, 3),
                                        out=L(32, 4)), (X,), "reads as well"),
        "time and channels as one axis": (lambda: Of(lambda s, x: s.out(image(s, x).flatten(1, 2)), c=C(1, 4, 3),
                                                     out=L(8, 4)), (X,), "do not follow each other"),
        "a parameter for each channel": (lambda: Of(lambda s, x: s.out(joined(image(s, x) * s.p)), c=C(1, 4, 3),
                                                    p=nn.Parameter(torch.randn(4, 1, 1)), out=L(32, 4)), (X,),
                                         "has no integer operator"),
        "a frame around that is reflected": (one(3, 2, 1, out=20, padding_mode="reflect"), (X,), "pad"),
        "a convolution in groups that hears what comes": (line(kernel_size=3, padding=1, groups=2), (X,), "in groups"),
        "packed sequences behind it": (lambda: Of(
            lambda s, x, n: pad_packed_sequence(s.rnn(pack_padded_sequence(
                s.c(x.transpose(1, 2)).transpose(1, 2), n, batch_first=True))[0], batch_first=True)[0],
            c=nn.Conv1d(10, 8, 3, padding=1), rnn=nn.LSTM(8, 8, batch_first=True)), (X, torch.tensor([19, 12, 5])),
            "packed"),
        "an image of two inputs": (lambda: Of(lambda s, x, y: s.out(joined(image(s, x))) + s.a(y), c=C(1, 4, 3, 2, 1),
                                              out=L(20, 4), a=L(10, 4)), (X, X[:, :10].contiguous()), ""),
    }
