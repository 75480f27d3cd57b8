"""Loops over time as users write them: read right, or refused with a reason.  As `tests.constructs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

L = nn.Linear
DRAW = torch.Generator().manual_seed(0)
X = torch.randn(12, 3, 6, generator=DRAW)
FIRST = X.transpose(0, 1).contiguous()
H, STATE = 8, 0.5 * torch.randn(3, 8, generator=DRAW)
Made = Callable[[], nn.Module]


class Of(nn.Module):
    """A model of submodules and a forward."""

    def __init__(self, body: Callable[..., Any], **modules: Any) -> None:
        super().__init__()
        self.body = body
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args: Any) -> Any:
        return self.body(self, *args)


def zero(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[1], H)


def looped(step: Callable[..., tuple[Tensor, ...]], states: int = 1) -> Callable[..., Tensor]:
    """``for frame in x``: a step of (self, frame, *states) gives the new states, of which the first goes out."""
    def body(s: Any, x: Tensor) -> Tensor:
        state, out = (zero(x),) * states, []
        for frame in x:
            state = step(s, frame, *state)
            out.append(state[0])
        return torch.stack(out)
    return body


def elman(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor]:
    return (torch.tanh(s.a(x) + s.u(h)),)


def lstm(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (s.a(x) + s.u(h)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def lstm_by_matrices(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.addmm(s.b, x, s.w) + h @ s.v
    i, f, o = torch.sigmoid(z[:, :8]), torch.sigmoid(z[:, 8:16]), torch.sigmoid(z[:, 16:24])
    c = f * c + i * torch.tanh(z[:, 24:])
    return o * torch.tanh(c), c


def normed_gates(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """torchaudio's: over all gates at once, and the cell that is kept."""
    i, f, g, o = s.n(s.a(x) + s.u(h)).chunk(4, 1)
    c = s.m(f.sigmoid() * c + i.sigmoid() * g.tanh())
    return o.sigmoid() * c.tanh(), c


def normed_apart(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Ba et al.: each product by itself; the cell where it is read, not where it is kept."""
    i, f, g, o = (s.n(s.a(x)) + s.k(s.u(h))).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * s.m(c).tanh(), c


def normed_each(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Gate by gate, as TFLite has it."""
    i, f, g, o = (n(z) for n, z in zip(s.n, (s.a(x) + s.u(h)).chunk(4, 1), strict=True))
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_behind(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor]:
    """The reset gate after the product, as in PyTorch."""
    (xr, xz, xn), (hr, hz, hn) = s.a(x).chunk(3, -1), s.u(h).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    return (n + z * (h - n),)


def gru_before(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor]:
    """The reset gate before the product, as in the paper."""
    r, z = torch.sigmoid(s.a(x) + s.u(h)), torch.sigmoid(s.b(x) + s.v(h))
    return ((1 - z) * torch.tanh(s.c(x) + s.w(r * h)) + z * h,)


def light(activation: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor]]:
    """SpeechBrain's LiGRU."""
    def step(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor]:
        a, z = (x + s.u(h)).chunk(2, -1)
        z = torch.sigmoid(z)
        return (z * h + (1 - z) * activation(a),)
    return step


def light_gru(s: Any, x: Tensor) -> Tensor:
    """With batch norm in front."""
    y = s.n(s.a(x).flatten(0, 1)).view(x.shape[0], x.shape[1], 16)
    return looped(light(F.relu))(s, y)


def seen(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return norm


def varied(norm: nn.LayerNorm) -> nn.LayerNorm:
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.2)
    return norm


def coupled(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    f, g, o = (s.a(x) + s.u(h)).chunk(3, -1)
    f = torch.sigmoid(f)
    c = f * c + (1 - f) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def leaky(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor]:
    """An echo state: most of it stays."""
    return (0.75 * h + torch.tanh(s.a(x) + s.u(h)) / 4,)


def minus(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor]:
    return (torch.tanh(s.a(x) - s.u(h) * -0.5),)


def by_index(s: Any, x: Tensor) -> Tensor:
    """Batch first, ``x[:, t]``, put together along the second axis."""
    h, out = torch.zeros(x.shape[0], H), []
    for t in range(x.shape[1]):
        h = torch.tanh(s.a(x[:, t]) + s.u(h))
        out.append(h)
    return s.out(torch.stack(out, 1))


def joined(s: Any, x: Tensor) -> Tensor:
    h, out = zero(x), []
    for t in range(len(x)):
        h = torch.tanh(s.a(x[t]) + s.u(h))
        out.append(h.unsqueeze(0))
    return torch.cat(out)


def more_outside(s: Any, x: Tensor) -> Tensor:
    """What only reads frames, and what only reads what goes out."""
    h, out = zero(x), []
    for frame in x:
        y = torch.tanh(s.b(frame))
        h = torch.tanh(s.a(y) + s.u(h))
        out.append(s.out(torch.relu(h)))
    return torch.stack(out)


def last(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    h, out = zero(x), []
    for frame in x:
        h, = elman(s, frame, h)
        out.append(h)
    return torch.stack(out), s.out(h)


def stateful(s: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = []
    for frame in x:
        h, c = lstm(s, frame, h, c)
        out.append(h)
    return torch.stack(out), h, c


def stateful_blend(s: Any, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    out = []
    for frame in s.a(x):
        h, = light(F.relu)(s, frame, h)
        out.append(h)
    return torch.stack(out), h


def own_cell(s: Any, x: Tensor) -> Tensor:
    h, c, out = zero(x), zero(x), []
    for frame in x:
        h, c = s.c(frame, (h, c))
        out.append(h)
    return torch.stack(out)


def two(s: Any, x: Tensor) -> Tensor:
    """One loop behind another."""
    y = own_cell(s, x)
    return y + looped(lambda s, x, h: (torch.tanh(x + s.u(h)),))(s, y)


def backwards(s: Any, x: Tensor) -> Tensor:
    h, out = zero(x), []
    for t in reversed(range(len(x))):
        h, = elman(s, x[t], h)
        out.append(h)
    return torch.stack(out[::-1])


def every_second(s: Any, x: Tensor) -> Tensor:
    h, out = zero(x), []
    for t in range(0, len(x), 2):
        h, = elman(s, x[t], h)
        out.append(h)
    return torch.stack(out)


def two_frames(s: Any, x: Tensor) -> Tensor:
    h, out = zero(x), []
    for t in range(1, len(x)):
        h, = elman(s, x[t] + x[t - 1], h)
        out.append(h)
    return torch.stack(out)


def growing(s: Any, x: Tensor) -> Tensor:
    h, out = zero(x), []
    for t in range(len(x)):
        h = torch.tanh(s.a(x[t]) * (1 + t) + s.u(h))
        out.append(h)
    return torch.stack(out)


def other_last(s: Any, x: Tensor) -> Tensor:
    """The last step is another one."""
    h, out = zero(x), []
    for t in range(len(x)):
        h = torch.sigmoid(s.a(x[t])) if t == len(x) - 1 else torch.tanh(s.a(x[t]) + s.u(h))
        out.append(h)
    return torch.stack(out)


def old_out(s: Any, x: Tensor) -> Tensor:
    """What goes out is the state before the frame."""
    h, out = zero(x), []
    for frame in x:
        out.append(h)
        h, = elman(s, frame, h)
    return torch.stack(out)


def cells_out(s: Any, x: Tensor) -> Tensor:
    h, c, out = zero(x), zero(x), []
    for frame in x:
        h, c = lstm(s, frame, h, c)
        out.append(c)
    return torch.stack(out)


def begun(s: Any, x: Tensor) -> Tensor:
    """With a state that is a parameter."""
    h, out = s.h.expand(x.shape[1], H), []
    for frame in x:
        h, = elman(s, frame, h)
        out.append(h)
    return torch.stack(out)


def two_layers(s: Any, x: Tensor) -> Tensor:
    """Two layers in one loop."""
    h, k, out = zero(x), zero(x), []
    for frame in x:
        h = torch.tanh(s.a(frame) + s.u(h))
        k = torch.tanh(s.b(h) + s.v(k))
        out.append(k)
    return torch.stack(out)


def crossed(s: Any, x: Tensor) -> Tensor:
    """Each layer reads the other's state."""
    h, k, out = zero(x), zero(x), []
    for frame in x:
        h, k = torch.tanh(s.a(frame) + s.u(h) + s.v(k)), torch.tanh(s.b(h) + s.v(k))
        out.append(k)
    return torch.stack(out)


def late(s: Any, x: Tensor) -> Tensor:
    """The second layer reads the first one's state before the frame."""
    h, k, out = zero(x), zero(x), []
    for frame in x:
        h, k = torch.tanh(s.a(frame) + s.u(h)), torch.tanh(s.b(h) + s.v(k))
        out.append(k)
    return torch.stack(out)


def layers(s: Any, x: Tensor) -> Tensor:
    """A stack of PyTorch's cells, layer after layer within a step, with what goes around them."""
    states, out = [(zero(x), zero(x))] * len(s.c), []
    for frame in x:
        y, new = frame, []
        for cell, state in zip(s.c, states, strict=True):
            h, c = cell(y, state)
            y = s.d(h) + y if y.shape == h.shape else h
            new.append((h, c))
        states = new
        out.append(s.out(y))
    return torch.stack(out)


def mixed(s: Any, x: Tensor) -> Tensor:
    h, k, out = zero(x), zero(x), []
    for frame in x:
        h = s.c(frame, h)
        k = torch.tanh(s.b(torch.relu(h)) + s.u(k))
        out.append(k + h)
    return torch.stack(out)


def averaged(s: Any, x: Tensor) -> Tensor:
    """A state without a matrix of its own beside one with."""
    h, m, out = zero(x), zero(x), []
    for frame in x:
        m = 0.75 * m + 0.25 * torch.tanh(s.b(frame))
        h = torch.tanh(s.a(frame) + s.u(h) + m)
        out.append(h)
    return torch.stack(out)


def over_batch(s: Any, x: Tensor) -> Tensor:
    """A loop over utterances of an LSTM's output."""
    h, out = torch.zeros(x.shape[0], H), []
    y = s.rnn(x)[0]
    for b in range(x.shape[1]):
        h = torch.tanh(s.a(y[:, b]) + s.u(h))
        out.append(h)
    return torch.stack(out, 1)


def no_product(s: Any, x: Tensor) -> Tensor:
    """An average that forgets."""
    y, h, out = s.a(x), zero(x), []
    for frame in y:
        h = 0.9 * h + 0.1 * frame
        out.append(h)
    return torch.stack(out)


def cells(rows: int, **more: Any) -> dict[str, Any]:
    """Matrices of a cell of so many rows."""
    return dict(a=L(6, rows), u=L(8, rows)) | more


def right() -> dict[str, tuple[Made, tuple[Any, ...]]]:
    """Read right."""
    def norms(*widths: int) -> dict[str, nn.Module]:
        return {n: varied(nn.LayerNorm(w)) for n, w in zip("nmk", widths, strict=False)}

    return {
        "a cell in a loop": (lambda: Of(own_cell, c=nn.LSTMCell(6, 8)), (X,)),
        "a cell in a loop, no biases": (lambda: Of(own_cell, c=nn.LSTMCell(6, 8, bias=False)), (X,)),
        "a GRU's cell in a loop": (lambda: Of(looped(lambda s, x, h: (s.c(x, h),)), c=nn.GRUCell(6, 8)), (X,)),
        "a plain cell in a loop": (lambda: Of(looped(lambda s, x, h: (s.c(x, h),)), c=nn.RNNCell(6, 8)), (X,)),
        "a plain cell of ReLU in a loop": (lambda: Of(looped(lambda s, x, h: (s.c(x, h),)),
                                                      c=nn.RNNCell(6, 8, nonlinearity="relu")), (X,)),
        "a plain recurrent layer": (lambda: Of(lambda s, x: s.r(x)[0], r=nn.RNN(6, 8)), (X,)),
        "plain recurrent layers of ReLU, batch first": (lambda: Of(
            lambda s, x: s.out(s.r(x)[0]), r=nn.RNN(6, 8, 2, nonlinearity="relu", batch_first=True, dropout=0.1),
            out=L(8, 4)), (FIRST,)),
        "a plain recurrent layer, its last state, no biases": (
            lambda: Of(lambda s, x: s.out(s.r(x)[1][-1]), out=L(8, 4), r=nn.RNN(6, 8, bias=False)), (X,)),
        "a plain recurrent layer that is given its state": (lambda: Of(lambda s, x, h: s.r(x, h), r=nn.RNN(6, 8, 2)),
                                                            (X, 0.5 * torch.randn(2, 3, 8))),
        "a recurrence of its own": (lambda: Of(looped(elman), **cells(8)), (X,)),
        "an LSTM written out": (lambda: Of(looped(lstm, 2), **cells(32)), (X,)),
        "an LSTM written out with matrices": (lambda: Of(looped(lstm_by_matrices, 2), b=nn.Parameter(torch.randn(32)),
                                                         w=nn.Parameter(torch.randn(6, 32) / 2),
                                                         v=nn.Parameter(torch.randn(8, 32) / 3)), (X,)),
        "layer norm over all gates, and of the cell": (lambda: Of(looped(normed_gates, 2), **cells(32), **norms(32, 8)),
                                                       (X,)),
        "layer norm of each product, and of the cell that is read": (
            lambda: Of(looped(normed_apart, 2), **cells(32), **norms(32, 8, 32)), (X,)),
        "layer norm gate by gate": (lambda: Of(looped(normed_each, 2), **cells(32), n=nn.ModuleList(
            varied(nn.LayerNorm(8)) for _ in range(4))), (X,)),
        "layer norm over all gates without weights": (lambda: Of(
            looped(normed_gates, 2), **cells(32), n=nn.LayerNorm(32, elementwise_affine=False),
            m=nn.LayerNorm(8, eps=1e-3)), (X,)),
        "a GRU written out": (lambda: Of(looped(gru_behind), **cells(24)), (X,)),
        "a light GRU": (lambda: Of(lambda s, x: looped(light(F.relu))(s, s.a(x)), a=L(6, 16), u=L(8, 16, bias=False)),
                        (X,)),
        "a light GRU of tanh": (lambda: Of(lambda s, x: looped(light(torch.tanh))(s, s.a(x)), **cells(16)), (X,)),
        "a light GRU behind batch norm": (lambda: Of(light_gru, a=L(6, 16, bias=False), u=L(8, 16),
                                                     n=seen(nn.BatchNorm1d(16))), (X,)),
        "coupled gates written out": (lambda: Of(looped(coupled, 2), **cells(24)), (X,)),
        "a state of which most stays": (lambda: Of(looped(leaky), **cells(8)), (X,)),
        "a difference in a loop": (lambda: Of(looped(minus), **cells(8)), (X,)),
        "frames by their number, batch first": (lambda: Of(by_index, **cells(8), out=L(8, 4)), (FIRST,)),
        "steps put end to end": (lambda: Of(joined, **cells(8)), (X,)),
        "frames that are read as they are": (lambda: Of(looped(lambda s, x, h: (torch.tanh(x + s.u(h)),)), u=L(8, 8)),
                                             (torch.randn(12, 3, 8),)),
        "layers within a loop that are not the cell's": (lambda: Of(more_outside, a=L(8, 8), u=L(8, 8), b=L(6, 8),
                                                                    out=L(8, 4)), (X,)),
        "a loop's last state": (lambda: Of(last, **cells(8), out=L(8, 4)), (X,)),
        "a loop that is given its states": (lambda: Of(stateful, **cells(32)), (X, STATE, STATE - 0.1)),
        "a loop that is given its blend": (lambda: Of(stateful_blend, **cells(16)), (X, STATE.abs())),
        "one loop behind another": (lambda: Of(two, c=nn.LSTMCell(6, 8), u=L(8, 8)), (X,)),
        "nothing dropped in a loop": (lambda: Of(looped(
            lambda s, x, h: (torch.tanh(s.a(x) + s.u(s.d(h))),)), **cells(8), d=nn.Dropout(0.0)), (X,)),
        "a vector that is viewed as it is": (lambda: Of(looped(
            lambda s, x, h: (torch.tanh(s.a(x) + s.u(h.contiguous()).view(h.shape)),)), **cells(8)), (X,)),
        "a frame that is read twice": (lambda: Of(looped(
            lambda s, x, h: (torch.sigmoid(s.b(x)) * torch.tanh(s.a(x) + s.u(h)),)), **cells(8), b=L(6, 8)), (X,)),
        "two layers in one loop": (lambda: Of(two_layers, **cells(8), b=L(8, 8), v=L(8, 8)), (X,)),
        "three layers of cells in one loop": (lambda: Of(layers, c=nn.ModuleList([
            nn.LSTMCell(6, 8), nn.LSTMCell(8, 8), nn.LSTMCell(8, 8)]), d=nn.Dropout(0.1), out=L(8, 4)), (X,)),
        "a cell of PyTorch's and one of one's own": (lambda: Of(mixed, c=nn.GRUCell(6, 8), **cells(8), b=L(8, 8)),
                                                     (X,)),
        "an average beside a state": (lambda: Of(averaged, **cells(8), b=L(6, 8)), (X,)),
        "a matrix that two loops share": (lambda: Of(lambda s, x: looped(elman)(s, x) + looped(elman)(s, 2 * x),
                                                     **cells(8)), (X,)),
    }


def refused() -> dict[str, tuple[Made, tuple[Any, ...], str]]:
    """Refused, each with words of its reason."""
    whole = "frame by frame"
    return {
        "a loop that goes backwards": (lambda: Of(backwards, **cells(8)), (X,), "one element"),
        "a loop over every second frame": (lambda: Of(every_second, **cells(8)), (X,), "one element"),
        "a loop that reads two frames": (lambda: Of(two_frames, **cells(8)), (X,), "one element"),
        "a loop that reads the number of its step": (lambda: Of(growing, **cells(8)), (X,), "one element"),
        "a loop whose last step is another one": (lambda: Of(other_last, **cells(8)), (X,), "one element"),
        "a loop that gives its old state": (lambda: Of(old_out, **cells(8)), (X,), whole),
        "a loop that gives its cells": (lambda: Of(cells_out, **cells(32)), (X,), "its hidden state"),
        "a loop that begins with a parameter": (lambda: Of(begun, **cells(8), h=nn.Parameter(torch.randn(8))), (X,),
                                                "begins with a state"),
        "two layers in one loop, one of which reads the other's state": (
            lambda: Of(crossed, **cells(8), b=L(8, 8), v=L(8, 8)), (X,), "one hidden state"),
        "a layer in a loop that reads the state before": (lambda: Of(late, **cells(8), b=L(8, 8), v=L(8, 8)), (X,),
                                                          "otherwise than as a state"),
        "a loop over the batch": (lambda: Of(over_batch, rnn=nn.LSTM(6, 8), a=L(8, 8), u=L(8, 8)), (X,),
                                  "over the batch"),
        "a loop without a matrix": (lambda: Of(no_product, a=L(6, 8)), (X,), "without a product"),
        "a reset gate before the product": (lambda: Of(looped(gru_before), a=L(6, 8), b=L(6, 8), c=L(6, 8), u=L(8, 8),
                                                       v=L(8, 8), w=L(8, 8)), (X,), "one hidden state"),
        "peepholes": (lambda: Of(looped(lambda s, x, h: (torch.tanh(s.a(x) + s.u(h) + s.p * h),)), **cells(8),
                                 p=nn.Parameter(torch.randn(8))), (X,), "neither of the frame"),
        "something dropped in a loop": (lambda: Of(looped(lambda s, x, h: (torch.tanh(s.a(x) + s.u(s.d(h))),)),
                                                   **cells(8), d=nn.Dropout(0.2)), (X,), "dropped"),
        "a soft clip in a loop": (lambda: Of(looped(lambda s, x, h: (F.gelu(s.a(x) + s.u(h)),)), **cells(8)), (X,),
                                  "gelu"),
        "rows that nothing reads": (lambda: Of(looped(lambda s, x, h: (torch.tanh(s.a(x)[:, :8] + s.u(h)[:, :8]),)),
                                               a=L(6, 8), u=L(8, 16)), (X,), "nothing reads"),
        "a state that changes between the steps of a cell": (
            lambda: Of(looped(lambda s, x, h: (torch.tanh(s.c(x, h)),)), c=nn.GRUCell(6, 8)), (X,),
            "between its steps"),
        "a plain recurrent layer in both directions": (lambda: Of(lambda s, x: s.r(x)[0], r=nn.RNN(6, 8,
                                                                                                bidirectional=True)),
                                                       (X,), "both directions"),
        "a number added in a loop": (lambda: Of(looped(
            lambda s, x, h: (torch.tanh(s.a(x) + s.u(h) + 0.5),)), **cells(8)), (X,), "neither of the frame"),
        "two less a state": (lambda: Of(looped(lambda s, x, h: (2 - torch.tanh(s.a(x) + s.u(h)),)), **cells(8)), (X,),
                             "with a number"),
        "a frame of a loop that is read elsewhere": (lambda: Of(elsewhere, **cells(8)), (X,), whole),
        "everything begins with ones": (lambda: Of(lambda s, x: _ones(s, x), **cells(8)), (X,), "ones"),
    }


def elsewhere(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    h, out, frames = zero(x), [], x.unbind(0)
    for frame in frames:
        h, = elman(s, frame, h)
        out.append(h)
    return torch.stack(out), s.a(frames[3])


def _ones(s: Any, x: Tensor) -> Tensor:
    h, out = torch.ones(x.shape[1], H), []
    for frame in x:
        h, = elman(s, frame, h)
        out.append(h)
    return torch.stack(out)
