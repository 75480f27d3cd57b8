"""Every operator that has instructions computes on the machine what it means: over the registry, on each of three
machines."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from attrs import evolve

from nnac import isa, ops
from nnac.evaluate import evaluate
from nnac.formats import Precision
from nnac.ir import QGraph
from nnac.isa import MachineConfig
from nnac.isa.base import decode_all
from nnac.language.cycles import machine
from nnac.lower import lower
from nnac.model import EntryPoint, Kernel, Layer, ModelGraph
from nnac.ops._recurrent import SeparateOperator
from nnac.ops._work import Job, Product
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.passes import split
from tests.graphs import bind_randomly, normed_steps
from tests.schedules import EDGE, LARGE, TINY, compare
from tests.test_ops import FILES, model

EMITTED = [kind for kind in FILES if ops.emitted(kind)]


def bound(kind: str, bits: int, seed: int):
    graph = lower(model(kind), lambda path: Precision(activations=bits, hidden=bits))
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=8))
    return bind_randomly(graph, np.random.default_rng(seed))


def test_what_the_machine_runs_is_what_has_a_file():
    assert set(EMITTED) >= set("linear lstm layer_norm embedding add multiply tanh sigmoid log_softmax".split())
    assert not ops.emitted("stack") and not ops.emitted("_table")


@pytest.mark.parametrize("target", [EDGE, TINY, LARGE], ids=lambda t: t.name)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", EMITTED)
def test_an_emitted_operator_computes_what_it_means(kind, bits, target):
    if bits > 8 and ops.operator(kind).narrow:
        pytest.skip(f"{kind} takes int8")
    graph = bound(kind, bits, 3)
    program = compile_graph(graph, target)
    assert not program.host
    compared, different = compare(graph, program, 5)
    assert compared and different == 0


RECURRENT = [k for k in EMITTED if isinstance(ops.operator(k), SeparateOperator)]


def recurrent(kind: str, inputs: int, cells: int, rng: np.random.Generator, hidden: int = 8) -> QGraph:
    """A recurrent layer of so many cells, then a linear one, in an entry that every hypothesis runs for itself."""
    said = attributes_of(cells)
    kernels = tuple(Kernel(k, f"{kind}.{k}", operator_of(kind).rows(said, k), n)
                    for k, n in (("input", inputs), ("recurrent", cells)))
    layers = (Layer(kind, kind, ("x",), cells, 1, "e", kernels, said),
              Layer("last", "linear", (kind,), 5, 1, "e", (Kernel("weight", "last.weight", 5, cells),)))
    made = ModelGraph("m", {}, layers, dict(x=inputs), entries=(EntryPoint("e", frames=True, each_hypothesis=True),))
    return bind_randomly(lower(made, lambda path: Precision(hidden=hidden)), rng)


def attributes_of(cells: int) -> dict[str, object]:
    """What a recurrent operator of one direction reads of its layer."""
    return dict(cells=cells, rows=4 * cells, again=4 * cells, steps=normed_steps(cells))


def operator_of(kind: str) -> SeparateOperator:
    return cast(SeparateOperator, ops.operator(kind))


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_of_any_size_step_by_step_several_frames_and_several_hypotheses_at_a_time(kind):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        target, odd = (EDGE, TINY, LARGE)[seed % 3], int(operator_of(kind).fits(attributes_of(3), 3, 16))
        cells = 2 * int(rng.integers(1, 80)) + odd * int(rng.integers(2))
        graph = recurrent(kind, int(rng.integers(1, 40)), cells, rng, (8, 16, 4)[seed % 3])
        program = compile_graph(graph, target, Settings(frames=int(rng.integers(1, 7)), hypotheses=seed))
        assert not program.host, (kind, seed)
        compared, different = compare(graph, program, seed)
        assert compared and different == 0, (kind, seed)
        assert seed < 2 or f"e.steps[{min(seed, target.columns * 4)}]" in program.entries, (kind, seed)


@pytest.mark.parametrize("target", [EDGE, TINY], ids=lambda t: t.name)
def test_both_directions_of_a_gru_are_passes_of_their_own(target):
    kernels = tuple(Kernel(k, f"rnn.{d}.{k}", 3 * 19, n) for d in ("forward", "backward")
                    for k, n in (("input", 7), ("recurrent", 19)))
    layers = (Layer("rnn", "gru", ("x",), 38, 1, "e", kernels, dict(cells=19, bidirectional=True)),
              Layer("last", "linear", ("rnn",), 5, 1, "e", (Kernel("weight", "last.weight", 5, 38),)))
    made = ModelGraph("m", {}, layers, dict(x=7), entries=(EntryPoint("e", frames=True),))
    graph = bind_randomly(lower(made, lambda path: Precision()), np.random.default_rng(0))
    program = compile_graph(graph, target, Settings(frames=3))
    assert {"e.rnn.forward.step", "e.rnn.backward.steps", "e.end.step"} <= program.entries.keys() and not program.host
    compared, different = compare(graph, program)
    assert compared and different == 0


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("taps, dilation", [(3, 4), (2, 1), (4, 2)])
def test_taps_that_lie_apart_are_taken_from_all_that_was_heard(taps, dilation, frames):
    layers = (Layer("window", "window", ("x",), 8 * taps, 1, "e", (), dict(taps=taps, dilation=dilation)),
              Layer("last", "linear", ("window",), 5, 1, "e", (Kernel("weight", "last.weight", 5, 8 * taps),)))
    made = ModelGraph("m", {}, layers, dict(x=8), entries=(EntryPoint("e", frames=True),))
    graph = bind_randomly(lower(made, lambda path: Precision()), np.random.default_rng(dilation))
    program = compile_graph(graph, EDGE, Settings(frames=frames))
    compared, different = compare(graph, program, calls=4)
    assert compared and different == 0 and not program.host
    x = np.arange(-20, 20).repeat(8).reshape(40, 1, 8)
    seen: dict[str, np.ndarray] = {}
    evaluate(graph, "e", dict(x=x), watch=seen.__setitem__)
    scale = graph.values["x"].scale / graph.values["window"].scale
    now = np.floor(x * scale + 0.5)
    for k in range(taps):
        behind = (taps - 1 - k) * dilation
        assert abs(seen["window"][behind:, :, 8 * k:8 * k + 8] - now[:40 - behind]).max() <= 1
        assert not seen["window"][:behind, :, 8 * k:8 * k + 8].any()
    entry, config = program.entries["e.step" if frames == 1 else "e.steps"], MachineConfig.of(EDGE)
    spent = sum(i.cycles(config)[0] for i, line in zip(decode_all(entry.words.astype("<u8").tobytes()), entry.lines,
                                                       strict=True)
                if program.debug[line][0] == "window" and i.unit == "VX")
    job = Job(frames, 8 * taps, attributes=dict(taps=taps, dilation=dilation))
    assert spent == ops.operator("window").work(job, machine(EDGE)).vector


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_layer_takes_the_vector_cycles_that_it_says(kind):
    for inputs, cells, frames in ((5, 8, 1), (20, 70, 1), (9, 130, 6)):
        graph = recurrent(kind, inputs, cells, np.random.default_rng(cells))
        program = compile_graph(graph, EDGE, Settings(frames=frames))
        said = attributes_of(cells)
        products = {k: Product(operator_of(kind).rows(said, k), n) for k, n in (("input", inputs),
                                                                                ("recurrent", cells))}
        job = Job(frames, cells, products=(products,), attributes=said)
        work, config = ops.operator(kind).work(job, machine(EDGE)), MachineConfig.of(EDGE)
        entry = program.entries["e.step" if frames == 1 else "e.steps"]
        spent = dict.fromkeys(("VX", "MV"), 0)
        for i, line in zip(decode_all(entry.words.astype("<u8").tobytes()), entry.lines, strict=True):
            if program.debug[line][0] == kind and i.unit in spent and not isinstance(i, isa.CPY):
                spent[i.unit] += i.cycles(config)[0]
        assert (work.vector, work.matrix) == (spent["VX"], spent["MV"]), (inputs, cells, frames)


@pytest.mark.parametrize("kind", [k for k in EMITTED if not model(k).by_path[k].kernels
                                  and not ops.operator(k).remembers])
def test_an_operator_without_weights_takes_the_vector_cycles_that_it_says(kind):
    graph = bound(kind, 8, 3)
    program = compile_graph(split(graph).graph, EDGE, Settings())
    config = MachineConfig.of(EDGE)
    entry = program.entries["e.step"]
    code = decode_all(entry.words.astype("<u8").tobytes())
    spent = sum(i.cycles(config)[0] for i, line in zip(code, entry.lines, strict=True) if i.unit == "VX"
                and program.debug[line][0] == kind)
    assert spent == ops.operator(kind).work(Job(1, 8), machine(EDGE)).vector > 0
