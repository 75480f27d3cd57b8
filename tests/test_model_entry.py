"""Entry points: declared by the model, completed from its layers, carried by graph and program."""

import pytest
from attrs import evolve

from nnac.entry import steps_per_second
from nnac.formats import Precision
from nnac.lower import lower
from nnac.model import EntryPoint, Layer, ModelError, ModelGraph, build, builders


@pytest.mark.parametrize("model", [build("rnnt", size=size) for size in ("tiny", "small", "saon57m")],
                         ids=lambda m: m.arguments["size"])
def test_a_graph_carries_what_its_model_declares(model):
    graph = lower(model, lambda path: Precision())
    assert graph.entries == model.entries
    for entry in graph.entries:
        assert graph.inputs[entry.name] == entry.inputs and graph.outputs[entry.name] == entry.outputs
        assert entry.keeps == tuple(n.path for n in graph.entry(entry.name) if n.states)
        assert graph.declared(f"{entry.name}.some.pass") == entry


def test_an_rnnt_hears_frames_once_and_joins_each_hypothesis_with_frames_and_labels():
    entries = build("rnnt", size="tiny").entries
    assert [e.name for e in entries] == ["encoder", "prediction", "joint"] and [e.frames for e in entries] == [True,
        False, False]
    assert steps_per_second(entries, 40.0, labels=12.0) == dict(encoder=25.0, prediction=12.0, joint=37.0)
    assert steps_per_second(entries, 40.0, labels=12.0, hypotheses=4) == dict(encoder=25.0, prediction=48.0,
                                                                              joint=148.0)


@pytest.mark.parametrize("entry", [e for name, make in builders().items() if name != "saved"
                                   for e in make().entries], ids=lambda e: e.name)
def test_entries_survive_json(entry):
    assert EntryPoint.from_json(entry.to_json()) == entry


@pytest.mark.parametrize("bad", [3, {}, dict(name=3), dict(name="e", per_frame=-1), dict(name="e", per_frame=1.5),
                                 dict(name="e", speed=2),
                                 dict(name="e", frames=1), dict(name="e", keeps=[2]), dict(name="e", inputs=None),
                                 dict(name="e", outputs="ab")], ids=str)
def test_what_is_no_entry_is_refused(bad):
    with pytest.raises(ValueError):
        EntryPoint.from_json(bad)


@pytest.mark.parametrize("entries", [(), ("a", "a"), ("a", "b")], ids=str)
def test_every_layer_is_in_one_declared_entry(entries):
    with pytest.raises(ModelError, match="declared once each"):
        ModelGraph("net", {}, (Layer("net.scores", "log_softmax", ("x",), 4, 1, "a"),), dict(x=4),
                   entries=tuple(map(EntryPoint, entries)))


def test_an_entry_may_say_itself_what_it_returns():
    layers = (Layer("a", "tanh", ("x",), 4, 1, "e"), Layer("b", "tanh", ("a",), 4, 1, "e"))
    model = ModelGraph("net", {}, layers, dict(x=4), entries=(EntryPoint("e", outputs=("a", "b")),))
    assert model.entry("e") == evolve(EntryPoint("e"), inputs=("x",), outputs=("a", "b"))
