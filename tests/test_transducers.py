"""Users' transducers: each part as it stands, read right to the integer, or refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nnac
from nnac import tensors
from nnac.capture import PrepareError
from nnac.executors import Subject

POLICY = """
import "specs/targets/edge.nnac"
policy mine {
  model  transducer
  target edge
  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }
}
"""
V, C, H = 9, 8, 8


class Encoder(nn.Module):
    """Batch first, stacks two frames, takes lengths and gives them back."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.after = nn.LSTM(6, H, batch_first=True), nn.LSTM(2 * H, H, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.rnn(x)
        y = y[:, : y.shape[1] // 2 * 2] if y.shape[1] % 2 else y
        return self.after(y.reshape(y.shape[0], -1, 2 * H))[0], torch.ceil(lengths.float() / 2).int()


class Prediction(nn.Module):
    def __init__(self, rows: int = V) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(rows, 6), nn.LSTM(6, H, batch_first=True)

    def forward(self, y: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return self.rnn(self.embed(y), state)


class Joint(nn.Module):
    """How two sequences meet: ``combine``, then an activation, then the labels."""

    def __init__(self, combine: str, activation: Any, wide: bool = False) -> None:
        super().__init__()
        self.combine, self.activation = combine, activation
        self.enc, self.pred = nn.Linear(H, C), nn.Linear(H, C, bias=False)
        self.both, self.out = nn.Linear(2 * H, C), nn.Linear(C, V)

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        if self.combine == "concatenate":
            f, g = f.unsqueeze(2), g.unsqueeze(1)
            f = f.expand(-1, -1, g.shape[2], -1)
            return self.out(self.activation(self.both(torch.cat([f, g.expand(-1, f.shape[1], -1, -1)], -1))))
        f, g = self.enc(f).unsqueeze(2), self.pred(g).unsqueeze(1)
        return self.out(self.activation(g + f if self.combine == "add" else f * g))


def made(combine: str = "add", activation: Any = torch.tanh, *, policy: str = POLICY, blank: int = 0, rows: int = V,
         **more: Any) -> tuple[Any, dict[str, nn.Module], tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    parts = dict(encoder=Encoder(), prediction=Prediction(rows), joint=Joint(combine, activation))
    x, labels = torch.randn(2, 12, 6), torch.tensor([[1, 2, 5, 4, 1], [2, 0 if blank else 1, 6, 5, 4]])
    module = nnac.prepare_transducer(**parts, policy=policy, blank=blank, example=dict(
        encoder=(x, torch.tensor([12, 9])), prediction=(labels,)), **more)
    return module, parts, (x, labels)


@pytest.mark.parametrize("combine", ["add", "multiply", "concatenate"])
@pytest.mark.parametrize("activation", [torch.tanh, torch.relu], ids=["tanh", "relu"])
def test_joints_of_every_kind_are_read_and_run_to_the_integer(combine, activation, tmp_path):
    module, parts, (x, labels) = made(combine, activation, blank=3)
    lengths = torch.tensor([12, 8])
    with torch.no_grad(), module.real_numbers():
        f, g = parts["encoder"](x, lengths)[0], parts["prediction"](torch.cat([torch.full((2, 1), 3), labels], 1))[0]
        assert torch.allclose(module(x, lengths, labels)[0], parts["joint"](f, g), atol=1e-5)
    module.calibrate([(x, lengths, labels)])
    logits, made_lengths = module(x, lengths, labels)
    assert made_lengths.tolist() == [6, 4] and logits.shape == (2, 6, 6, V)
    module.loss(logits, made_lengths, labels, torch.tensor([5, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in module.named_parameters())
    module.save(tmp_path / "m.nnc")
    subject = Subject.load(tmp_path / "m.nnc")
    arrays = dict(features=x.numpy())
    result = tensors.compare(subject, subject, arrays, ("torch", "emulator"))
    assert result.compared > 1000 and result.equal
    ran = tensors.run(subject, arrays)
    assert ran.cycles and all(3 not in r for r in ran.results)
    assert [r.tolist() for r in ran.results] == [list(map(int, t.split())) for t in result.texts]
    # what only one sequence reads is computed in its entry, once
    assert {n.path for n in subject.graph.entry("joint")} <= {"joint.add", "joint.mul", "joint.both.sum[0]",
                                                              "joint.tanh", "joint.relu", "joint.out"}


class Stateless(nn.Module):
    """The last two labels alone: an embedding, a grouped convolution, a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(V, H), nn.Conv1d(H, H, 2, groups=2, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        x = nn.functional.pad(self.embed(y).permute(0, 2, 1), (1, 0))
        return torch.relu(self.conv(x).permute(0, 2, 1))


def test_a_stateless_prediction_network_keeps_its_last_labels_on_the_machine(tmp_path):
    torch.manual_seed(0)
    parts = dict(encoder=Encoder(), prediction=Stateless(), joint=Joint("add", torch.tanh))
    x, labels = torch.randn(2, 12, 6), torch.tensor([[1, 2, 5, 4, 1], [2, 1, 6, 5, 4]])
    module = nnac.prepare_transducer(**parts, policy=POLICY, example=dict(encoder=(x, torch.tensor([12, 9])),
                                                                          prediction=(labels,)))
    with torch.no_grad():
        module.layer("joint.out").bias[0] -= 0.5               # say something
    module.calibrate([(x, torch.tensor([12, 12]), labels)])
    module.save(tmp_path / "m.nnc")
    subject = Subject.load(tmp_path / "m.nnc")
    result = tensors.compare(subject, subject, dict(features=x.numpy()), ("torch", "emulator"))
    assert result.equal and result.by_value["prediction.conv.window"][0] > 2 * 2 * H and result.texts[0]
    logits, n = module(x, torch.tensor([12, 12]), labels)
    module.loss(logits, n, labels, torch.tensor([5, 5])).backward()
    own = module.layer("prediction.conv.matrix").weight
    assert own.grad.shape == (H, 2 * H) and (own.grad != 0).sum() <= H * H and not own.grad[own == 0].any()
    assert torch.equal(module.original_state_dict("prediction")["conv.weight"], parts["prediction"].conv.weight)


def test_convolutions_run_on_the_machine_to_the_integer(tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(8, 12, 3, stride=2), nn.Conv1d(12, 12, 4, groups=12), nn.Conv1d(12, 8, 2)
            self.out = nn.LeakyReLU(0.2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.out(self.a(nn.functional.pad(x, (1, 0))))
            y = nn.functional.relu6(self.b(nn.functional.pad(y, (3, 0))))
            return self.c(nn.functional.pad(y, (1, 0))).transpose(1, 2)

    torch.manual_seed(0)
    x = torch.randn(2, 8, 14)
    model = Net()
    module = nnac.prepare(nn.Sequential(Turned(), model), POLICY.replace("transducer", "module"), x.transpose(1, 2))
    module.calibrate([(x.transpose(1, 2),)])
    with torch.no_grad():
        assert (module(x.transpose(1, 2)) - model(x)).abs().max() < 0.1 * model(x).abs().max()
    module.save(tmp_path / "m.nnc")
    subject = Subject.load(tmp_path / "m.nnc")
    arrays = {subject.tensors.read[0].name: x.transpose(1, 2).numpy()}
    result = tensors.compare(subject, subject, arrays, ("torch", "emulator"))
    assert result.equal and result.compared > 1000
    assert not subject.program.report["host"]


class Turned(nn.Module):
    """[B, T, C] as convolutions read it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_weights_go_back_under_their_own_names():
    module, parts, _ = made("concatenate", torch.relu, blank=V - 1)
    for name, part in parts.items():
        state = module.original_state_dict(name)
        for n, w in part.state_dict().items():
            assert torch.equal(state[n], w), n


def test_a_blank_without_a_row_is_nothing_and_stays_so():
    module, parts, (x, labels) = made("concatenate", torch.relu, blank=-1, rows=V - 1, start="zeros")
    lengths = torch.tensor([12, 12])
    with torch.no_grad(), module.real_numbers():
        embedded = torch.cat([torch.zeros(2, 1, 6), parts["prediction"].embed(labels)], 1)
        g = parts["prediction"].rnn(embedded)[0]
        y = parts["joint"](parts["encoder"](x, lengths)[0], g)
        assert torch.allclose(module(x, lengths, labels)[0], y, atol=1e-5)
    module.calibrate([(x, lengths, labels)])
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    logits, n = module(x, lengths, labels)
    module.loss(logits, n, labels, torch.tensor([5, 5])).backward()
    optimiser.step()
    assert not module.layer("prediction.embed").weight[0].any()
    assert torch.equal(module.original_state_dict("prediction")["embed.weight"],
                       module.layer("prediction.embed").weight[1:])


def test_a_method_is_a_part_and_refusals_name_the_line():
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.pred, self.join = Encoder(), Prediction(), Joint("add", torch.tanh)

        def encode(self, x: Tensor) -> Tensor:
            return self.enc(x, torch.tensor([12, 12]))[0]

        def predict(self, y: Tensor) -> Tensor:
            return self.pred(y)[0]

        def joint(self, f: Tensor, g: Tensor) -> Tensor:
            return self.join(f, torch.erfinv(g))

    torch.manual_seed(0)
    model = Whole()
    example = torch.randn(2, 12, 6), torch.randint(0, V, (2, 5))
    with pytest.raises(PrepareError, match=r"test_transducers.py:\d+: .*erfinv"):
        nnac.prepare_transducer(encoder=model.encode, prediction=model.predict, joint=model.joint, policy=POLICY,
                                example=example)
    module = nnac.prepare_transducer(encoder=model.encode, prediction=model.predict, joint=model.join, policy=POLICY,
                                     example=example)
    assert "encoder.enc.rnn" in module.graph.by_path


@pytest.mark.parametrize("more, words", [(dict(blank=V), "none of them"), (dict(start="zero"), "`zeros`"),
                                         (dict(rows=V - 2), "rows for")])
def test_what_does_not_belong_together_is_refused(more, words):
    with pytest.raises(PrepareError, match=words):
        made(**more)


def test_chunks_with_states_are_the_whole_sequence_to_the_integer():
    class Streaming(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.gru, self.out = nn.LSTM(6, H, 2), nn.GRU(H, H), nn.Linear(H, 4)

        def forward(self, x: Tensor, h: Tensor, c: Tensor, g: Tensor) -> Any:
            y, (h, c) = self.rnn(x, (h, c))
            y, g = self.gru(y, g)
            return self.out(y), h, c, g

    torch.manual_seed(0)
    x, zero = torch.randn(12, 3, 6), torch.zeros(2, 3, H)
    policy = POLICY.replace("transducer", "module")
    example = (x, zero, zero, zero[:1])
    with pytest.raises(PrepareError, match="not the state"):
        nnac.prepare_streaming(Streaming(), policy, example, states=dict(h=2, c=1, g=3))
    with pytest.raises(PrepareError, match="not named"):
        nnac.prepare_streaming(Streaming(), policy, example, states=dict(h=1))
    module = nnac.prepare_streaming(Streaming(), policy, example, states=dict(h=1, c=2, g=3))
    module.calibrate([example])
    module.eval()
    with torch.no_grad():
        whole, *ends = module(*example)
        states, parts = example[1:], []
        for chunk in x.split(5):
            y, *states = module(chunk, *states)
            parts.append(y)
    assert torch.equal(torch.cat(parts), whole)
    assert all(torch.equal(a, b) for a, b in zip(ends, states, strict=True))


def test_arrays_that_are_no_features_are_one_line(tmp_path):
    module, _, (x, labels) = made()
    module.calibrate([(x, torch.tensor([12, 12]), labels)])
    module.save(tmp_path / "m.nnc")
    subject = Subject.load(tmp_path / "m.nnc")
    with pytest.raises(tensors.TensorError, match="is not given"):
        tensors.run(subject, dict(x=np.zeros((2, 12, 6), np.float32)))
    with pytest.raises(tensors.TensorError, match=r"is \[batch, time, 6\]"):
        tensors.run(subject, dict(features=np.zeros((2, 12, 5), np.float32)))
