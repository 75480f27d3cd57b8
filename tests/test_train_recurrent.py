"""GRU, coupled and normed LSTM, log-softmax: integers of evaluate, gradients of the real equations."""

import numpy as np
import pytest
import torch

from nnac import arith
from nnac.evaluate import evaluate, initial_state
from nnac.formats import Precision
from nnac.lower import lower
from nnac.model import EntryPoint, Kernel, Layer, ModelGraph
from nnac.train.module import GraphModule
from tests.graphs import normed_steps

KINDS = ["gru", "lstm_coupled", "lstm_normed", "recurrence"]
GATES = dict(gru=3, lstm=4, lstm_coupled=3, lstm_normed=4, recurrence=4)


def model(kind, inputs=10, cells=12, outputs=7):
    """features > recurrent layer > linear > log-softmax."""
    kernels = (Kernel("input", "net.rnn.input", GATES[kind] * cells, inputs),
               Kernel("recurrent", "net.rnn.recurrent", GATES[kind] * cells, cells))
    return ModelGraph("net", {}, (
        Layer("net.rnn", kind, ("features",), cells, 1, "encoder", kernels,
              dict(cells=cells, bidirectional=False, project=0, rows=4 * cells, again=4 * cells,
                   steps=normed_steps(cells))),
        Layer("net.output", "linear", ("net.rnn",), outputs, 1, "encoder",
              (Kernel("weight", "net.output.weight", outputs, cells),), dict(bias=True)),
        Layer("net.scores", "log_softmax", ("net.output",), outputs, 1, "encoder")), dict(features=inputs),
                      entries=(EntryPoint("encoder"),))


def run(module, x, state=None):
    state = module._state("encoder", x.shape[1], x) if state is None else state
    return module.run("encoder", dict(features=x), dict(features=False), state)


def made(kind, gain=1.0, **shape):
    torch.manual_seed(0)
    module = GraphModule(lower(model(kind, **shape), lambda path: Precision(activations=16 if path == "net.output"
                                                                            else 8)))
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(gain)
    module.calibrate([torch.randn(20, 4, 10)], lambda x: run(module, x))
    return module


@pytest.mark.parametrize("gain", [1.0, 8.0], ids=["usual", "saturating"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_value_equals_evaluate(kind, gain):
    module, seen, expected = made(kind, gain), {}, {}
    x = torch.randn(30, 3, 10) * gain
    state = module._state("encoder", 3, x)
    with module.watching(lambda name, v: seen.setdefault(name, v.detach().long().numpy())):
        run(module, x, state)
    graph = module.bind()
    _, end = evaluate(graph, "encoder", dict(features=seen["features"]), watch=expected.__setitem__)
    assert set(expected) <= set(seen) and all((seen[k] == v).all() for k, v in expected.items())
    assert all((state[k].detach().double().round().numpy() == v).all() for k, v in end.items())


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_step_by_step_equals_the_whole_sequence(kind):
    graph = made(kind).bind()
    x = np.random.default_rng(0).integers(-128, 128, (8, 2, 10))
    whole, end = evaluate(graph, "encoder", dict(features=x))
    state, parts = initial_state(graph, 2), []
    for t in range(8):
        out, state = evaluate(graph, "encoder", dict(features=x[t: t + 1]), state)
        parts.append(out["net.scores"])
    assert (np.concatenate(parts) == whole["net.scores"]).all() and all((state[k] == end[k]).all() for k in end)


def test_a_bidirectional_gru_equals_evaluate_and_torchs_in_rows_of_their_own_lengths():
    torch.manual_seed(0)
    kernels = tuple(Kernel(k, f"rnn.{d}.{k}", 36, n) for d in ("forward", "backward")
                    for k, n in (("input", 10), ("recurrent", 12)))
    layers = (Layer("rnn", "gru", ("features",), 24, 1, "encoder", kernels, dict(cells=12, bidirectional=True)),)
    made = ModelGraph("m", {}, layers, dict(features=10), entries=(EntryPoint("encoder"),))
    module = GraphModule(lower(made, lambda path: Precision()))
    x, lengths = torch.randn(9, 3, 10), torch.tensor([9, 4, 6])
    module.calibrate([x], lambda x: run(module, x))
    seen: dict[str, np.ndarray] = {}
    with module.watching(lambda name, v: seen.setdefault(name, v.detach().long().numpy())):
        loss = run(module, x)["rnn"].square().sum()
    loss.backward()
    assert all(float(p.grad.abs().max()) > 0 for p in module.layer("rnn").parameters())
    graph = module.bind()
    want, _ = evaluate(graph, "encoder", dict(features=seen["features"]))
    assert (want["rnn"] == seen["rnn"]).all()
    layer, reference = module.layer("rnn"), torch.nn.GRU(10, 12, bidirectional=True)
    reference.load_state_dict({k: v for k, v in layer.state_dict().items() if k in reference.state_dict()})
    state = {s.name: torch.zeros(3, s.width) for s in layer.node.states}
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    expected = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0])[0]
    got = layer.reals([x], state, lengths)
    for k, n in enumerate(lengths):
        assert (got[:n, k] - expected[:n, k]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_integers_track_the_real_network(kind):
    module = made(kind)
    x = torch.randn(30, 3, 10)
    with torch.no_grad():
        got = run(module, x)["net.rnn"] / 127
        with module.real_numbers():
            real = run(module, x)["net.rnn"]
    assert (got - real).abs().max() < 0.06


def test_the_real_gru_is_that_of_torch():
    module = made("gru")
    x, layer = torch.randn(9, 2, 10), module.layer("net.rnn")
    reference = torch.nn.GRU(10, 12)
    with torch.no_grad():
        for name, p in reference.named_parameters():
            p.copy_(getattr(layer, name))
        with module.real_numbers():
            assert torch.allclose(run(module, x)["net.rnn"], reference(x)[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_point_the_way_of_the_real_network(kind):
    module = made(kind)
    x, weight = torch.randn(12, 4, 10), torch.randn(12, 4, 7)
    gradients = []
    for quantised in (True, False):
        module.switch("*", quantised)
        module.zero_grad()
        values, unit = run(module, x)["net.scores"], 2.0**-arith.LOG_FRACTION if quantised else 1.0
        (values * unit * weight).sum().backward()
        gradients.append({k: p.grad.clone() for k, p in module.named_parameters()})
    for name in gradients[0]:
        a, b = (g[name].flatten() for g in gradients)
        assert torch.nn.functional.cosine_similarity(a, b, 0) > 0.98, name
        assert 0.8 < float(a.norm() / b.norm()) < 1.25, name


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(kind):
    module = made(kind)
    x, wanted = torch.randn(10, 8, 10), torch.randint(0, 7, (10, 8))
    optimiser, losses = torch.optim.Adam(module.parameters(), 1e-2), []
    for _ in range(30):
        scores = run(module, x)["net.scores"] * 2.0**-arith.LOG_FRACTION
        loss = torch.nn.functional.nll_loss(scores.flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("carrier", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("width", [1, 2, 64, 1000])
def test_log_softmax_is_within_2_to_minus_9(carrier, width):
    rng, scale = np.random.default_rng(width), 0.013
    x = rng.integers(-500, 500, (40, width))
    m, s = arith.multiplier_and_shift(np.float64(scale * 2048))
    tables = carrier(arith.exp_table().entries.astype(np.int64)), carrier(arith.log_table())
    got = np.asarray(arith.log_softmax(carrier(x), *tables, int(m), int(s))) / 2048
    real = x * scale - (x * scale).max(-1, keepdims=True)
    expected = real - np.log(np.exp(real).sum(-1, keepdims=True))
    near = expected > -15
    assert np.abs(got - expected)[near].max() < 2.0**-9


def test_log_softmax_of_far_apart_logits_stays_in_range():
    m, s = arith.multiplier_and_shift(np.float64(1.0 * 2048))
    y = arith.log_softmax(np.array([[32767, -32768, 0]]), arith.exp_table().entries.astype(np.int64), arith.log_table(),
                          m, s)
    assert y.min() == -32768 and abs(int(y.max())) <= 1
