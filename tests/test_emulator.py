"""The emulator runs bytes and gives the integers of `evaluate`, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from nnac import evaluate
from nnac.emulator import Machine
from nnac.isa import MachineConfig
from tests import machine_by_hand as by_hand
from tests.graphs import random_graph

SMALL = MachineConfig(lanes=16, vector=4, stream_words=128, ring_bytes=4096, a_bytes=32768)


def entry_graph(graph, path):
    """The graph of one node alone, an entry of its own."""
    node = graph.by_path[path]
    values = {n: graph.values[n] for n in (*node.inputs, node.output)}
    return evolve(graph, nodes=(node,), values=values, inputs={node.entry: node.inputs},
                  outputs={node.entry: (node.output,)})


@pytest.mark.parametrize("name", ["raw", "entropy", "zero_run", "block_bitmap[16x1]+raw"])
@pytest.mark.parametrize("fast", [False, True], ids=["interpreted", "planned"])
def test_a_linear_layer_by_hand_gives_the_integers_of_evaluate(name, fast):
    graph = random_graph(3, size="tiny", joint=40, cells=24, sparsity=0.9)
    node = graph.by_path["joint.encoder"]
    machine = Machine(by_hand.linear(node, graph, SMALL, name=name, words=10), SMALL, batch=3, fast=fast)
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 24))
    expected, _ = evaluate.evaluate(entry_graph(graph, node.path), "encoder", {node.inputs[0]: x})
    for _ in range(2):
        got = machine.run("main", {node.inputs[0]: x})
        assert (got[node.output] == expected[node.output]).all()


@pytest.mark.parametrize("fast", [False, True], ids=["interpreted", "planned"])
def test_int16_activations_use_wide_accumulators(fast):
    graph = random_graph(4, size="tiny", joint=40, vocabulary=23)
    node = graph.by_path["joint.output"]
    graph = evolve(graph, values=dict(graph.values) | {node.inputs[0]: evolve(graph.values[node.inputs[0]], bits=16)})
    machine = Machine(by_hand.linear(node, graph, SMALL), SMALL, batch=2, fast=fast)
    x = np.random.default_rng(0).integers(-32768, 32768, (1, 2, 40))
    expected, _ = evaluate.evaluate(entry_graph(graph, node.path), "joint", {node.inputs[0]: x})
    assert (machine.run("main", {node.inputs[0]: x})[node.output] == expected[node.output]).all()


@pytest.mark.parametrize("fast", [False, True], ids=["interpreted", "planned"])
def test_four_columns_are_four_products_of_one_weight_stream(fast):
    graph = random_graph(5, size="tiny", joint=40, cells=24)
    node = graph.by_path["joint.encoder"]
    machine = Machine(by_hand.linear(node, graph, SMALL, columns=4, words=7), SMALL, batch=2, fast=fast)
    x = np.random.default_rng(0).integers(-128, 128, (4, 2, 24))
    expected, _ = evaluate.evaluate(entry_graph(graph, node.path), "encoder", {node.inputs[0]: x})
    got = machine.run("main", {f"x{k}": x[k: k + 1] for k in range(4)})
    assert all((got[f"y{k}"][0] == expected[node.output][k]).all() for k in range(4))


@pytest.mark.parametrize("name", ["raw", "entropy"])
@pytest.mark.parametrize("fast", [False, True], ids=["interpreted", "planned"])
def test_lstm_steps_by_hand_keep_their_state_and_give_the_integers_of_evaluate(name, fast):
    graph = random_graph(6, size="tiny", cells=24, norm=False, reduce=1)
    node = graph.by_path["encoder.lstm[0]"]
    machine = Machine(by_hand.lstm_acc32(node, graph, SMALL, name=name, words=16), SMALL, batch=2, fast=fast)
    x = np.random.default_rng(1).integers(-128, 128, (5, 2, 16))
    expected, state = evaluate.evaluate(entry_graph(graph, node.path), "encoder", {node.inputs[0]: x})
    for t in range(5):
        got = machine.run("main", {node.inputs[0]: x[t: t + 1]})
        assert (got[node.output][0] == expected[node.output][t]).all(), t
    for s, value in machine.state().items():
        assert (value == state[s]).all(), s
    kept = machine.state()
    machine.reset()
    first = machine.run("main", {node.inputs[0]: x[:1]})
    assert (first[node.output][0] == expected[node.output][0]).all()
    machine.load_state(kept)
    assert all((machine.state()[k] == kept[k]).all() for k in kept)


def test_the_emulator_runs_in_a_fresh_process():
    """The codecs register themselves on import: a process that only runs programs must import them too (it once did
    not)."""
    import subprocess
    import sys

    text = ("from nnac.emulator import Machine; from nnac.isa.text import assemble; "
            "m = Machine(assemble('data 0 hex 00\\ndata 16 i8 1 2 3\\nLDT bytes=1 signal=s0\\n"
            "LDW dram=16 bytes=3 rows=3 cols=1 live=1 steps=1 signal=s1\\nHALT')); m.run(); print(m.memories.w[0, "
            ":4].tolist())")
    assert subprocess.run([sys.executable, "-c", text], capture_output=True, text=True,
                          check=True).stdout == "[1, 2, 3, 0]\n"
