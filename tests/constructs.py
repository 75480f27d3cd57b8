"""PyTorch constructs that users write: each is read right, or refused with a reason.  ``RIGHT`` and ``REFUSED``: name
-> (model, example[, words])."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests import loops, means, patches
from tests.loops import Of

L = nn.Linear


def _basic(x: Tensor) -> Tensor:
    """icefall's BasicNorm."""
    return x * (x.pow(2).mean(-1, keepdim=True) + 0.25) ** -0.5


def _varied(norm: nn.RMSNorm) -> nn.RMSNorm:
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


class Two(nn.Module):
    """Inputs that the body uses in another order than the signature has them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = L(6, 8), L(6, 8), L(8, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        second = self.b(y)
        return self.out(torch.tanh(second + self.a(x)))


class Optional_(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(6, 8), L(8, 4)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: tuple[Tensor, Tensor] | None = None) -> Tensor:
        return self.out(self.rnn(x, state)[0])


class Lengths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        assert x.dim() == 3 and x.size(2) == 6, "features"
        return self.rnn(x)[0]


class Scaled(nn.LSTM):
    """A subclass with a forward of its own (icefall's ScaledLSTM is one)."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        flat = [w * self.scale.exp() for w in self._flat_weights]
        zero = x.new_zeros(1, x.shape[1], self.hidden_size)
        return torch.lstm(x, (zero, zero), flat, self.bias, 1, 0.0, self.training, False, False)


class Backwards(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:
        y, h = super().forward(x.flip(0))
        return y.flip(0), h


class LargerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class LowRank(nn.Linear):
    """LoRA: a frozen weight and a product of two small ones beside it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.weight.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, args[0])), nn.Parameter(torch.randn(args[1], 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


class Ell(nn.Module):
    """Keeps its state on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.state = nn.GRU(6, 8), None

    def forward(self, x: Tensor) -> Tensor:
        y, self.state = self.gru(x, self.state)
        return y


class Defaults(nn.Module):
    """Arguments with defaults, by position and by keyword alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a = L(6, 8)

    def forward(self, x: Tensor, scale: float = 2.0, shift: Tensor | None = None, *, turn: bool = False) -> Tensor:
        y = self.a(x) * scale
        y = -y if turn else y
        return y if shift is None else y + shift


class Named(nn.Module):
    """Submodules named as what a prepared module has and a training module has not."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.save, self.reset, self.kept, self.lengths = L(6, 8), L(8, 8), L(8, 8), L(8, 8), L(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lengths(self.kept(self.reset(self.save(self.values(x)))))


class Kept(nn.Module):
    """Keeps what it heard last on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.before = L(6, 8), None

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y, self.before = (y if self.before is None else y + self.before), y
        return y


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = L(6, 8)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.a(x + self.seen)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = L(6, 8), L(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(input=torch.tanh(input=self.a(input=x)))


class Taken(nn.Module):
    """Submodules named as a training module's own attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.inputs, self.run, self.plan = L(6, 8), L(8, 8), L(8, 8), L(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.plan(self.run(self.inputs(self.layers(x))))


def hooked(model: nn.Module, *, before: bool = False) -> nn.Module:
    """A linear layer between two, with a hook that adds its own input (or a pre-hook that takes the tanh)."""
    if before:
        model.b.register_forward_pre_hook(lambda m, a: (torch.tanh(a[0]),))  # type: ignore[union-attr, operator]
    else:
        model.b.register_forward_hook(lambda m, a, y: y + a[0])  # type: ignore[union-attr, operator]
    return model


def large(layer: nn.Linear) -> nn.Linear:
    """Weights that make values far beyond 8, where a table's input saturates."""
    layer.weight.data *= 30
    return layer


def whole_hooked() -> nn.Module:
    model = nn.Sequential(L(6, 8), nn.Tanh())
    model.register_forward_hook(lambda m, a, y: 2 * y)
    return model


def gradient_hooked() -> nn.Module:
    model = nn.Sequential(L(6, 8), nn.Tanh())
    model[0].weight.register_hook(lambda g: 2 * g)
    return model


def seen(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """With statistics of something."""
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return norm


def tied() -> nn.Module:
    model = Of(lambda s, i: s.out(s.rnn(s.e(i))[0]), e=nn.Embedding(11, 6), rnn=nn.LSTM(6, 6), out=L(6, 11))
    model.out.weight = model.e.weight
    return model


def frozen() -> nn.Module:
    model = Of(lambda s, x: s.out(s.rnn(x)[0]), rnn=nn.LSTM(6, 8), out=L(8, 4))
    model.rnn.requires_grad_(False)
    return model


def pruned() -> nn.Module:
    model = nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


X, Y, LABELS = torch.randn(12, 3, 6), 3 * torch.randn(12, 3, 6), torch.randint(0, 11, (9, 3))
FIRST = X.transpose(0, 1).contiguous()


def models() -> dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]]:
    """Read right."""
    return {
        "inputs used in another order": (Two, (X, Y)),
        "optional arguments left out": (Optional_, (X,)),
        "an input that is not used, and asserts on sizes": (Lengths, (X, torch.tensor([12, 10, 3]))),
        "several layers, state taken apart and not read": (lambda: Of(_taken_apart, rnn=nn.LSTM(6, 8, 3, dropout=0.1),
                                                                      out=L(8, 4)), (X,)),
        "a bidirectional GRU of two layers": (lambda: Of(lambda s, x: s.out(s.rnn(x)[0]),
                                                         rnn=nn.GRU(6, 8, 2, bidirectional=True), out=L(16, 4)), (X,)),
        "bidirectional with projection": (lambda: Of(lambda s, x: s.out(s.rnn(x)[0]),
                                                     rnn=nn.LSTM(6, 8, 2, bidirectional=True, proj_size=4),
                                                     out=L(8, 4)), (X,)),
        "no biases": (lambda: Of(lambda s, x: s.out(s.rnn(x)[0]), rnn=nn.LSTM(6, 8, bias=False),
                                 out=L(8, 4, bias=False)), (X,)),
        "explicit zero states": (lambda: Of(_zero_states, rnn=nn.LSTM(6, 8), out=L(8, 4)), (X,)),
        "the last step": (lambda: Of(lambda s, x: s.out(s.rnn(x)[0][-1]), rnn=nn.LSTM(6, 8), out=L(8, 4)), (X,)),
        "the last step, batch first": (lambda: Of(lambda s, x: s.out(s.rnn(x)[0][:, -1, :]),
                                                  rnn=nn.LSTM(6, 8, batch_first=True), out=L(8, 4)),
                                       (FIRST,)),
        "the last hidden state of a GRU": (lambda: Of(lambda s, x: s.out(s.rnn(x)[1].squeeze(0)), rnn=nn.GRU(6, 8),
                                                      out=L(8, 4)), (X,)),
        "the last hidden state of the last layer": (lambda: Of(lambda s, x: s.out(s.rnn(x)[1][0][-1]),
                                                               rnn=nn.LSTM(6, 8, 2), out=L(8, 4)), (X,)),
        "layers that are transposed between": (lambda: Of(_transposed, rnn=nn.LSTM(6, 8), out=L(8, 4)), (FIRST,)),
        "permute and contiguous": (lambda: Of(lambda s, x: s.out(s.rnn(x.permute(1, 0, 2).contiguous())[0]).permute(1,
            0, 2), rnn=nn.GRU(6, 8),
                                              out=L(8, 4)), (FIRST,)),
        "viewed flat": (lambda: Of(lambda s, i: F.log_softmax(s.out(s.rnn(s.e(i))[0]).view(-1, 11), dim=1),
                                   e=nn.Embedding(11, 6),
                                   rnn=nn.LSTM(6, 6), out=L(6, 11)), (LABELS,)),
        "viewed flat and back": (lambda: Of(lambda s, x: s.out(torch.tanh(s.a(x.reshape(-1, 6)))).reshape(x.shape[0],
            x.shape[1], 4), a=L(6, 8),
                                            out=L(8, 4)), (X,)),
        "unsqueezed and squeezed": (lambda: Of(lambda s, x: s.a(x.unsqueeze(1)).squeeze(1), a=L(6, 8)), (X,)),
        "labels, batch first": (lambda: Of(lambda s, i: s.rnn(s.e(i))[0], e=nn.Embedding(11, 6),
                                           rnn=nn.LSTM(6, 8, batch_first=True)),
                                (LABELS.T.contiguous(),)),
        "labels cast": (lambda: Of(lambda s, i: s.rnn(s.e(i.long()))[0], e=nn.Embedding(11, 6), rnn=nn.LSTM(6, 8)),
                        (LABELS.int(),)),
        "two embeddings": (lambda: Of(lambda s, i, j: s.rnn(s.e(i) + s.f(j))[0], e=nn.Embedding(11, 6),
                                      f=nn.Embedding(5, 6), rnn=nn.LSTM(6, 8)),
                           (LABELS, LABELS % 5)),
        "residual stacks": (lambda: Of(_residual, a=nn.LSTM(6, 6), b=nn.LSTM(6, 6), n=nn.LayerNorm(6)), (X,)),
        "added in place": (lambda: Of(_in_place, a=L(6, 8), b=L(6, 8)), (X,)),
        "a value added to itself, and times itself": (lambda: Of(lambda s, x: s.out((s.a(x) + s.b(x)) * s.b(x)),
                                                                 a=L(6, 8), b=L(6, 8), out=L(8, 4)),
                                                      (X,)),
        "a gate": (lambda: Of(lambda s, x: s.a(x) * torch.sigmoid(s.b(x)), a=L(6, 8), b=L(6, 8)), (X,)),
        "dropout everywhere": (lambda: Of(lambda s, x: s.d(s.out(F.dropout(torch.tanh(s.a(s.d(x))), 0.2, s.training))),
                                          a=L(6, 8), out=L(8, 4),
                                          d=nn.Dropout(0.3)), (X,)),
        "identity and sequential": (lambda: nn.Sequential(nn.Identity(), L(6, 8), nn.Tanh(),
                                                          nn.Sequential(L(8, 8), nn.Sigmoid()), L(8, 4)), (X,)),
        "a module called twice": (lambda: Of(lambda s, x: s.out(s.a(torch.tanh(s.a(x)))), a=L(6, 6), out=L(6, 4)),
                                  (X,)),
        "an LSTM called twice": (lambda: Of(lambda s, x: s.rnn(s.rnn(x)[0])[0], rnn=nn.LSTM(6, 6)), (X,)),
        "tied weights": (tied, (LABELS,)),
        "frozen weights": (frozen, (X,)),
        "a hook that adds": (lambda: hooked(Of(lambda s, x: s.out(s.b(s.a(x))), a=L(6, 8), b=L(8, 8), out=L(8, 4))),
                             (X,)),
        "a hook before": (lambda: hooked(Of(lambda s, x: s.out(s.b(s.a(x))), a=L(6, 8), b=L(8, 8), out=L(8, 4)),
                                         before=True), (X,)),
        "a subclass that scales its weights": (lambda: Of(lambda s, x: s.out(s.rnn(x)[0]), rnn=Scaled(6, 8),
                                                          out=L(8, 4)), (X,)),
        "a subclass of layer norm": (lambda: Of(lambda s, x: s.n(s.a(x)), a=L(6, 8), n=LargerNorm(8)), (X,)),
        "low-rank adapters": (lambda: Of(lambda s, x: s.out(torch.tanh(s.a(x))), a=LowRank(6, 8), out=L(8, 4)), (X,)),
        "weight norm": (lambda: Of(lambda s, x: s.out(s.a(x)), a=parametrizations.weight_norm(L(6, 8)), out=L(8, 4)),
                        (X,)),
        "spectral norm": (lambda: Of(lambda s, x: s.a(x), a=parametrizations.spectral_norm(L(6, 8))), (X,)),
        "pruned weights": (pruned, (X,)),
        "layer norm without weights": (lambda: Of(lambda s, x: s.n(s.a(x)), a=L(6, 8),
                                                  n=nn.LayerNorm(8, elementwise_affine=False)), (X,)),
        "layer norm without bias": (lambda: Of(lambda s, x: s.n(s.a(x)), a=L(6, 8), n=nn.LayerNorm(8, bias=False)),
                                    (X,)),
        "matrix products with parameters": (lambda: Of(lambda s, x: torch.matmul(x, s.w) @ s.v,
                                                       w=nn.Parameter(torch.randn(6, 8)),
                                                       v=nn.Parameter(torch.randn(8, 4))), (X,)),
        "a transposed weight": (lambda: Of(lambda s, x: F.linear(x, s.a.weight.t()), a=L(8, 6)), (X,)),
        "arguments by keyword": (Keyword, (X,)),
        "names that a training module has itself": (Taken, (X,)),
        "an input called as a layer": (lambda: Of(_called_as, a=L(6, 8)), (X,)),
        "vectors without time": (lambda: nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4)), (X[0],)),
        "one step": (lambda: Of(lambda s, x: s.rnn(x)[0], rnn=nn.LSTM(6, 8)), (X[:1],)),
        "DataParallel": (lambda: nn.DataParallel(nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4))), (X,)),
        # eager: what is tested is the reading, and torch keeps compiled kernels from one vector width to another
        "torch.compile": (lambda: torch.compile(nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4)), backend="eager"), (X,)),
        "averaged weights": (lambda: torch.optim.swa_utils.AveragedModel(nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4))),
                             (X,)),
        "double precision": (lambda: nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4)).double(), (X.double(),)),
        "bfloat16": (lambda: nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4)).bfloat16(), (X.bfloat16(),)),
        "a dead branch": (lambda: Of(_dead, a=L(6, 8), b=L(6, 8)), (X,)),
        "an embedding times a number": (lambda: Of(lambda s, i: s.e(i) * 8.0, e=nn.Embedding(11, 6)), (LABELS,)),
        "a number times a sum, and a quotient": (lambda: Of(lambda s, x: (0.5 * (s.a(x) + s.b(x))) / 3, a=L(6, 8),
                                                            b=L(6, 8)), (X,)),
        "alpha": (lambda: Of(lambda s, x: torch.add(s.a(x), s.b(x), alpha=0.25), a=L(6, 8), b=L(6, 8)), (X,)),
        "a table's input that something else reads": (lambda: Of(lambda s, x: (lambda y: y * torch.sigmoid(y))(s.a(x)),
                                                                 a=large(L(6, 8))), (X,)),
        "SiLU": (lambda: nn.Sequential(large(L(6, 8)), nn.SiLU(), L(8, 4)), (X,)),
        "the table of an LSTM's output": (lambda: Of(lambda s, x: torch.tanh(s.rnn(x)[0]), rnn=nn.LSTM(6, 8)), (X,)),
        "the table of an input": (lambda: Of(lambda s, x: s.a(torch.tanh(x)), a=L(6, 8)), (X,)),
        "a table's input that is returned too": (lambda: Of(lambda s, x: (lambda y: (y, torch.tanh(y)))(s.a(x)),
                                                            a=large(L(6, 8))),
                                                 (X,)),
        "RMS norms, with a gain, without, and written out": (lambda: Of(
            lambda s, x: s.b(_basic(F.rms_norm(s.n(s.a(x)), (8,), eps=1e-3))), a=L(6, 8), n=_varied(nn.RMSNorm(8)),
            b=L(8, 4)), (X,)),
        "dilated causal convolutions, one of them in groups and one depthwise": (lambda: Of(
            lambda s, x: s.out(s.c(F.pad(s.b(F.pad(s.a(F.pad(x.permute(1, 2, 0), (4, 0))), (3, 0))), (8, 0))).permute(
                2, 0, 1)), a=nn.Conv1d(6, 8, 3, dilation=2), b=nn.Conv1d(8, 8, 2, dilation=3, groups=2),
            c=nn.Conv1d(8, 8, 3, dilation=4, groups=8), out=L(8, 4)), (X,)),
        "GELU, exact and by tanh": (lambda: nn.Sequential(large(L(6, 8)), nn.GELU(), large(L(8, 8)), nn.GELU("tanh"),
                                                          L(8, 4)), (X,)),
        "hard sigmoid and hard swish": (lambda: nn.Sequential(large(L(6, 8)), nn.Hardsigmoid(), large(L(8, 8)),
                                                              nn.Hardswish(), L(8, 4)), (X,)),
        "hardtanh and clamp": (lambda: Of(lambda s, x: s.b(torch.clamp(s.c(F.hardtanh(s.a(x))), -0.7, 0.7)),
                                          a=large(L(6, 8)), c=large(L(8, 8)), b=L(8, 4)), (X,)),
        "ReLU": (lambda: nn.Sequential(large(L(6, 8)), nn.ReLU(), L(8, 4)), (X,)),
        "leaky ReLU": (lambda: nn.Sequential(L(6, 8), nn.LeakyReLU(0.1), L(8, 4)), (X,)),
        "ReLU6 and hardtanh from 0 to 20": (lambda: nn.Sequential(L(6, 8), nn.ReLU6(), large(L(8, 8)),
                                                                  nn.Hardtanh(0, 20), L(8, 4)), (X,)),
        "a product of values side by side": (lambda: Of(lambda s, x: s.out(torch.cat([s.a(x), x, s.b(x)], -1)),
                                                        a=L(6, 8), b=L(6, 5), out=L(19, 4)), (X,)),
        "frames stacked": (lambda: Of(lambda s, x: s.b(s.a(x).transpose(0, 1).reshape(x.shape[1], -1, 16)), a=L(6, 8),
                                      b=L(16, 4)), (X,)),
        "an LSTM's states, in and out": (lambda: Of(lambda s, x, h, c: s.rnn(x, (h, c)), rnn=nn.LSTM(6, 8, 2)),
                                         (X, torch.rand(2, 3, 8) - 0.5, torch.randn(2, 3, 8))),
        "states of two layers in one tensor": (_states_in_one, (FIRST, torch.rand(2, 2, 3, 6) - 0.5)),
        "a GRU's state, in and out": (lambda: Of(lambda s, x, h: (s.out(s.rnn(x, h)[0]), s.rnn(x, h)[1]),
                                                 rnn=nn.GRU(6, 8), out=L(8, 4)), (X, torch.rand(1, 3, 8) - 0.5)),
        "the final state returned": (lambda: Of(lambda s, x: s.rnn(x), rnn=nn.LSTM(6, 8)), (X,)),
        "a causal convolution": (lambda: Of(lambda s, x: s.c(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2),
                                            c=nn.Conv1d(6, 8, 3)), (FIRST,)),
        "a causal convolution that is cut": (lambda: Of(lambda s, x: s.b(s.c(x.transpose(1, 2))[:, :, :-2]
                                                                         .transpose(1, 2)),
                                                        c=nn.Conv1d(6, 8, 3, padding=2), b=L(8, 4)), (FIRST,)),
        "a strided convolution": (lambda: Of(lambda s, x: s.c(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2),
                                             c=nn.Conv1d(6, 8, 3, stride=2)), (FIRST,)),
        "a grouped convolution of labels": (lambda: Of(lambda s, i: torch.relu(s.c(F.pad(s.e(i).permute(0, 2, 1),
                                                                                         (1, 0))).transpose(1, 2)),
                                                       e=nn.Embedding(11, 8), c=nn.Conv1d(8, 8, 2, groups=4,
                                                                                          bias=False)),
                                            (LABELS.T.contiguous(),)),
        "a depthwise convolution": (lambda: Of(lambda s, x: s.c(F.pad(s.a(x).transpose(1, 2), (3, 0))).transpose(1, 2),
                                               a=L(6, 8), c=nn.Conv1d(8, 8, 4, groups=8)), (FIRST,)),
        "a negative factor": (lambda: Of(lambda s, x: s.a(x) * -2.0, a=L(6, 8)), (X,)),
        "a negative alpha": (lambda: Of(lambda s, x: s.a(x).add(s.b(x), alpha=-1), a=L(6, 8), b=L(6, 8)), (X,)),
        "half of the features": (lambda: Of(lambda s, x: s.out(s.a(x)[..., 2:6]), a=L(6, 8), out=L(4, 4)), (X,)),
        "halves of the features": (lambda: Of(lambda s, x: (lambda a, b: a * torch.sigmoid(b))(*s.a(x).chunk(2, -1)),
                                              a=L(6, 8)), (X,)),
        "values side by side": (lambda: Of(lambda s, x: torch.tanh(torch.cat([s.a(x), s.b(x)], -1)), a=L(6, 8),
                                           b=L(6, 4)), (X,)),
        "a difference": (lambda: Of(lambda s, x: s.a(x) - s.b(x), a=L(6, 8), b=L(6, 8)), (X,)),
        "one less a gate": (lambda: Of(lambda s, x: 1 - torch.sigmoid(s.a(x)), a=L(6, 8)), (X,)),
        "a gate of width one": (lambda: Of(lambda s, x: s.a(x) * torch.sigmoid(s.b(x)), a=L(6, 8), b=L(6, 1)), (X,)),
        "a parameter that is added, and one that scales": (lambda: Of(lambda s, x: (s.a(x) + s.p) * s.q, a=L(6, 8),
                                                                      p=nn.Parameter(torch.randn(8)),
                                                                      q=nn.Parameter(torch.rand(8) + 0.5)), (X,)),
        "a number that is added": (lambda: Of(lambda s, x: s.a(x) + 0.5, a=L(6, 8)), (X,)),
        "batch norm": (lambda: Of(lambda s, x: s.n(s.a(x).transpose(1, 2)).transpose(1, 2), a=L(6, 8),
                                  n=seen(nn.BatchNorm1d(8))), (FIRST,)),
        "state kept on the model": (Ell, (X,)),
        "packed sequences, by lengths": (lambda: Of(_packed, rnn=nn.LSTM(6, 8)), (X, torch.tensor([12, 10, 4]))),
        "packed sequences, both ways, in any order": (packed_both, (X, torch.tensor([10, 12, 4]))),
        "the last step of packed sequences": (packed_last, (X, torch.tensor([12, 10, 4]))),
        "layer norm written out": (lambda: Of(_normed, a=L(6, 8), g=nn.Parameter(torch.rand(8) + 0.5),
                                              b=nn.Parameter(torch.randn(8))), (X,)),
        "layer norm by a variance": (lambda: Of(lambda s, x: (lambda y: (y - y.mean(-1, keepdim=True)) * torch.rsqrt(
            y.var(-1, keepdim=True, unbiased=False) + 1e-5) + 0.5)(s.a(x)), a=L(6, 8)), (X,)),
        "less the mean of its features": (lambda: Of(lambda s, x: (lambda y: y - y.mean(-1, keepdim=True))(s.a(x)),
                                                     a=L(6, 8)), (X,)),
        "times the mean of its features": (lambda: Of(lambda s, x: s.a(x) * x.mean(-1, keepdim=True), a=L(6, 8)),
                                           (X,)),
        "a square": (lambda: Of(lambda s, x: s.b(s.a(x) ** 2), a=L(6, 8), b=L(8, 4)), (X,)),
        "a branch by training mode": (
            lambda: Of(lambda s, x: s.b(s.a(x)) if s.training else s.a(x), a=L(6, 8), b=L(8, 8)),
            (X,),
        ),
        "defaults of the forward": (Defaults, (X,)),
        "negative dimensions": (
            lambda: Of(lambda s, x: s.a(x.transpose(-3, -2)).transpose(-2, -3).contiguous(), a=L(6, 8)),
            (X,),
        ),
        "not contiguous": (
            lambda: Of(lambda s, x: s.b(torch.tanh(s.a(x).transpose(0, 1))).transpose(0, 1), a=L(6, 8), b=L(8, 4)),
            (X,),
        ),
        "a vector added to every frame": (
            lambda: Of(lambda s, x: s.a(x) + s.p[None, None], a=L(6, 8), p=nn.Parameter(torch.randn(8))),
            (X,),
        ),
        "masked by a buffer": (
            lambda: Of(lambda s, x: s.a(x) * s.m, a=L(6, 8), m=nn.Buffer(torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1]))),
            (X,),
        ),
        "chunks that are put back in another order": (
            lambda: Of(lambda s, x: (lambda a, b: torch.cat([b, a], -1))(*s.a(x).chunk(2, -1)), a=L(6, 8)),
            (X,),
        ),
        "split in unlike parts": (
            lambda: Of(
                lambda s, x: (lambda a, b: s.b(a) + s.c(b))(*s.a(x).split([3, 5], -1)), a=L(6, 8), b=L(3, 4), c=L(5, 4)
            ),
            (X,),
        ),
        "a cumulated sum of the features": (lambda: Of(lambda s, x: torch.cumsum(s.a(x), -1), a=L(6, 8)), (X,)),
        "a sum of the features": (lambda: Of(lambda s, x: s.a(x) * x.sum(-1, keepdim=True), a=L(6, 8)), (X,)),
        "features flipped": (lambda: Of(lambda s, x: s.b(s.a(x).flip(-1)), a=L(6, 8), b=L(8, 4)), (X,)),
        "features rolled": (lambda: Of(lambda s, x: s.b(s.a(x).roll(1, -1)), a=L(6, 8), b=L(8, 4)), (X,)),
        "a clamp from below alone": (lambda: Of(lambda s, x: s.a(x).clamp(min=0), a=L(6, 8)), (X,)),
        "addmm": (
            lambda: Of(
                lambda s, x: torch.addmm(s.b, x.reshape(-1, 6), s.w).view(x.shape[0], x.shape[1], 8),
                b=nn.Parameter(torch.randn(8)),
                w=nn.Parameter(torch.randn(6, 8)),
            ),
            (X,),
        ),
        "a scaled tanh": (lambda: Of(lambda s, x: 1.7159 * torch.tanh(2 / 3 * s.a(x)), a=L(6, 8)), (X,)),
        "a weight that is computed": (
            lambda: Of(
                lambda s, x: F.linear(x, s.a.weight * torch.sigmoid(s.g)[:, None] - s.a.weight.mean(), s.a.bias.exp()),
                a=L(6, 8),
                g=nn.Parameter(torch.randn(8)),
            ),
            (X,),
        ),
        "functional_call": (
            lambda: Of(
                lambda s, x: torch.func.functional_call(s.a, {"weight": s.w}, (x,)),
                a=L(6, 8),
                w=nn.Parameter(torch.randn(8, 6)),
            ),
            (X,),
        ),
        "a hook on the whole model": (whole_hooked, (X,)),
        "a hook on the gradient": (gradient_hooked, (X,)),
        "numbers of another type": (
            lambda: Of(lambda s, x: s.a(x.double().float()).to(torch.float32) * torch.tensor(2), a=L(6, 8)),
            (X,),
        ),
        "softmax with a temperature": (lambda: Of(lambda s, x: F.softmax(s.a(x) / 0.7, -1), a=L(6, 8)), (X,)),
        "every second feature": (lambda: Of(lambda s, x: s.a(x[..., ::2]), a=L(3, 8)), (X,)),
        "features by an index": (lambda: Of(lambda s, x: s.a(x[..., [5, 0, 2]]), a=L(3, 8)), (X,)),
        "one feature": (lambda: Of(lambda s, x: s.a(x) * x[..., 2:3], a=L(6, 8)), (X,)),
        "a list of inputs": (lambda: Of(lambda s, xs: s.a(xs[0]) + s.b(xs[1]), a=L(6, 8), b=L(6, 8)), ([X, Y],)),
        "a dictionary of results": (
            lambda: Of(lambda s, x: {"second": s.a(x), "first": s.b(x)}, a=L(6, 8), b=L(6, 4)),
            (X,),
        ),
        "pi as a tensor": (lambda: Of(lambda s, x: s.a(x) * torch.tensor(3.14159), a=L(6, 8)), (X,)),
        "a submodule called values": (Named, (X,)),
        "two results": (lambda: Of(lambda s, x: (s.a(x), s.b(x)), a=L(6, 8), b=L(6, 4)), (X,)),
        **loops.right(),
        **patches.right(),
        **means.right(),
    }


def packed_last() -> nn.Module:
    """A spotter: the hidden state at each utterance's end."""
    def body(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
        _, h = s.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return s.out(h[-1])

    return Of(body, rnn=nn.GRU(6, 8), out=L(8, 4))


def packed_both() -> nn.Module:
    """Both directions, utterances in any order."""
    def body(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
        made, _ = s.rnn(pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False))
        return pad_packed_sequence(made)[0]

    return Of(body, rnn=nn.LSTM(6, 8, bidirectional=True))


def _normed(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    mean = y.mean(dim=-1, keepdim=True)
    spread = torch.sqrt(torch.mean((y - mean) ** 2, -1, keepdim=True) + 1e-6)
    return (y - mean) / spread * s.g + s.b


def _states_in_one() -> nn.Module:
    """Each layer's hidden state and cell cut out of one tensor and put together again."""
    def body(s: Any, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        made = []
        for i, rnn in enumerate((s.a, s.b)):
            x, (h, c) = rnn(x, (states[0, i][None], states[1, i][None]))
            made.append(torch.stack([h[0], c[0]]))
        return x, torch.stack(made, 1)

    return Of(body, a=nn.LSTM(6, 6, batch_first=True), b=nn.LSTM(6, 6, batch_first=True))


def _taken_apart(s: Any, x: Tensor) -> Tensor:
    y, (_h, _c) = s.rnn(x)
    return s.out(y)


def _zero_states(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(1, x.size(1), 8)
    return s.out(s.rnn(x, (h, h.clone()))[0])


def _transposed(s: Any, x: Tensor) -> Tensor:
    y, _ = s.rnn(x.transpose(0, 1))
    return s.out(y.transpose(0, 1))


def _residual(s: Any, x: Tensor) -> Tensor:
    y = x + s.a(x)[0]
    return s.n(y + s.b(y)[0])


def _in_place(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    y += s.b(x)
    return y


def _called_as(s: Any, a: Tensor) -> Tensor:
    return s.a(a)


def _view_changed(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    y.view(-1, 8).mul_(2)
    return y


def _part_changed(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    y[..., :4] += s.b(x)[..., :4]
    return y


def _dead(s: Any, x: Tensor) -> Tensor:
    torch.tanh(s.b(x))
    return s.a(x)


def refused() -> dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], str]]:
    """Refused, each with words of its reason."""
    return {
        "an initial state in a tuple": (lambda: Of(lambda s, z, x: s.rnn(x, (torch.tanh(s.i(z)),) * 2)[0], i=L(6, 8),
                                                   rnn=nn.LSTM(6, 8)), (Y[:1], X),
                                        "initial state"),
        "an initial state by keyword": (lambda: Of(lambda s, z, x: s.rnn(x, hx=torch.tanh(s.i(z)))[0], i=L(6, 8),
                                                   rnn=nn.GRU(6, 8)), (Y[:1], X),
                                        "initial state"),
        "a subclass that goes backwards": (lambda: Of(lambda s, x: s.rnn(x)[0], rnn=Backwards(6, 8)), (X,), "flip"),
        "divided by a value": (lambda: Of(lambda s, x: s.a(x) / s.b(x), a=L(6, 8), b=L(6, 8)), (X,),
                               "only numbers divide"),
        "log-softmax along time": (lambda: Of(lambda s, x: s.l(s.a(x)), a=L(6, 8), l=nn.LogSoftmax(0)), (X,),
                                   "another axis"),
        "log-softmax along the batch": (lambda: Of(lambda s, x: s.l(s.a(x)), a=L(6, 8), l=nn.LogSoftmax(1)), (X,),
                                        "another axis"),
        "something else kept on the model": (Kept, (X,), "not the state"),
        "packed by lengths that it computes": (lambda: Of(lambda s, x, n: _packed(s, x, n - 1), rnn=nn.LSTM(6, 8)),
                                               (X, torch.tensor([12, 10, 4])), "no argument"),
        "the final state of packed sequences": (
            lambda: Of(lambda s, x, n: s.rnn(pack_padded_sequence(x, n))[1], rnn=nn.LSTM(6, 8)),
            (X, torch.tensor([12, 10, 4])), "final state"),
        "a buffer that counts": (Counting, (X,), "keeps something between calls"),
        "a decision by values": (lambda: Of(lambda s, x: s.a(x) if x.sum() > 0 else -s.a(x), a=L(6, 8)), (X,),
                                 "decides by the values"),
        "packed sequences": (lambda: Of(lambda s, x: _packed(s, x, torch.tensor([12, 10, 4])), rnn=nn.LSTM(6, 8)), (X,),
                             "packed"),
        "scripted": (lambda: torch.jit.trace(nn.Sequential(L(6, 8)), X), (X,), "torch.jit"),
        "a clamp from below zero": (lambda: Of(lambda s, x: s.a(x).clamp(-2, 3), a=L(6, 8)), (X,), "begin at 0"),
        "zeros around frames": (lambda: Of(lambda s, x: s.a(F.pad(x, (0, 0, 0, 0, 1, 0))), a=L(6, 8)), (X,),
                                "causal convolution"),
        "the cell state": (lambda: Of(lambda s, x: s.out(s.r(x)[1][1][-1]), r=nn.LSTM(6, 8), out=L(8, 4)), (X,),
                           "cell state"),
        "the final state of both directions": (lambda: Of(lambda s, x: s.out(s.r(x)[1][0][0]),
                                                          r=nn.LSTM(6, 8, bidirectional=True), out=L(8, 4)), (X,),
                                               "bidirectional"),
        "the first step": (lambda: Of(lambda s, x: s.out(s.r(x)[0][0]), r=nn.LSTM(6, 8), out=L(8, 4)), (X,),
                           "last step"),
        "a variance with Bessel's correction": (
            lambda: Of(lambda s, x: (lambda y: (y - y.mean(-1, keepdim=True)) / torch.sqrt(
                y.var(-1, keepdim=True) + 1e-5))(s.a(x)), a=L(6, 8)), (X,), "Bessel"),
        "a root": (lambda: Of(lambda s, x: torch.sqrt(torch.relu(s.a(x))), a=L(6, 8)), (X,), "norms"),
        "a mean of squares alone": (lambda: Of(lambda s, x: s.a(x) * (x ** 2).mean(-1, keepdim=True), a=L(6, 8)),
                                    (X,), "something else than a norm"),
        "the mean of another value": (lambda: Of(lambda s, x: (lambda y, z: (y - z.mean(-1, keepdim=True)) / torch.sqrt(
            ((y - y.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True) + 1e-5))(s.a(x), s.b(x)), a=L(6, 8),
            b=L(6, 8)), (X,), "something else than a norm"),
        "a view changed in place": (lambda: Of(_view_changed, a=L(6, 8)), (X,), "changed in place"),
        "a part changed in place": (lambda: Of(_part_changed, a=L(6, 8), b=L(6, 8)), (X,), "changed in place"),
        "a parameter for each step of the batch": (
            lambda: Of(lambda s, x: s.a(x) + s.p, a=L(6, 8), p=nn.Parameter(torch.randn(3, 8))),
            (X,),
            "one for each feature",
        ),
        "a parameter of one column": (
            lambda: Of(lambda s, x: s.a(x) * s.p, a=L(6, 8), p=nn.Parameter(torch.randn(3, 1))),
            (X,),
            "one for each feature",
        ),
        "where": (lambda: Of(lambda s, x: torch.where(s.a(x) > 0, s.a(x), s.b(x)), a=L(6, 8), b=L(6, 8)), (X,), "gt"),
        "masked by values": (
            lambda: Of(lambda s, x: (lambda y: y.masked_fill(y < 0, 0.0))(s.a(x)), a=L(6, 8)),
            (X,),
            "lt",
        ),
        "einsum with a parameter": (
            lambda: Of(lambda s, x: torch.einsum("tbi,oi->tbo", x, s.w), w=nn.Parameter(torch.randn(8, 6))),
            (X,),
            "einsum",
        ),
        "unbind of the features": (
            lambda: Of(lambda s, x: s.b(torch.stack(s.a(x).unbind(-1)[:4], -1)), a=L(6, 8), b=L(4, 4)),
            (X,),
            "unbind",
        ),
        "a sum along time": (lambda: Of(lambda s, x: torch.cumsum(s.a(x), 0), a=L(6, 8)), (X,), "another axis"),
        "frames rolled": (lambda: Of(lambda s, x: s.b(s.a(x).roll(1, 0)), a=L(6, 8), b=L(8, 4)), (X,), "another axis"),
        "a clamp from above alone": (
            lambda: Of(lambda s, x: s.a(x).clamp(max=1.0), a=L(6, 8)),
            (X,),
            "without a lower end",
        ),
        "a clamp to an empty range": (lambda: Of(lambda s, x: s.a(x).clamp(0, 0), a=L(6, 8)), (X,), "up to 0"),
        "addmm with factors": (
            lambda: Of(
                lambda s, x: torch.addmm(s.b, x.reshape(-1, 6), s.w, beta=0.5, alpha=2).view(x.shape[0], x.shape[1], 8),
                b=nn.Parameter(torch.randn(8)),
                w=nn.Parameter(torch.randn(6, 8)),
            ),
            (X,),
            "matrices",
        ),
        "addcmul": (
            lambda: Of(lambda s, x: torch.addcmul(s.a(x), s.b(x), s.b(x), value=0.5), a=L(6, 8), b=L(6, 8)),
            (X,),
            "addcmul",
        ),
        "lerp": (lambda: Of(lambda s, x: torch.lerp(s.a(x), s.b(x), 0.25), a=L(6, 8), b=L(6, 8)), (X,), "lerp"),
        "a value in another precision between": (
            lambda: Of(lambda s, x: s.b(s.a(x).half().float()), a=L(6, 8), b=L(8, 4)),
            (X,),
            "otherwise",
        ),
        "rounded": (lambda: Of(lambda s, x: torch.round(s.a(x)), a=L(6, 8)), (X,), "round"),
        "an absolute value": (lambda: Of(lambda s, x: s.a(x).abs(), a=L(6, 8)), (X,), "abs"),
        "the larger of two": (
            lambda: Of(lambda s, x: torch.maximum(s.a(x), s.b(x)), a=L(6, 8), b=L(6, 8)),
            (X,),
            "maximum",
        ),
        "a parametric ReLU": (lambda: nn.Sequential(L(6, 8), nn.PReLU(), L(8, 4)), (X,), "prelu"),
        "a threshold": (lambda: Of(lambda s, x: F.threshold(s.a(x), 0.5, 0.0), a=L(6, 8)), (X,), "threshold"),
        "a leaky ReLU of a negative slope": (
            lambda: Of(lambda s, x: F.leaky_relu(s.a(x), -0.1), a=L(6, 8)),
            (X,),
            "slopes",
        ),
        "group norm": (
            lambda: Of(
                lambda s, x: s.n(s.a(x).reshape(-1, 8)).view(x.shape[0], x.shape[1], 8), a=L(6, 8), n=nn.GroupNorm(2, 8)
            ),
            (X,),
            "group_norm",
        ),
        "a batch norm that uses the batch": (
            lambda: Of(
                lambda s, x: s.n(s.a(x).transpose(1, 2)).transpose(1, 2),
                a=L(6, 8),
                n=nn.BatchNorm1d(8, track_running_stats=False),
            ),
            (FIRST,),
            "without statistics",
        ),
        "layer norm over two axes": (
            lambda: Of(lambda s, x: s.n(s.a(x)), a=L(6, 8), n=nn.LayerNorm([3, 8])),
            (X,),
            "2 axes",
        ),
        "labels counted from one": (lambda: Of(lambda s, i: s.e(i + 1), e=nn.Embedding(12, 6)), (LABELS,), "of labels"),
        "labels one-hot": (lambda: Of(lambda s, i: s.a(F.one_hot(i, 11).float()), a=L(11, 6)), (LABELS,), "one_hot"),
        "every second frame": (lambda: Of(lambda s, x: s.a(x[::2]), a=L(6, 8)), (X,), "part of an axis"),
        "a difference of frames": (lambda: Of(lambda s, x: s.a(x[1:] - x[:-1]), a=L(6, 8)), (X,), "part of an axis"),
        "the batch by an index": (lambda: Of(lambda s, x: s.a(x[:, [2, 0, 1]]), a=L(6, 8)), (X,), "by an index"),
        "an input returned": (lambda: Of(lambda s, x: (s.a(x), x), a=L(6, 8)), (X,), "not what a layer makes"),
        "a constant added": (lambda: Of(lambda s, x: s.a(x) + torch.arange(8.0), a=L(6, 8)), (X,), "arange"),
        "ones added": (lambda: Of(lambda s, x: s.a(x) + torch.ones_like(s.a(x)), a=L(6, 8)), (X,), "ones_like"),
        "an embedding with a largest norm": (lambda: Of(lambda s, i: s.e(i), e=nn.Embedding(11, 6, max_norm=1.0)),
                                             (LABELS,), "largest norm"),
        "one is batch first, one is not": (lambda: Of(lambda s, x: s.b(s.a(x)[0])[0], a=nn.LSTM(6, 6),
                                                      b=nn.LSTM(6, 6, batch_first=True)), (X,),
                                           "batch for another"),
        "time and features exchanged": (lambda: Of(lambda s, x: s.b(s.a(x).transpose(0, 2)), a=L(6, 8), b=L(12, 4)),
                                        (X,), "features"),
        "attention": (lambda: Of(lambda s, x: s.m(x, x, x)[0], m=nn.MultiheadAttention(6, 2)), (X,), ""),
        "random numbers": (lambda: Of(lambda s, x: s.a(x + torch.rand_like(x)), a=L(6, 8)), (X,), "rand"),
        "nothing at all": (lambda: nn.Identity(), (X,), ""),
        "a length built in": (lambda: Of(lambda s, x: s.a(x.reshape(12, 3, 6)), a=L(6, 8)), (X,), "length"),
        "the whole sequence and its last step": (lambda: Of(lambda s, x: s.a(x) + s.a(x)[-1], a=L(6, 8)), (X,), ""),
        **loops.refused(),
        **patches.refused(),
        **means.refused(),
    }


def _packed(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
    return pad_packed_sequence(s.rnn(pack_padded_sequence(x, lengths))[0])[0]
