"""Means over time: their integers, their gradient, on the machine, and what is too long."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn import functional as F

import nnac
from nnac import arith, bind, isa, ops, tensors
from nnac.evaluate import evaluate, initial_state
from nnac.executors import Subject, executor
from nnac.formats import Precision
from nnac.ir import QGraph
from nnac.isa import MachineConfig
from nnac.isa.base import decode_all
from nnac.language.cycles import machine
from nnac.lower import lower
from nnac.model import EntryPoint, Layer, ModelGraph
from nnac.ops._work import Job
from nnac.ops.mean import MOST, ONE, units
from nnac.program import Program
from nnac.schedule.compile import Settings, compile_graph
from nnac.train.format import Format
from nnac.train.ops.mean import Mean
from tests.graphs import bind_randomly, random_inputs
from tests.loops import Of
from tests.schedules import EDGE, LARGE, TINY, compare
from tests.test_capture import POLICY


def of(width: int, length: int, bits: int = 8, seed: int = 0) -> QGraph:
    """A graph of nothing but a mean."""
    layer = Layer("mean", "mean", ("x",), width, 1, "e", (), dict(length=length))
    made = ModelGraph("m", {}, (layer,), dict(x=width), entries=(EntryPoint("e", frames=True),))
    graph = lower(made, lambda path: Precision())
    graph = evolve(graph, values={n: evolve(v, bits=bits) if n == "mean" else v for n, v in graph.values.items()})
    return bind_randomly(graph, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(8))
def test_means_of_any_width_and_length_are_the_references_on_every_machine(seed):
    rng = np.random.default_rng(seed)
    width = 4099 if seed == 0 else int(rng.integers(1, 150))           # in pieces; odd and even
    graph = of(width, int(rng.integers(1, MOST + 1)), (8, 16)[seed % 2], seed)
    target, frames = (LARGE, EDGE, TINY)[seed % 3], 1 + seed % 4
    program = compile_graph(graph, target, Settings(frames=frames))
    compared, different = compare(graph, program, seed, calls=min(60 // frames, 2 if seed == 0 else 20))
    assert compared and different == 0 and not program.host


def test_a_mean_takes_the_vector_cycles_that_it_says():
    for width, frames in ((10, 1), (37, 3), (4099, 1)):
        program, config = compile_graph(of(width, 9), LARGE, Settings(frames=frames)), MachineConfig.of(LARGE)
        entry = program.entries["e.step" if frames == 1 else "e.steps"]
        spent = sum(i.cycles(config)[0] for i in decode_all(entry.words.astype("<u8").tobytes()) if i.unit == "VX"
                    and not isinstance(i, isa.TAB))
        assert spent == ops.operator("mean").work(Job(frames, width), machine(LARGE)).vector, (width, frames)


@pytest.mark.parametrize("length", [1, 3, 49, 98, 101, 255, 256])
def test_the_mean_of_the_examples_length_is_rounded_once_and_no_other_is_half_a_percent_off(length):
    graph, rng = of(64, length, 16), np.random.default_rng(length)
    x = rng.integers(-128, 128, (MOST, 1, 64))
    x[:, :, :2] = 127, -128                                            # the greatest sums
    made, _ = evaluate(graph, "e", dict(x=x))
    y, values = made["mean"][:, 0], graph.values
    ratio, counts = values["x"].scale / values["mean"].scale, np.arange(1, MOST + 1)[:, None]
    real = x[:, 0].cumsum(0) / counts * ratio
    assert np.abs(y[length - 1] - real[length - 1]).max() <= 0.5 + 1e-4
    bound = counts / (2 * units(length))
    assert (np.abs(y - real) <= 0.501 + bound * np.abs(real)).all() and bound.max() < 0.004


def test_what_counts_is_read_at_the_entries_of_its_table():
    c = bind.mean(98, 0.1, 0.1)
    shares = arith.lookup(c["table"].astype(np.int64), "odd", ONE * np.arange(1, MOST + 1))
    assert (shares == np.floor(units(98) / np.arange(1, MOST + 1) + 0.5)).all() and shares[97] * 98 == units(98)


def test_the_gradient_is_that_of_the_mean_and_none_where_it_saturates():
    graph = of(3, 5)
    layer = Mean(graph.by_path["mean"], graph)
    x = torch.randint(-100, 100, (5, 2, 3)).float().requires_grad_()

    def state() -> dict[str, torch.Tensor]:
        return {s.name: torch.zeros(2, s.width) for s in graph.states}

    def run(of_input: float, of_output: float) -> torch.Tensor:
        ins, out = Format(of_input, 0, 8), Format(of_output, 0, 8)
        y = layer.integers([x], [ins], out, state(), None)
        x.grad = None
        (y[-1] * torch.arange(1.0, 7).view(2, 3)).sum().backward()
        return y

    run(0.5, 0.25)
    wanted = torch.arange(1.0, 7).view(1, 2, 3).expand(5, 2, 3) * (0.5 / 0.25 / 5)
    assert torch.allclose(x.grad, wanted)
    y = run(0.5, 1e-4)                                                 # nothing fits
    assert (y.abs() >= 127).all() and not x.grad.any()
    real = x.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: layer.reals([v], {k: s.double() for k, s in state().items()}, None), real)


def spotter(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A keyword spotter, and a batch of frames."""
    x = torch.randn(3, 30, 10)
    if name == "gru":
        return Of(lambda s, x: s.out(s.rnn(x)[0].mean(1)), rnn=nn.GRU(10, 16, batch_first=True),
                  out=nn.Linear(16, 5)), x
    if name == "lstm":
        return Of(lambda s, x: s.out(s.rnn(x)[0].sum(1) / x.shape[1]), rnn=nn.LSTM(10, 16, batch_first=True,
                                                                                  bidirectional=True),
                  out=nn.Linear(32, 5)), x
    if name == "conv1d":
        return Of(lambda s, x: s.out(F.adaptive_avg_pool1d(torch.relu(s.d(F.pad(torch.relu(s.c(x.transpose(1, 2))), (
            4, 0)))), 1).squeeze(2)), c=nn.Conv1d(10, 12, 5, 2), d=nn.Conv1d(12, 12, 5, groups=12),
            out=nn.Linear(12, 5)), x
    return Of(lambda s, x: s.out(torch.relu(s.c(x[:, None])).mean((2, 3))), c=nn.Conv2d(1, 12, (10, 4), 2),
              out=nn.Linear(12, 5)), x


def prepared(name: str, folder) -> tuple[nn.Module, nn.Module, torch.Tensor, Subject]:
    torch.manual_seed(0)
    model, x = spotter(name)
    module = nnac.prepare(model.eval(), POLICY, x)
    module.calibrate([x])
    module.save(folder / "m.nnc")
    return model, module.eval(), x, Subject.load(folder / "m.nnc")


@pytest.mark.parametrize("name", ["gru", "lstm", "conv1d", "conv2d"])
@torch.no_grad()
def test_a_keyword_spotter_gives_the_same_integers_everywhere(name, tmp_path):
    model, module, x, subject = prepared(name, tmp_path)
    expected = model(x)
    with module.real_numbers():
        assert float((module(x) - expected).norm() / expected.norm()) < 1e-5
    assert float((module(x) - expected).norm() / expected.norm()) < 0.02
    argument, = subject.tensors.read
    for shorter in (x, x[:2, :21]):
        arrays = {argument.name: shorter.numpy()}
        for engine in ("reference", "emulator", "onnx"):
            found = tensors.compare(subject, subject, arrays, ("torch", engine))
            assert found.compared > 500 and not found.different, (engine, found.first)
        assert np.array_equal(tensors.run(subject, arrays).results[0], module(shorter).numpy())


@torch.no_grad()
def test_step_by_step_the_program_says_the_mean_of_what_was_heard(tmp_path):
    """As on a device that hears frame after frame; the module of so many frames says the same."""
    _, module, x, subject = prepared("gru", tmp_path)
    machine = executor("emulator", subject)
    entry, = machine.inputs
    name, = machine.inputs[entry]
    out, = machine.outputs[entry]
    given = subject.tensors.integers({name: x.numpy()}, machine.values)[name]
    state = machine.initial_state(entry, 3)
    for t in range(12):
        made, state = machine.run(entry, {name: given[t:t + 1]}, state)
        said = made[out][0] * np.float32(machine.values[out].scale)
        assert np.array_equal(said.astype(np.float32), module(x[:, :t + 1]).numpy())


@torch.no_grad()
def test_longer_than_a_sum_holds_is_refused_wherever_it_is_heard(tmp_path):
    _, module, _, subject = prepared("gru", tmp_path)
    name = subject.tensors.read[0].name
    longest, longer = torch.randn(2, MOST, 10), torch.randn(2, MOST + 1, 10)
    calls = {"module": module, "real numbers": module, "calibration": lambda x: module.calibrate([x])} | {
        engine: lambda x, engine=engine: tensors.run(subject, {name: x.numpy()}, engine)
        for engine in ("torch", "reference", "emulator", "onnx")}
    for what, call in calls.items():
        with module.real_numbers() if what == "real numbers" else torch.no_grad():
            call(longest)
            with pytest.raises(nnac.TooLongError, match="`mean` takes a mean over time of 256 vectors at most") as said:
                call(longer)
        assert len(str(said.value).splitlines()) == 1, what


def test_step_by_step_it_is_refused_as_well():
    graph = of(4, 9)
    program = compile_graph(graph, EDGE, Settings())
    machine = executor("emulator", Subject(compiled=program))
    x = random_inputs(graph, "e", np.random.default_rng(0), MOST)
    _, state = machine.run("e", x, machine.initial_state("e", 1))
    _, same = evaluate(graph, "e", x, initial_state(graph))
    assert all(np.array_equal(state[n], same[n]) for n in state)
    for call in (lambda s: machine.run("e", {"x": x["x"][:1]}, s), lambda s: evaluate(graph, "e", {"x": x["x"][:1]},
                                                                                     s)):
        with pytest.raises(nnac.TooLongError):
            call(state)


def test_a_program_keeps_what_its_states_may_reach():
    program = compile_graph(of(4, 9), EDGE, Settings())
    again = Program.from_bytes(program.to_bytes())
    assert {s.name: s.most for s in again.states} == {"mean.sum": None, "mean.count": MOST * ONE}
    assert again.to_bytes() == program.to_bytes()


@torch.no_grad()
def test_calibration_looks_at_means_of_whole_sequences():
    """Means of few frames lie far apart, and nobody asks for them: their range would leave few integers to the last."""
    torch.manual_seed(0)
    model = Of(lambda s, x: s.out(x.mean(1)), out=nn.Linear(8, 4, bias=False)).eval()
    x = torch.randn(16, 100, 8)
    module = nnac.prepare(model, POLICY.replace("percentile(99.99)", "minmax"), x)
    module.calibrate([x])
    forms = module.formats()
    assert forms["mean"].scale == pytest.approx(float(x.mean(1).abs().max()) / 127, rel=1e-3)
    assert forms["out"].scale == pytest.approx(float(model(x).abs().max()) / 127, rel=1e-3)
    assert float((module(x) - model(x)).norm() / model(x).norm()) < 0.05
