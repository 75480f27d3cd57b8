"""Means over time, as keyword spotters take them before their last layer: constructs that are read right, or refused
(`tests.constructs`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.loops import Of

L = nn.Linear
DRAW = torch.Generator().manual_seed(0)
X = torch.randn(3, 24, 10, generator=DRAW)             # [B, T, C]
Made = Callable[[], nn.Module]


def after(body: Callable[[Any, Tensor], Tensor], width: int = 8, **layers: nn.Module) -> Made:
    """A linear layer behind what the body makes of a GRU's, or other layers', frames."""
    return lambda: Of(lambda s, x: s.out(body(s, x)), out=L(width, 4), **(layers or dict(rnn=nn.GRU(
        10, 8, batch_first=True))))


def right() -> dict[str, tuple[Made, tuple[Any, ...]]]:
    """Read right."""
    image = nn.Conv2d(1, 8, (5, 4), (2, 2), (2, 0))
    return {
        "a mean over time": (after(lambda s, x: s.rnn(x)[0].mean(1)), (X,)),
        "a mean over time, time first": (lambda: Of(lambda s, x: torch.mean(torch.relu(s.a(x)), 0), a=L(10, 8)), (X,)),
        "a mean over time that stays an axis": (after(lambda s, x: s.rnn(x)[0].mean(dim=1, keepdim=True)), (X,)),
        "a mean over time and features": (lambda: Of(lambda s, x: s.rnn(x)[0].mean((1, 2), keepdim=True), rnn=nn.GRU(
            10, 8, batch_first=True)), (X,)),
        "pooled over time": (after(lambda s, x: F.adaptive_avg_pool1d(s.rnn(x)[0].transpose(1, 2), 1).squeeze(-1)),
                             (X,)),
        "pooled over all frames": (after(lambda s, x: F.avg_pool1d(s.rnn(x)[0].transpose(1, 2), x.shape[1]).flatten(1)),
                                   (X,)),
        "a sum over time by its length": (after(lambda s, x: s.rnn(x)[0].sum(1) / x.shape[1]), (X,)),
        "a sum over time times one by its length": (after(lambda s, x: s.rnn(x)[0].sum(1) * (1 / x.shape[1])), (X,)),
        "means of both directions": (after(lambda s, x: torch.relu(s.rnn(x)[0].mean(1)), 16, rnn=nn.LSTM(
            10, 8, batch_first=True, bidirectional=True)), (X,)),
        "a mean of what a convolution makes": (after(lambda s, x: torch.relu(s.c(x.transpose(1, 2))).mean(2),
                                                     c=nn.Conv1d(10, 8, 5, 2)), (X,)),
        "a mean of what separable convolutions make": (after(
            lambda s, x: torch.relu(s.p(s.d(F.pad(torch.relu(s.c(F.pad(x.transpose(1, 2), (4, 0)))), (2, 0))))).mean(2),
            c=nn.Conv1d(10, 8, 5), d=nn.Conv1d(8, 8, 3, groups=8), p=nn.Conv1d(8, 8, 1)), (X,)),
        "a mean over time and frequency": (after(lambda s, x: torch.relu(s.c(x[:, None])).mean((2, 3)), c=image), (X,)),
        "pooled over time and frequency": (after(lambda s, x: s.p(torch.relu(s.c(x[:, None]))).flatten(1),
                                                 p=nn.AdaptiveAvgPool2d(1), c=image), (X,)),
        "a mean over more of both than a sum holds": (after(
            lambda s, x: torch.relu(s.c(x[:, None])).mean((3, 2), keepdim=True).view(3, 8) if len(x) == 3 else
            torch.relu(s.c(x[:, None])).mean((3, 2)), c=nn.Conv2d(1, 8, 3)), (torch.randn(3, 60, 10, generator=DRAW),)),
        "means of stacked frames": (after(lambda s, x: s.rnn(x.view(x.shape[0], -1, 20))[0].mean(1), rnn=nn.GRU(
            20, 8, batch_first=True)), (X,)),
        "means of values and of their squares": (after(
            lambda s, x: (lambda y: torch.cat([y.mean(1), (y ** 2).mean(1)], -1))(s.rnn(x)[0]), 16, rnn=nn.GRU(
                10, 8, batch_first=True)), (X,)),
        "a mean beside the last step": (after(lambda s, x: (lambda y: y.mean(1) + y[:, -1])(s.rnn(x)[0])), (X,)),
        "a mean of log-probabilities": (lambda: Of(lambda s, x: F.log_softmax(s.a(x), -1).mean(1), a=L(10, 8)), (X,)),
        "a mean of an embedding": (after(lambda s, x: s.e(x).mean(1), e=nn.Embedding(11, 8)),
                                   (torch.randint(0, 11, (3, 12), generator=DRAW),)),
        "a mean of what is dropped": (after(lambda s, x: F.dropout(s.rnn(x)[0], 0.5, s.training).mean(1)), (X,)),
        "a mean of one utterance": (lambda: Of(lambda s, x: s.b(s.a(x).mean(0)), a=L(10, 8), b=L(8, 4)), (X[0],)),
        "every frame, and their mean": (lambda: Of(lambda s, x: (s.a(x), s.a(x).mean(1)), a=L(10, 8)), (X,)),
    }


def _packed(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
    return s.out(pad_packed_sequence(s.rnn(pack_padded_sequence(x, lengths, True))[0], True)[0].mean(1))


def _stated(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    y, h = s.rnn(x, h)
    return s.out(y.mean(1)), h


def refused() -> dict[str, tuple[Made, tuple[Any, ...], str]]:
    """Refused, each with words of its reason."""
    rnn = nn.GRU(10, 8, batch_first=True)
    return {
        "a mean over more time than a sum holds": (after(lambda s, x: s.rnn(x)[0].mean(1)),
                                                   (torch.randn(2, 257, 10, generator=DRAW),), "its sum holds 256"),
        "a sum over time": (after(lambda s, x: s.rnn(x)[0].sum(1)), (X,), "not divided by its length"),
        "a sum over time by a number": (after(lambda s, x: s.rnn(x)[0].sum(1) / 10), (X,), "not divided by its length"),
        "a sum over time by the example's length": (after(lambda s, x: s.rnn(x)[0].sum(1) / 24), (X,),
                                                    "the length of the example alone"),
        "pooled over as many frames as the example has": (after(
            lambda s, x: F.avg_pool1d(s.rnn(x)[0].transpose(1, 2), 24).flatten(1)), (X,), "at another length"),
        "a sum over too few frames": (after(lambda s, x: s.rnn(x)[0].sum(1) / 2), (X[:, :2],), "3 steps"),
        "less its mean over time": (lambda: Of(lambda s, x: (lambda y: y - y.mean(1, keepdim=True))(s.rnn(x)[0]),
                                               rnn=rnn), (X,), "the last step of one"),
        "a mean over time and utterances": (after(lambda s, x: s.rnn(x)[0].mean((0, 1))), (X,), "2 axes"),
        "a mean over everything": (lambda: Of(lambda s, x: s.rnn(x)[0].mean(), rnn=rnn), (X,), "mean"),
        "a mean over utterances": (after(lambda s, x: s.rnn(x)[0].mean(0)), (X,), "over utterances"),
        "a deviation over time": (after(lambda s, x: s.rnn(x)[0].std(1)), (X,), "std"),
        "a mean of packed sequences": (lambda: Of(_packed, rnn=rnn, out=L(8, 4)), (X, torch.tensor([24, 20, 7])),
                                       "packed"),
        "a mean beside states that are given": (lambda: Of(_stated, rnn=rnn, out=L(8, 4)), (X, torch.zeros(1, 3, 8)),
                                                "given its states"),
        "means of different pace": (lambda: Of(lambda s, x: s.a(x).mean(1) + s.b(x.view(x.shape[0], -1, 20)).mean(1),
                                               a=L(10, 4), b=L(20, 4)), (X,), "more steps than the other"),
        "pooled over some frames": (after(lambda s, x: F.avg_pool1d(s.rnn(x)[0].transpose(1, 2), 4).transpose(1, 2)),
                                    (X,), "a part of the frames"),
        "pooled to two": (after(lambda s, x: F.adaptive_avg_pool1d(s.rnn(x)[0].transpose(1, 2), 2).transpose(1, 2)),
                          (X,), "a part of the frames"),
        "an LSTM behind a mean": (lambda: Of(lambda s, x: s.rnn(s.a(x).mean(1, keepdim=True))[0], a=L(10, 10), rnn=rnn),
                                  (X,), "[T, B, C]"),
        "a mean over frequencies alone": (after(lambda s, x: s.c(x[:, None]).mean(3).transpose(1, 2),
                                                c=nn.Conv2d(1, 8, 3)), (X,), "over frequency alone"),
        "weighed over time": (after(lambda s, x: (lambda y: (y * torch.softmax(s.w(y), 1)).sum(1))(s.rnn(x)[0]),
                                    rnn=rnn, w=L(8, 1)), (X,), "softmax"),
    }
