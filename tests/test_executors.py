"""Executors by name: each is found, each gives the same integers, and what it cannot read is refused in one line."""

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac.errors import UserError
from nnac.executors import Subject, executor, names, summaries
from nnac.executors.torch import Torch
from nnac.formats import Precision
from nnac.ir import QGraph
from nnac.lower import lower
from nnac.model import build
from nnac.schedule.compile import compile_graph
from nnac.train.families.rnnt import Transducer
from tests.graphs import random_graph, random_inputs
from tests.schedules import EDGE

INNER = ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")


def same_integers(one, two, graph: QGraph, *, steps: int = 5, batch: int = 3, seed: int = 0, taps: bool = True) -> int:
    """Run every entry of both, twice, the second time from the state that the first left; how many integers were equal.

    ``taps`` False: only outputs and states (a program divides an entry in its own way).
    """
    rng, count = np.random.default_rng(seed), 0
    for entry in graph.inputs:
        states = [e.initial_state(entry, batch) for e in (one, two)]
        for _ in range(2):
            inputs = random_inputs(graph, entry, rng, steps, batch)
            seen: list[dict[str, np.ndarray]] = [{}, {}]
            made = []
            for i, e in enumerate((one, two)):
                out, states[i] = e.run(entry, inputs, states[i], seen[i].__setitem__)
                made.append(out)
            for left, right in (made, states, seen) if taps else (made, states):
                assert left.keys() == right.keys()
                for name in left:
                    assert (left[name] == right[name]).all(), f"{entry}: {name}, seed {seed}"
                    count += left[name].size
    return count


def trained(**arguments) -> Transducer:
    torch.manual_seed(1)
    module = Transducer(lower(build("rnnt", size="tiny", **arguments),
                              lambda p: Precision(activations=16 if p in INNER else 8)))
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((40, 3, 8)).astype(np.float32))
    module.calibrate([(x, torch.tensor([40, 33, 20]), torch.zeros(4, 3, dtype=torch.long))])
    return module.eval()


def test_every_executor_has_a_file_that_says_what_it_is():
    assert {"reference", "emulator", "torch"} <= set(names())
    assert all(20 < len(text) < 120 for text in summaries().values()), summaries()


@pytest.mark.parametrize("arguments", [{}, dict(bidirectional=True), dict(project=8)], ids=str)
def test_the_training_module_entry_by_entry_is_the_reference(arguments):
    module = trained(**arguments)
    graph = module.bind()
    graph = evolve(graph, metadata=dict(graph.metadata, vocabulary=12))
    assert same_integers(executor("reference", Subject(bound=graph)), Torch(module), graph) > 2_000


def test_a_backward_direction_begins_at_a_rows_own_end_in_the_training_module_as_in_the_reference():
    module = trained(bidirectional=True)
    graph, rng = module.bind(), np.random.default_rng(3)
    name, = graph.inputs["encoder"]
    lengths = np.array([5, 2, 3])
    x = rng.integers(-128, 128, (5 * graph.values[name].rate, 3, 8))
    outs = []
    for e in (executor("reference", Subject(bound=graph)), Torch(module)):
        out, _ = e.run("encoder", {name: x}, e.initial_state("encoder", 3), lengths=lengths)
        (v,) = out.values()
        outs.append(v * (np.arange(len(v))[:, None] < lengths)[:, :, None])
    assert (outs[0] == outs[1]).all() and np.abs(outs[0]).max() > 0


def test_what_cannot_be_executed_is_one_line():
    graph = random_graph(0, size="tiny")
    program = Subject(compiled=compile_graph(graph, EDGE), called="x.nnp")
    assert executor("emulator", program).inputs == graph.inputs
    for name, subject, message in (("emulater", program, "no engine is called `emulater`; did you mean `emulator`"),
                                   ("reference", program, "x.nnp is no checkpoint"),
                                   ("torch", program, "x.nnp is no checkpoint")):
        with pytest.raises(UserError, match=message) as caught:
            executor(name, subject)
        assert "\n" not in str(caught.value)
