"""An operator is three small classes: QuickGELU, which nnac does not have, added here, goes from text to emulator;
nothing else knows its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from attrs import frozen
from torch import Tensor

import nnac
from nnac import arith, isa, ops
from nnac.attributes import Attributes, record
from nnac.evaluate import evaluate
from nnac.formats import PRE, UNIT
from nnac.ir import Node, QGraph
from nnac.language.check import check_text
from nnac.lower import lower_plan
from nnac.model import EntryPoint, Kernel, Layer, ModelGraph
from nnac.model import graph as model_graph
from nnac.schedule import ops as emissions
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.forms import View
from nnac.schedule.kernels import Parameters
from nnac.train import ops as layers
from nnac.train.integers import dequantise
from nnac.train.module import GraphModule
from nnac.train.ops._numbers import Number
from nnac.vectors import Form, align
from tests.schedules import compare

POLICY = """
import "targets/edge.nnac"
policy p {
  model  two_layers()
  target edge
  layers ** { weights int8 minmax; activations int8 minmax }
}
"""

# the classes of `define`, by what they are made from, each in a file of its own; `make bench-house` counts them
FILES = {ops.Operator: "nnac/ops/quick_gelu.py", layers.Layer: "nnac/train/ops/quick_gelu.py",
         emissions.Emission: "nnac/schedule/ops/quick_gelu.py"}


def define() -> None:
    """The three classes, each of which would be a file ``quick_gelu.py`` in ``nnac/ops``, ``nnac/train/ops`` and
    ``nnac/schedule/ops``."""

    @frozen(eq=False)
    class QuickGeluAttributes(Attributes):
        width: int

    class QuickGelu(ops.Operator):
        """``x sigmoid(1.702 x)``: the sigmoid by table; its product with x is requantised.

        constants  table int16 [513] (of Q3.12, in Q0.15), multiplier, shift
        Source: Hendrycks and Gimpel 2016; our integers
        """

        kind = "quick_gelu"
        attributes_type = QuickGeluAttributes
        constants = ("table", "multiplier", "shift")
        takes, in_one_piece = PRE, True

        def attributes(self, layer, p):
            return QuickGeluAttributes(layer.width)

        def integers(self, node, graph, inputs, state, constants):
            gate = arith.lookup(constants["table"], "complement", inputs[0])
            return arith.requantise(inputs[0] * gate, constants["multiplier"], constants["shift"], 0,
                                    graph.values[node.output].bits)

        def work(self, job, m):
            from nnac.isa import beats
            from nnac.ops._work import Work

            return Work(vector=job.vectors * 2 * (m.vx_fill + beats.elementwise(m, job.width)),
                        buffer_bytes=2 * job.width * job.vectors)

        @staticmethod
        def bound(out_scale: float) -> dict[str, np.ndarray]:
            at = np.arange(arith.SEGMENTS + 1) * 64 * PRE.scale
            gate = 1 / (1 + np.exp(-1.702 * at))
            m, s = arith.multiplier_and_shift(np.float64(PRE.scale * UNIT.scale / out_scale))
            table = np.clip(np.floor(gate / UNIT.scale + 0.5), 0, 32767).astype(np.int16)
            return dict(table=table, multiplier=np.asarray(m), shift=np.asarray(s))

    class QuickGeluLayer(layers.Layer):
        """Exact forward, the real function's gradient backward."""

        kind = "quick_gelu"

        def constants(self, ins, out):
            return layers.Constants(QuickGelu.bound(out.scale))

        def integers(self, xs, ins, out, state, lengths):
            c = {k: torch.as_tensor(v.astype(np.int64)) for k, v in self.constants(ins, out).graph.items()}
            gate = arith.lookup(c["table"], "complement", xs[0].detach().long())
            y = arith.requantise(xs[0].detach().long() * gate, c["multiplier"], c["shift"], 0, out.bits)
            return Number.put(self.reals([dequantise(xs[0], ins[0])], state, lengths) / out.scale, y, 1.0).real

        def reals(self, xs: list[Tensor], state: Any, lengths: Any) -> Tensor:
            return xs[0] * torch.sigmoid(1.702 * xs[0])

    class QuickGeluEmission(emissions.Emission):
        """LUT into a buffer, then MUL with the input."""

        kind = "quick_gelu"
        tables: ClassVar[tuple[str, ...]] = ("table",)

        def parameters(self, node: Node, graph: QGraph, made: emissions.Made) -> Sequence[Parameters]:
            c, bits = node.constants, graph.values[node.output].bits
            look = isa.LUT.block.pack(multiplier=1, shift=0, bits=16, zero_point=0, slot=made.slot(c["table"]),
                                      symmetry=1)
            product = isa.MUL.block.pack(multiplier=c["multiplier"], shift=c["shift"], bits=bits, zero_point=0)
            return Parameters(f"{node.path}.table", (look,), node.path), Parameters(f"{node.path}.product", (product,),
                                                                                    node.path)

        def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
            return dict(gate=vectors * hypotheses * align(2 * record(node.attributes, QuickGeluAttributes).width))

        def emit(self, node, e):
            x, y = e.views(node)
            width = y.form.width
            gate = View(Form(2, ((0, width),), align(2 * width), ""), e.plan.buffers[f"{node.path}.gate"], y.vectors)
            table, product = e.parameters(f"{node.path}.table"), e.parameters(f"{node.path}.product")
            e.pieces((x, gate), lambda at, n: isa.LUT(src=at[0], dst=at[1], params=table, n=n, out16=1), "gate")
            e.pieces((x, gate, y), lambda at, n: isa.MUL(a=at[0], b=at[1], dst=at[2], params=product, n=n, a16=1,
                                                         b16=1, out16=int(y.form.size == 2)), "product")


@pytest.fixture
def quick_gelu(monkeypatch) -> Iterator[None]:
    """nnac with QuickGELU, and a model of one; as before afterwards."""
    def two_layers() -> ModelGraph:
        def linear(path: str, source: str, cols: int, rows: int) -> Layer:
            return Layer(path, "linear", (source,), rows, 1, "net", (Kernel("weight", f"{path}.weight", rows, cols),),
                         dict(bias=True))

        made = (linear("first", "x", 12, 37), Layer("middle", "quick_gelu", ("first",), 37, 1, "net"),
                linear("last", "middle", 37, 9))
        return ModelGraph("two_layers", {}, made, dict(x=12), 10.0, entries=(EntryPoint("net", frames=True),))

    monkeypatch.setitem(model_graph._REGISTERED, "two_layers", two_layers)
    define()
    yield
    for registry in (ops._OPERATORS, emissions._EMISSIONS, layers._LAYERS):
        registry.pop("quick_gelu", None)
    ops._EMITTED.discard("quick_gelu")


def test_each_of_the_classes_belongs_in_a_file_of_its_own_where_its_registry_looks(quick_gelu):
    made = (type(ops.operator("quick_gelu")), layers._LAYERS["quick_gelu"], type(emissions._EMISSIONS["quick_gelu"]))
    home = Path(nnac.__file__).parent
    for (base, file), cls in zip(FILES.items(), made, strict=True):
        assert issubclass(cls, base) and cls.kind == "quick_gelu"
        assert home.parent / file == home.parent.joinpath(*base.__module__.split("."), "quick_gelu.py")
        assert (home.parent / file).parent.is_dir() and not (home.parent / file).exists()


def test_it_is_nowhere_in_nnac():
    home = Path(nnac.__file__).parent
    assert not [str(p) for p in home.rglob("*.py") if "quick" "gelu" in p.read_text("utf-8").lower().replace("_", "")]
    assert "quick_gelu" not in ops.kinds() and not ops.emitted("quick_gelu")


def test_an_added_operator_goes_from_text_to_emulator_without_a_different_integer(quick_gelu):
    checked = check_text(POLICY, "p.nnac")
    assert not checked.diagnostics, "it is linted like any other, and not sent to the CPU"
    plan = checked.resolutions[0].plan
    torch.manual_seed(0)
    module = GraphModule(lower_plan(plan), None, plan)
    x = torch.randn(8, 5, 12)

    def run(x: Tensor) -> Tensor:
        values = {"x": x}
        module.run("net", values, {"x": False}, module._state("net", x.shape[1], x))
        return values["last"]

    module.calibrate([x], run)
    seen: dict[str, Tensor] = {}
    with module.watching(seen.__setitem__):
        loss = (run(x) ** 2).mean()
    loss.backward()
    assert float(module.layer("first").weight.grad.abs().max()) > 0, "gradients pass"
    graph = module.bind()
    expected: dict[str, np.ndarray] = {}
    evaluate(graph, "net", dict(x=seen["x"].detach().numpy().astype(np.int64)), watch=expected.__setitem__)
    assert expected.keys() == seen.keys() - {"x"}
    for name, y in expected.items():
        assert np.array_equal(y, seen[name].detach().numpy()), name
    middle = expected["middle"] * graph.values["middle"].scale
    given = torch.as_tensor(expected["first"] * PRE.scale)
    real = (given * torch.sigmoid(1.702 * given)).numpy()
    assert np.abs(middle - real).max() < 1.01 * graph.values["middle"].scale, "it computes QuickGELU"
    for frames in (1, 4):
        program = compile_graph(graph, plan.target, Settings(frames=frames))
        assert not program.host, "it runs on the machine"
        compared, different = compare(graph, program)
        assert compared and different == 0


def test_without_instructions_it_runs_on_the_cpu_and_lint_says_so(quick_gelu):
    ops._EMITTED.discard("quick_gelu")
    emissions._EMISSIONS.pop("quick_gelu")
    (found,) = check_text(POLICY, "p.nnac").diagnostics
    assert found.code == "cpu-fallback" and "nnac has no instructions for `quick_gelu`" in found.message
