"""The reference evaluator: streaming equals whole sequences, both carriers agree, graphs verify, and integers track
real numbers."""

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac import arith
from nnac.evaluate import evaluate, initial_state
from nnac.formats import Precision
from nnac.ir import GraphError
from nnac.ops import operator
from nnac.verify import verify
from tests.graphs import random_graph, random_inputs

SHAPES = [dict(size="tiny"), dict(size="tiny", combine="multiply"), dict(size="tiny", project=8),
          dict(size="tiny", norm=False, stack=1, reduce=1),
          dict(size="tiny", layers=3, cells=20)]


def sum16(path):
    return Precision(variant="sum16", activations=16 if path.startswith("joint") and path != "joint.activation" else 8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", [None, sum16], ids=["acc32", "sum16"])
def test_streaming_step_by_step_equals_the_whole_sequence(shape, precision):
    graph = random_graph(1, precision=precision, **shape)
    rng = np.random.default_rng(0)
    for entry in graph.inputs:
        x = random_inputs(graph, entry, rng, steps=5, batch=3)
        whole, end = evaluate(graph, entry, x)
        state, parts = initial_state(graph, 3), []
        for t in range(5):
            step = {k: v[t * graph.values[k].rate:(t + 1) * graph.values[k].rate] for k, v in x.items()}
            out, state = evaluate(graph, entry, step, state)
            parts.append(out)
        for name in whole:
            assert (np.concatenate([p[name] for p in parts]) == whole[name]).all()
        assert all((state[k] == end[k]).all() for k in state)


@pytest.mark.parametrize("shape", [*SHAPES, dict(size="tiny", bidirectional=True)], ids=str)
def test_numpy_and_torch_carriers_agree(shape):
    graph = random_graph(2, **shape)
    x = random_inputs(graph, "encoder", np.random.default_rng(0), steps=4, batch=2)
    seen = {}
    evaluate(graph, "encoder", x, watch=lambda name, v: seen.__setitem__(name, v))
    values = {k: torch.as_tensor(v) for k, v in x.items()}
    state = {k: torch.as_tensor(v) for k, v in initial_state(graph, 2).items()}
    for node in graph.entry("encoder"):
        constants = {k: torch.as_tensor(v.astype(np.int64)) for k, v in node.constants.items()}
        values[node.output] = operator(node.op).integers(node, graph, [values[n] for n in node.inputs], state,
                                                         constants)
        assert (values[node.output].numpy() == seen[node.output]).all(), node.path


def test_an_lstm_tracks_the_real_one():
    graph = random_graph(3, size="tiny", layers=1, norm=False, reduce=1, stack=1)
    node = graph.by_path["encoder.lstm[0]"]
    scale = graph.values["features"].scale
    # no gate saturates at 8
    x = random_inputs(graph, "encoder", np.random.default_rng(1), steps=30)["features"] // 4
    h = node.attributes["cells"]
    acc = arith.scale_of(node.constants["multiplier"], node.constants["shift"]) / 4096
    lstm = torch.nn.LSTM(x.shape[2], h).double()
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.as_tensor(node.constants["input"] * (acc / scale)[:, None]))
        lstm.weight_hh_l0.copy_(torch.as_tensor(node.constants["recurrent"] * (acc * 127)[:, None]))
        lstm.bias_ih_l0.copy_(torch.as_tensor(node.constants["bias"] * acc))
        lstm.bias_hh_l0.zero_()
        real = lstm(torch.as_tensor(x * scale))[0].numpy()
    got = {}
    evaluate(graph, "encoder", dict(features=x), watch=lambda name, v: got.__setitem__(name, v))
    assert np.abs(got["encoder.lstm[0]"] / 127 - real).max() < 0.05
    assert np.corrcoef((got["encoder.lstm[0]"] / 127).ravel(), real.ravel())[0, 1] > 0.999


def test_printing_a_graph_shows_every_entry_node_and_state():
    text = str(random_graph(0, size="tiny"))
    for word in ("encoder.step(features: int8", "encoder.lstm[1] = lstm(", "state encoder.lstm[1].cell int16[16]",
                 "return joint.output"):
        assert word in text


@pytest.mark.parametrize("damage, rule", [
    (lambda n: evolve(n, inputs=("nowhere",)), "before it is made"),
    (lambda n: evolve(n, op="convolve"), "no operator is called convolve"),
    (lambda n: evolve(n, constants={"weight": n.constants["weight"]}), "lacks bias"),
    (lambda n: evolve(n, constants=dict(n.constants) | {"weight": n.constants["weight"][:-1]}), "fits"),
    (lambda n: evolve(n, constants=dict(n.constants) | {"bias": n.constants["bias"] + (1 << 31)}), "more than"),
])
def test_verify_names_the_broken_rule(damage, rule):
    graph = random_graph(0, size="tiny")
    nodes = tuple(damage(n) if n.path == "joint.encoder" else n for n in graph.nodes)
    with pytest.raises(GraphError, match=rule):
        verify(graph.with_nodes(nodes))
