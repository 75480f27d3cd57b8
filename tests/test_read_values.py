"""Whatever a call is given, of all that a forward can make, it is read rightly or refused; it never crashes."""

import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nnac
from nnac.capture.problems import PrepareError
from tests.test_transducers import POLICY

W = 8


class Net(nn.Module):
    """A linear layer, ``given`` of what it makes, and ``call`` on that."""

    def __init__(self, given, call):
        super().__init__()
        self.first, self.table = nn.Linear(W, W), nn.Parameter(torch.randn(W, W))
        self.linear, self.convolution, self.embedding = nn.Linear(W, W), nn.Conv1d(W, W, 3), nn.Embedding(5, W)
        self.lstm, self.gru = nn.LSTM(W, W, batch_first=True), nn.GRU(W, W, batch_first=True)
        self.norm, self.batch_norm, self.cell = nn.LayerNorm(W), nn.BatchNorm1d(W), nn.LSTMCell(W, W)
        self.given, self.call = given, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, self.given(self, self.first(x)))


GIVEN = {
    "zeros": lambda m, y: torch.zeros_like(y),
    "parameters": lambda m, y: m.table.unsqueeze(0),
    "the last step": lambda m, y: y[:, -1],
    "one more axis": lambda m, y: y.unsqueeze(1),
    "features before time": lambda m, y: y.transpose(1, 2),
    "values side by side": lambda m, y: torch.cat([y, y * 2], -1),
    "a mean over time": lambda m, y: y.mean(1, keepdim=True),
    "a part": lambda m, y: y[..., 2:6],
}
CALLS = {
    "linear": lambda m, z: m.linear(z), "matrix product": lambda m, z: z @ m.table, "lstm": lambda m, z: m.lstm(z)[0],
    "gru": lambda m, z: m.gru(z)[0], "embedding": lambda m, z: m.embedding(z[..., 0].long()),
    "convolution": lambda m, z: m.convolution(F.pad(z.transpose(1, 2), (2, 0))).transpose(1, 2),
    "loop": lambda m, z: torch.stack([m.cell(z[:, t])[0] for t in range(z.shape[1])], 1),
    "layer norm": lambda m, z: m.norm(z), "batch norm": lambda m, z: m.batch_norm(z.transpose(1, 2)).transpose(1, 2),
    "relu": lambda m, z: torch.relu(z), "leaky relu": lambda m, z: F.leaky_relu(z, 0.2), "silu": lambda m, z: F.silu(z),
    "gelu": lambda m, z: F.gelu(z), "hard swish": lambda m, z: F.hardswish(z), "tanh": lambda m, z: torch.tanh(z),
    "hard sigmoid": lambda m, z: F.hardsigmoid(z), "hardtanh": lambda m, z: F.hardtanh(z),
    "sigmoid": lambda m, z: torch.sigmoid(z), "softmax": lambda m, z: z.softmax(-1),
    "log-softmax": lambda m, z: z.log_softmax(-1), "softmax over time": lambda m, z: z.softmax(1),
    "glu": lambda m, z: F.glu(z), "dropout": lambda m, z: F.dropout(z, 0.1, m.training),
    "mean over time": lambda m, z: z.mean(1), "mean": lambda m, z: z.mean(-1, keepdim=True),
    "sum over time": lambda m, z: z.sum(1), "pooling": lambda m, z: F.adaptive_avg_pool1d(z.transpose(1, 2), 1),
    "double": lambda m, z: z * 2, "square": lambda m, z: z * z, "one more": lambda m, z: z + 1,
    "minus": lambda m, z: -z,
    "a third": lambda m, z: z / 3, "power": lambda m, z: z**2, "root": lambda m, z: z.sqrt(),
    "exp": lambda m, z: z.exp(),
    "twice": lambda m, z: torch.cat([z, z], -1), "halves": lambda m, z: torch.cat(z.chunk(2, -1)[::-1], -1),
    "stacked": lambda m, z: torch.stack([z, z], 2).flatten(2), "cut": lambda m, z: z[..., 1:3],
    "last": lambda m, z: z[:, -1:], "viewed": lambda m, z: z.reshape(z.shape[0], -1, 4),
    "padded": lambda m, z: F.pad(z, (0, 0, 1, 0))[:, :-1], "backwards": lambda m, z: z.flip(1),
    "limited": lambda m, z: z.clamp(-1, 1), "greater": lambda m, z: torch.maximum(z, z), "abs": lambda m, z: z.abs(),
    "chosen": lambda m, z: torch.where(z > 0, z, z), "repeated": lambda m, z: z.repeat(1, 1, 2),
    "turned": lambda m, z: z.transpose(1, 2), "with itself": lambda m, z: z + z.relu(),
}


@functools.cache
def outcome(given: str, call: str) -> str:
    torch.manual_seed(0)
    model, x = Net(GIVEN[given], CALLS[call]).eval(), torch.randn(2, 5, W)
    try:
        want = model(x)
    except (RuntimeError, ValueError, IndexError):
        return "no such model"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = nnac.prepare(model, POLICY.replace("transducer", "module"), x)
    except PrepareError:
        return "refused"
    with torch.no_grad(), made.real_numbers():
        assert torch.allclose(made(x), want, atol=1e-4), "wrong"
    return "right"


@pytest.mark.parametrize("given", GIVEN)
def test_a_call_is_read_rightly_or_refused(given):
    outcomes = [outcome(given, call) for call in CALLS]
    assert set(outcomes) <= {"right", "refused", "no such model"}
    assert given in ("zeros", "parameters") or outcomes.count("right") >= 5, dict(zip(CALLS, outcomes, strict=True))
