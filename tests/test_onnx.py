"""Integers as ONNX: what onnxruntime makes of the exported operators is what the reference makes, every integer."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

import onnx
import torch
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from nnac import arith, ops
from nnac.compiler import trained
from nnac.decode.front_end import FrontEnd
from nnac.decode.integer import IntegerStepper
from nnac.executors import Subject, executor
from nnac.executors.onnx import Onnx
from nnac.executors.reference import Reference
from nnac.formats import Precision
from nnac.lower import lower
from nnac.onnx import files, real
from nnac.onnx.model import OnnxError, info, model, named, trace
from nnac.onnx.session import Session
from nnac.onnx.symbol import Kernel, NotTraceable, Symbol, Tape, known
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens
from nnac.train.module import GraphModule
from tests.graphs import RANDOM, random_graph
from tests.test_attention import conformer
from tests.test_executors import same_integers
from tests.test_executors import trained as tiny
from tests.test_train_recurrent import model as recurrent_model

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


def computed(function, x: np.ndarray, low: int, high: int) -> tuple[np.ndarray, Symbol]:
    """``function`` of x [T, B, C] by onnxruntime, and the symbol that stood for the result."""
    tape = Tape()
    symbol = tape.input("x", (x.shape[0], -1, x.shape[2]), low, high)
    y = function(symbol)
    made = model(tape, "t", [info("x", symbol)], [named(tape, y, "y")])
    return Session.of(made)({"x": x}, {})[0]["y"], y


def entries(x, table):
    """A table for whatever carries x."""
    return known(x.tape, table) if isinstance(x, Symbol) else table


# ----------------------------------------------------------------------------------------------------------- operations

OPERATIONS = {
    "shift": lambda x, n: arith.round_shift(x, n % 30),
    "shifts by row": lambda x, n: arith.round_shift(x * 1000, np.arange(x.shape[-1]) + n % 20),
    "shift of one column": lambda x, n: arith.round_shift(x[..., :1], n % 30),
    "floor": lambda x, n: x >> n % 30,
    "shift by integers": lambda x, n: arith.round_shift(x * 77, (x & 15) + n % 20),
    "requantise": lambda x, n: arith.requantise(x * 3000, 1 << 23, 20 + n % 30, n % 100 - 50, 8),
    "requantise to 16 bits": lambda x, n: arith.requantise(x * 300, np.arange(x.shape[-1]) + n, 20, 0, 16),
    "sum and max": lambda x, n: x - arith.max_of(x) + x.sum(-1)[..., None],
    "bit length": lambda x, n: arith.bit_length(x * x + n),
    "bit length of 62 bits": lambda x, n: arith.bit_length(abs(x) << 46) + n,
    "questions": lambda x, n: (x < n) * 3 + (x > -n) * 5 + (x <= n) * 7 + (x >= n) * 11,
    "clip above and below": lambda x, n: x.clip(n, n + 5) + x.clip(-n - 5, -n) + (-x).clip(0, 40000),
    "joined and cut": lambda x, n: arith.saturate(x[..., n % 3:] * 2, 16),
    "steps": lambda x, n: x[0] - x[n % 2] * n,
    "table": lambda x, n: arith.lookup(entries(x, arith.tanh_table().entries.astype(np.int64)), "odd", x) + n,
    "table of a complement": lambda x, n: arith.lookup(entries(x, arith.sigmoid_table().entries.astype(np.int64)),
                                                       "complement", x) - n,
    "rsqrt": lambda x, n: arith.rsqrt(x * x + n + 1, entries(x, arith.rsqrt_table()))[0] >> 3,
    "rsqrt's exponent": lambda x, n: arith.rsqrt(x * x * n + 1, entries(x, arith.rsqrt_table()))[1],
    "softmax": lambda x, n: arith.softmax(x, entries(x, arith.exp_table().entries.astype(np.int64)),
                                          entries(x, arith.rsqrt_table()), 1 << 20, 16 + n % 9, 1 << 15, 22, 0, 8),
    "log-softmax": lambda x, n: arith.log_softmax(x, entries(x, arith.exp_table().entries.astype(np.int64)),
                                                  entries(x, arith.log_table()), 1 << 20, 16 + n % 9),
}


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 200), bits=st.sampled_from([4, 8, 16]))
def test_an_operation_on_symbols_is_the_operation_on_integers_and_within_its_ends(name, seed, n, bits):
    rng = np.random.default_rng(seed)
    low, high = arith.limits(bits)
    x = rng.integers(low, high + 1, (2, 3, 6))
    x.ravel()[:3] = low, high, 0
    got, symbol = computed(lambda x: OPERATIONS[name](x, n), x, low, high)
    want = OPERATIONS[name](x, n)
    assert np.array_equal(got, want)
    assert symbol.low <= want.min() and want.max() <= symbol.high, (symbol.low, symbol.high)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), x_bits=st.sampled_from([4, 8, 16]), most=st.sampled_from([1, 7, 64, 65, 128,
    32767]))
def test_a_product_is_exact_at_all_widths(seed, x_bits, most):
    """Weights of at most 64 and others, bytes and words: with every input and weight at its end as well."""
    rng = np.random.default_rng(seed)
    low, high = arith.limits(x_bits)
    x, w = rng.integers(low, high + 1, (2, 2, 40)), rng.integers(-most, most + 1, (9, 40))
    x[0], w[0], w[1] = low, most if most < 128 else 127, -most
    got, _ = computed(lambda s: arith.matmul(s, Kernel(w)) if isinstance(s, Symbol) else s, x, low, high)
    assert np.array_equal(got.astype(np.int32), (x @ w.T).astype(np.int32))


def test_what_integers_cannot_do_is_said():
    x = Tape().input("x", (1, -1, 4), -8, 7)
    with pytest.raises(NotTraceable, match="are not there yet"):
        bool(x < 3)
    with pytest.raises(NotTraceable, match="not known from the end"):
        x.sum(0)
    with pytest.raises(NotTraceable, match="16 bits"):
        Kernel(np.ones((2, 4), np.int64)).product(x * (1 << 20))


# --------------------------------------------------------------------------------------------------------------- graphs

@pytest.mark.parametrize("arguments", [{}, dict(project=8), dict(bidirectional=True), dict(combine="multiply")],
                         ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_value_and_state_is_the_references(arguments, bits):
    graph = random_graph(3, size="tiny", bits=bits, **arguments)
    assert same_integers(Reference(graph), Onnx(graph), graph, steps=3) > 2_000


@pytest.mark.parametrize("variant", ["acc32", "sum16"])
def test_sixteen_bit_activations_and_both_sums_of_an_lstm(variant):
    graph = random_graph(4, size="tiny", precision=lambda p: Precision(activations=16, hidden=16, variant=variant))
    assert same_integers(Reference(graph), Onnx(graph), graph, steps=3) > 2_000


@pytest.mark.parametrize("kind", ["gru", "lstm_coupled", "lstm_normed", "recurrence"])
def test_other_recurrent_layers_as_well(kind):
    torch.manual_seed(0)
    module = GraphModule(lower(recurrent_model(kind), lambda p: Precision(activations=16 if p == "net.output" else 8)))
    module.calibrate([torch.randn(20, 4, 10)], lambda x: module.run(
        "encoder", dict(features=x), dict(features=False), module._state("encoder", x.shape[1], x)))
    graph = module.bind()
    assert same_integers(Reference(graph), Onnx(graph), graph) > 500


@pytest.mark.parametrize("arguments", [dict(chunk=1, left=8), dict(chunk=2, left=4, probabilities=16),
                                       dict(chunk=4, left=8)], ids=str)
def test_a_conformer_step_by_step_through_its_rings(arguments):
    graph = conformer(1, blocks=1, kernel=5, positions=24, **arguments)
    assert same_integers(Reference(graph), Onnx(graph), graph, steps=3, batch=2) > 5_000


def test_rows_of_different_length_under_a_bidirectional_encoder():
    graph, rng = random_graph(9, size="tiny", bidirectional=True), np.random.default_rng(0)
    name, = graph.inputs["encoder"]
    x, lengths = rng.integers(-128, 128, (6 * graph.values[name].rate, 3, graph.values[name].width)), np.array([6, 1,
        4])
    one, two = (e.run("encoder", {name: x}, e.initial_state("encoder", 3), lengths=lengths)[0]
                for e in (Reference(graph), Onnx(graph)))
    assert all((one[k] == two[k]).all() for k in one)


def test_every_operator_was_among_them():
    """... an operator that is added has to be tried here (or to be said why not)."""
    tried = {n.op for g in (random_graph(0, size="tiny"), random_graph(0, size="tiny", combine="multiply"),
                            conformer(blocks=1)) for n in g.nodes} | {"gru", "lstm_coupled", "lstm_normed",
                                                                                      "recurrence"}
    alone = set(ops.kinds()) - tried
    assert alone <= set(RANDOM)
    for kind in sorted(alone):
        from tests.graphs import bind_randomly
        from tests.test_ops import model as around

        graph = lower(around(kind), lambda path: Precision())
        graph = bind_randomly(evolve(graph, metadata=dict(vocabulary=8)), np.random.default_rng(0))
        assert same_integers(Reference(graph), Onnx(graph), graph) > 100, kind


def test_the_exact_model_computes_with_integers_alone():
    graph = random_graph(0, size="tiny")
    for entry in graph.inputs:
        made = model((step := trace(graph, entry)).tape, entry, [], [named(step.tape, s, f"{n}.out")
                                                                    for n, s in step.outputs.items()])
        assert not {i.data_type for i in made.graph.initializer} & FLOATS
        assert not {a.i for n in made.graph.node for a in n.attribute if n.op_type == "Cast"} & FLOATS
        assert {n.op_type for n in made.graph.node} & {"MatMulInteger", "Gather"}


# ---------------------------------------------------------------------------------------------------------------- files

FRONT = FrontEnd(FeatureSpec(bins=8), Normalisation(np.linspace(-1, 1, 8), np.linspace(0.5, 2, 8)),
                 Tokens(tuple("abcdefghijk")))


class Files(IntegerStepper):
    """The host's side over three exported files: real features in, the joiner's integers out."""

    def __init__(self, graph, made):
        super().__init__(Reference(graph))
        self.sessions = {e: Session.of(m).loaded for e, m in made.items()}

    def ask(self, entry, given, state):
        s = self.sessions[entry]
        made = dict(zip([o.name for o in s.get_outputs()], s.run(None, given | state), strict=True))
        return made, {k: made[k + ".next"] for k in state}

    def empty(self, entry, batch):
        return {i.name: np.zeros((batch, i.shape[1]), np.int32) for i in self.sessions[entry].get_inputs()
                if i.name not in ("x", "y", "encoder_out", "decoder_out")}


@pytest.mark.parametrize("steps", [1, 3])
def test_three_files_hear_what_the_reference_hears(steps):
    """Raw features in float32, batch first, chunk by chunk: every integer between the files and every logit."""
    module = tiny()
    graph = module.bind()
    made = {e: files.exact(graph, e, FRONT, steps if e == "encoder" else 1) for e in graph.inputs}
    for m in made.values():
        onnx.checker.check_model(m, full_check=True)
    told = {p.key: p.value for p in made["encoder"].metadata_props}
    assert told["T"] == str(4 * steps) and json.loads(told["features"])["bins"] == 8 and told["blank_id"] == "0"
    host, reference = Files(graph, made), IntegerStepper(Reference(graph))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12 * 4, 2, 8)).astype(np.float32) * 3
    frames, _ = reference.encode(FRONT.normalisation.apply(x), np.array([48, 48]))
    state, parts = host.empty("encoder", 2), []
    for at in range(0, 48, 4 * steps):
        out, state = host.ask("encoder", {"x": x[at:at + 4 * steps].transpose(1, 0, 2)}, state)
        parts.append(out["encoder_out"].transpose(1, 0, 2))
    assert np.array_equal(np.concatenate(parts), frames)
    tokens, kept = np.array([3, 7]), reference.start(2)
    empty = host.empty("prediction", 2)
    out, state = host.ask("prediction", {"y": np.zeros((2, 1), np.int64)}, empty)
    assert np.array_equal(out["decoder_out"], kept[0])
    want, _ = reference.predict(tokens, kept[1])
    out, _ = host.ask("prediction", {"y": tokens[:, None]}, state)
    assert np.array_equal(out["decoder_out"], want)
    logits, _ = host.ask("joint", {"encoder_out": frames[0].astype(np.int32), "decoder_out": out["decoder_out"]}, {})
    assert np.array_equal(logits["logit_integers"], reference.joint(frames[0], want))
    scale = graph.values[graph.outputs["joint"][0]].scale
    assert np.allclose(logits["logit"], logits["logit_integers"] * scale)


def test_the_files_in_real_numbers_are_near_and_carry_codes():
    module = tiny()
    graph = module.bind()
    x = np.random.default_rng(0).standard_normal((40, 1, 8)).astype(np.float32)
    frames, _ = IntegerStepper(Reference(graph)).encode(x, np.array([40]))
    made = real.quantised(module, "encoder", None)
    onnx.checker.check_model(made, full_check=True)
    kinds = {n.op_type for n in made.graph.node}
    assert {"LSTM", "QuantizeLinear", "DequantizeLinear"} <= kinds
    stored = sum(np.prod(i.dims) for i in made.graph.initializer if i.data_type == TensorProto.INT8)
    assert stored >= sum(v.size for n in graph.entry("encoder") for k, v in n.constants.items() if v.ndim == 2)
    session = Session.of(made).loaded
    state = {i.name: np.zeros((1, i.shape[1]), np.float32) for i in session.get_inputs() if i.name != "x"}
    out = []
    for at in range(0, 40, 4):
        y, *after = session.run(None, {"x": x[at:at + 4].transpose(1, 0, 2), **state})
        state = dict(zip(state, after, strict=True))
        out.append(y[:, 0])
    value = graph.values[graph.outputs["encoder"][0]]
    far = np.abs(np.stack(out) / value.scale - (frames - value.zero_point))
    assert np.median(far) <= 2 * 2 ** (value.bits - 8), np.median(far)


def test_a_backward_direction_is_no_file():
    with pytest.raises(OnnxError, match="from the end as well"):
        files.exact(random_graph(0, size="tiny", bidirectional=True), "encoder")


def test_a_layer_that_has_no_form_is_named():
    class Odd(ops.operator("tanh").__class__):
        kind = "odd"

        def integers(self, node, graph, inputs, state, constants):
            return inputs[0] if inputs[0][0] > 3 else -inputs[0]

    graph = random_graph(0, size="tiny")
    nodes = tuple(evolve(n, op="odd") if n.op == "tanh" else n for n in graph.nodes)
    try:
        with pytest.raises(OnnxError, match=r"joint\.\w+: `odd` has no form in ONNX's integers"):
            trace(graph.with_nodes(nodes), "joint")
    finally:
        ops._OPERATORS.pop("odd")


# -------------------------------------------------------------------------------------------------------------- command

def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "nnac", *arguments], capture_output=True, text=True, timeout=240)


def test_a_prepared_model_is_exported_and_compared(tmp_path):
    import nnac

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gru, self.out = torch.nn.Linear(6, 8), torch.nn.GRU(8, 8), torch.nn.Linear(8, 4)

        def forward(self, x):
            return self.out(self.gru(torch.nn.functional.silu(self.first(x)))[0])

    (tmp_path / "p.nnac").write_text(
        'import "targets/edge.nnac"\n\npolicy p {\n  model module\n  target edge\n\n  layers ** {\n'
        '    weights int8 per_channel\n    activations int8 percentile(99.99)\n  }\n}\n')
    torch.manual_seed(0)
    module = nnac.prepare(Net(), str(tmp_path / "p.nnac"), torch.randn(5, 2, 6))
    module.calibrate([torch.randn(9, 3, 6)])
    module.save(str(tmp_path / "m.nnc"))
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((7, 2, 6)).astype(np.float32))
    subject = Subject.load(tmp_path / "m.nnc")
    from nnac import tensors

    arrays = tensors.read_arrays(tmp_path / "in.npz", subject.tensors)
    result = tensors.compare(subject, subject, arrays, ("reference", "onnx"))
    assert result.equal and result.compared > 200
    made = run("export", str(tmp_path / "m.nnc"), "--to", "onnx", "--out", str(tmp_path / "out"), "--json")
    assert made.returncode == 0, made.stderr
    names = json.loads(made.stdout)["files"]
    assert [n.rsplit("/", 1)[1] for n in names] == [f"{e}.onnx" for e in subject.graph.inputs]
    read_back(run("export", str(tmp_path / "m.nnc"), "--to", "safetensors", "--out", str(tmp_path / "st")), tmp_path,
              trained(tmp_path / "m.nnc").module.bind())


def read_back(made, folder, graph):
    """docs/export.md suffices to compute with the file: the layout, read by nothing of ours."""
    from safetensors import safe_open

    assert made.returncode == 0, made.stderr
    with safe_open(str(folder / "st" / "model.safetensors"), "np") as f:
        told, found = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}     # noqa: SIM118 (not a dictionary)
    nodes = json.loads(told["nodes"])
    assert [n["path"] for n in nodes] == [n.path for n in graph.nodes] and told["format"] == "nnac-integers-1"
    for n in graph.nodes:
        for k, v in n.constants.items():
            assert np.array_equal(found[f"{n.path}.{k}"], v) and found[f"{n.path}.{k}"].dtype == v.dtype
    values = json.loads(told["values"])
    assert {k: (v["scale"], v["zero_point"]) for k, v in values.items()} == {
        k: (v.scale, v.zero_point) for k, v in graph.values.items()}


def test_without_the_extra_one_clear_line_says_how_to_get_it(tmp_path):
    code = ("import sys\nsys.modules['onnxruntime'] = None\nfrom nnac.errors import UserError\n"
            "from nnac.executors import Subject, executor\n"
            "try: executor('onnx', Subject())\nexcept UserError as e: print(e)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'nnac[onnx]'" in done.stdout and done.stdout.count("\n") == 1, done.stderr


def test_the_engine_is_found_by_name():
    graph = random_graph(0, size="tiny")
    assert executor("onnx", Subject(bound=graph)).inputs == graph.inputs
