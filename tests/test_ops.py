"""Operators: one file each, found by name, light at import; their facts are what lint, lowering and targets ask."""

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from nnac import ops
from nnac.formats import Precision
from nnac.ir import GraphError
from nnac.language.check import check_text
from nnac.lower import lower
from nnac.model import EntryPoint, Kernel, Layer, ModelGraph
from nnac.model.graph import GATES, GRU_GATES
from tests.graphs import normed_steps

FILES = sorted(f.stem for f in Path(ops.__file__).parent.glob("*.py") if not f.stem.startswith("_"))
GATE_NAMES = dict(lstm=GATES, lstm_normed=GATES, recurrence=GATES, lstm_coupled=("f", "g", "o"), gru=GRU_GATES)


def layer(kind: str, source: str, width: int) -> Layer:
    """A layer of ``kind`` with what its operator reads of it."""
    fact = ops.operator(kind)
    if kind in GATE_NAMES:
        gates = GATE_NAMES[kind]
        kernels = tuple(Kernel(k, f"{kind}.{k}", len(gates) * 8, width, gates) for k in ("input", "recurrent"))
        made = dict(cells=8, bidirectional=False, project=0, rows=32, again=32, steps=normed_steps(8))
        return Layer(kind, kind, (source,), 8, 1, "e", kernels, made)
    if fact.remembers:
        taps = (Kernel("weight", f"{kind}.weight", width, 3),) if fact.parametric else ()
        wide = dict(scores=8, window=3 * width).get(kind, width)          # two heads, four rows; three taps
        return Layer(kind, kind, (source,) * fact.inputs, wide, 1, "e", taps,
                     dict(chunk=1, left=3, heads=2, head=width // 2, positions=12, ahead=7, taps=3, length=5))
    if kind == "glu":
        width //= 2
    kernels = (Kernel("weight", f"{kind}.weight", width, width),) if kind in ("linear", "linear_relu", "grouped",
                                                                              "embedding") else ()
    return Layer(kind, kind, (source,) * fact.inputs, width, 1, "e", kernels,
                 dict(frames=1) if fact.view else dict(cap=8.0) if fact.capped else {})


def model(kind: str) -> ModelGraph:
    """A linear layer, then one of ``kind`` (an embedding reads the input), then another linear one."""
    first = () if ops.operator(kind).by_index else (Layer("first", "linear", ("x",), 8, 1, "e",
                                                          (Kernel("weight", "first.weight", 8, 8),)),)
    middle = layer(kind, "first" if first else "x", 8)
    last = Layer("last", "linear", (middle.path,), 8, 1, "e", (Kernel("weight", "last.weight", 8, middle.width),))
    return ModelGraph("m", {}, (*first, middle, last), dict(x=1 if not first else 8), entries=(EntryPoint("e"),))


def test_an_operator_is_called_what_its_file_is_called():
    assert ops.kinds()[:len(FILES)] == tuple(FILES) and "_table" not in FILES
    assert {k: ops.operator(k).kind for k in FILES} == {k: k for k in FILES}
    with pytest.raises(GraphError, match=r"no operator is called convolve \(there are: add, "):
        ops.operator("convolve")
    assert ops.find("convolve") is None and ops.find("_table") is None


def test_operators_are_light_and_imported_only_when_they_are_named():
    program = ("import sys\nfrom nnac import ops\nops.kinds()\n"
               "assert not [m for m in sys.modules if m.startswith('nnac.ops.')]\nops.find('tanh')\n"
               "assert sorted(m for m in sys.modules if m.startswith('nnac.ops.')) == ['nnac.ops._table', "
               "'nnac.ops.tanh']\n"
               "for k in ops.kinds(): ops.operator(k)\nprint(sorted({'numpy', 'torch'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("kind", FILES)
def test_what_is_said_of_formats_is_what_the_lowering_makes(kind):
    """Facts against the lowered graph: formats that arithmetic decides, and states."""
    graph, fact = lower(model(kind), lambda path: Precision(activations=4, hidden=8)), ops.operator(kind)
    node = graph.by_path[kind]
    out = graph.values[kind]
    assert node.op == kind and bool(node.states) == (fact.recurrent or fact.remembers)
    if fact.takes is not None:
        assert [(v.bits, v.scale) for v in map(graph.values.get, node.inputs)] == [(fact.takes.bits, fact.takes.scale)]
    if fact.gives is not None:
        assert (out.bits, out.scale) == (fact.gives.bits, fact.gives.scale)
    else:
        assert out.bits == (8 if fact.recurrent else 4)
        assert (out.scale is not None) == (fact.bounded(model(kind).by_path[kind].attributes) or fact.capped)
    if fact.capped:
        assert [out.scale * (end - out.zero_point) for end in (-8, 7)] == [0, 8.0]


def test_who_may_have_a_zero_point():
    """Made by one that can, and folded in by all that read it, through views."""
    readers = {"a": [("stack", "b")], "b": [("linear", "c"), ("lstm", "d")], "x": [("add", "e")], "y": [("stack", "x")]}

    def fits(value, maker):
        return ops.may_have_zero_point(value, maker, lambda v: readers.get(v, []))

    assert fits("a", "linear") and fits("a", None) and fits("a", "embedding") and fits("b", "stack")
    assert not fits("a", "tanh") and not fits("a", "lstm") and not fits("x", "linear") and not fits("y", "linear")


def test_a_target_claims_only_operators_that_exist():
    text = 'import "targets/edge.nnac"\ntarget t extends edge {\n  operators linear lstm convolution\n}\n'
    (found,) = check_text(text, "t.nnac").diagnostics
    assert found.code == "unknown-choice" and "`operators` has no `convolution`" in found.message
    assert not check_text(text.replace(" convolution", " gru"), "t.nnac").diagnostics


@pytest.mark.parametrize("kind", FILES)
def test_attributes_are_a_record_that_reads_as_a_mapping_and_survives_plain_data(kind):
    fact = ops.operator(kind)
    made = lower(model(kind), lambda path: Precision()).by_path[kind].attributes
    assert type(made) is fact.attributes_type
    assert dict(made) == (attrs.asdict(made) if attrs.has(type(made)) else {})
    assert fact.attributes_type(**json.loads(json.dumps(dict(made)))) == made and "no such" not in made
    for name in made:
        assert made[name] == getattr(made, name)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(made, name, 0)
