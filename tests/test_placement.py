"""Where an operator runs, and its price on the CPU: lint says what the compiler does, for every operator on every
machine."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from nnac import ops
from nnac.language.check import Checked, check_text
from nnac.language.estimate import estimate
from nnac.language.rules.hardware import on_cpu
from nnac.lower import lower_plan
from nnac.model import EntryPoint, Kernel, Layer, ModelGraph
from nnac.model import graph as graph_module
from nnac.schedule.compile import Settings, compile_graph, host_layers
from nnac.schedule.forms import forms
from nnac.schedule.passes import split
from tests.graphs import bind_randomly
from tests.test_ops import model

TARGETS = ("edge", "large", "rapid", "tiny")


def one_operator(kind: str = "linear") -> ModelGraph:
    """A model around one operator."""
    return model(kind)


def ragged(size: str = "tiny") -> ModelGraph:
    """Frames of 3 int8 joined by a stack in the middle of a model: no vector of theirs is in one piece."""
    def linear(path: str, source: str, cols: int, rows: int) -> Layer:
        return Layer(path, "linear", (source,), rows, 2 if path == "first" else 1, "e",
                     (Kernel("weight", f"{path}.weight", rows, cols),))

    layers = (linear("first", "x", 4, 3), Layer("joined", "stack", ("first",), 6, 1, "e", (), dict(frames=2)),
              Layer("norm", "layer_norm", ("joined",), 6, 1, "e"), linear("last", "norm", 6, 8))
    return ModelGraph("ragged", {}, layers, dict(x=4), entries=(EntryPoint("e"),))


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """The language knows these two while the tests here run."""
    for function in (one_operator, ragged):
        monkeypatch.setitem(graph_module._REGISTERED, function.__name__, function)


def checked(call: str, target: str, rules: str = "") -> Checked:
    return check_text(f'import "targets/{target}.nnac"\npolicy p {{\n  model {call}\n  target {target}\n{rules}}}\n',
                      "p.nnac")


def agreed(found: Checked) -> frozenset[str]:
    """The layers on the CPU, of which lint and compiler must say the same."""
    r = found.resolutions[0]
    assert r.plan is not None, found.diagnostics
    graph = lower_plan(r.plan)
    compiled = host_layers(graph, r.plan.target, Settings.of(r.plan), forms(graph))
    assert frozenset(layer.path for layer in r.model if on_cpu(r, layer)) == compiled
    priced = {path for path, cost in estimate(r.plan, r.plan.graph).layers.items() if cost.cpu_seconds is not None}
    assert priced == compiled
    warned = [d.message for d in found.diagnostics if d.code == "cpu-fallback"]
    assert bool(warned) == bool(compiled)
    return compiled


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ops.kinds())
def test_lint_and_compiler_send_the_same_layers_to_the_cpu(kind, target):
    found = agreed(checked(f'one_operator(kind="{kind}")', target))
    assert found == (frozenset() if ops.emitted(kind) or ops.operator(kind).view else {kind})
    asked = agreed(checked(f'one_operator(kind="{kind}")', target, f"  layers {kind} {{ place cpu }}\n"))
    assert asked == (frozenset() if ops.operator(kind).view else {kind})


def test_a_vector_in_pieces_goes_to_the_cpu_and_lint_knows():
    found = checked("ragged()", "edge")
    assert agreed(found) == {"norm"}
    assert any("no instruction takes vectors of this form" in d.message for d in found.diagnostics)
    assert agreed(checked("ragged()", "edge", "  layers first { activations int16 }\n")) == {"norm"}


@pytest.mark.parametrize("call, rules", [
    ('one_operator(kind="gru")', "  layers gru { place cpu }\n"),
    ('one_operator(kind="log_softmax")', "  layers log_softmax { place cpu }\n"),
                                         ("ragged()", ""),
    ('one_operator(kind="lstm")', "  layers lstm { place cpu; hidden int16 }\n"),
                                         ('one_operator(kind="add")', "  layers add { place cpu }\n"),
    ('one_operator(kind="embedding")', "  layers embedding { place cpu; activations int16 }\n"),
    ('rnnt(size="tiny", bidirectional=true, project=6)', "  layers encoder.lstm[*] { place cpu }\n")])
def test_the_price_that_lint_names_is_the_compilers(call, rules):
    """Cycles of all CPU calls of one step, to the cycle (each call is rounded up)."""
    r = checked(call, "edge", rules).resolutions[0]
    graph = lower_plan(r.plan)
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=8))
    program = compile_graph(bind_randomly(graph, np.random.default_rng(0)), r.plan.target, Settings.of(r.plan))
    expected = {p: c.cpu_seconds * r.plan.target.clock for p, c in estimate(r.plan, r.plan.graph).layers.items()
                if c.cpu_seconds is not None}
    layers = split(graph).layers
    found: dict[str, list[int]] = {}
    for call_ in program.host:
        found.setdefault(layers.get(call_.path, call_.path), []).append(call_.cycles)
    assert found.keys() == expected.keys()
    for path, cycles in found.items():
        assert 0 <= sum(cycles) - expected[path] < len(cycles)
