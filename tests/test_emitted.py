"""Every operator that has instructions computes on the machine what it means: over the registry, on each of three
machines."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from nnac import ops
from nnac.formats import Precision
from nnac.isa import MachineConfig
from nnac.isa.base import decode_all
from nnac.language.cycles import machine
from nnac.lower import lower
from nnac.ops._work import Job
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.passes import split
from tests.graphs import bind_randomly
from tests.schedules import EDGE, LARGE, TINY, compare
from tests.test_ops import FILES, model

EMITTED = [kind for kind in FILES if ops.emitted(kind)]


def bound(kind: str, bits: int, seed: int):
    graph = lower(model(kind), lambda path: Precision(activations=bits, hidden=bits))
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=8))
    return bind_randomly(graph, np.random.default_rng(seed))


def test_what_the_machine_runs_is_what_has_a_file():
    assert set(EMITTED) >= set("linear lstm layer_norm embedding add multiply tanh sigmoid log_softmax".split())
    assert not ops.emitted("stack") and not ops.emitted("gru") and not ops.emitted("_table")


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
