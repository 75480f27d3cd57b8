"""Language models beside a recogniser: names, numbers and costs are those they have alone."""

import numpy as np
import pytest
from attrs import evolve

from nnac.companions import CompanionError, beside
from nnac.decode.fusion import Fusion, FusionError
from nnac.decode.integer import EntryModel, IntegerStepper
from nnac.decode.search.beam import Beam
from nnac.emulator.executor import Emulator
from nnac.executors.reference import Reference
from nnac.schedule.compile import compile_graph
from tests.graphs import random_graph
from tests.schedules import EDGE
from tests.test_lm import made


@pytest.fixture(scope="module")
def graphs():
    """(recogniser alone, with two language models beside it, the two alone)."""
    alone = random_graph(5, size="tiny")
    first, second = (made(seed=seed)[2].eval().bind() for seed in (1, 2))
    return alone, beside(beside(alone, "lm", first), "source_lm", second), first, second


def test_a_companion_says_what_it_says_alone_on_every_executor(graphs):
    _, together, first, second = graphs
    emulator = Emulator(compile_graph(together, EDGE))
    r = np.random.default_rng(0)
    for name, graph in (("lm", first), ("source_lm", second)):
        models = [EntryModel.of(Reference(graph), "lm"), EntryModel.of(Reference(together), name),
                  EntryModel.of(emulator, name)]
        said = [m.start() for m in models]
        for _ in range(5):
            assert all((row == said[0][0]).all() for row, _ in said) and said[0][0].max() <= 0
            tokens = r.integers(1, 12, 3)
            states = [tuple(np.repeat(v, 3 // len(v), 0) for v in state) for _, state in said]
            said = [m.step(tokens, s) for m, s in zip(models, states, strict=True)]


def test_the_recogniser_is_not_touched(graphs):
    alone, together, _, _ = graphs
    a, b = compile_graph(alone, EDGE), compile_graph(together, EDGE)
    assert set(b.entries) - set(a.entries) == {"lm.step", "source_lm.step"}
    assert [n for n in together.nodes if n.entry in alone.inputs] == list(alone.nodes)


def test_search_asks_each_new_prefix_of_each_companion_once(graphs):
    _, together, _, _ = graphs
    r = np.random.default_rng(1)
    features = r.standard_normal((24, 3, 8)).astype(np.float32)
    how, lengths = Beam(4, 3, nbest=4, fusion=Fusion(("lm", "source_lm"), (0.4, -0.3))), np.array([24, 20, 8])
    executors = Reference(together), Emulator(compile_graph(together, EDGE))
    found = [how(IntegerStepper(e), features, lengths) for e in executors]
    assert found[0].nbest == found[1].nbest and found[0].rounds.tolist() == found[1].rounds.tolist()
    plain = evolve(how, fusion=Fusion())(IntegerStepper(executors[0]), features, lengths)
    assert found[0].nbest != plain.nbest
    steps = how.steps(found[0].rounds)
    assert steps["lm"] == steps["source_lm"] == steps["prediction"] > 0


def test_what_cannot_stand_beside_a_recogniser_is_said(graphs):
    alone, together, first, _ = graphs
    with pytest.raises(CompanionError, match="has an entry `lm` already"):
        beside(together, "lm", first)
    with pytest.raises(CompanionError, match="is no language model: it has the entries encoder, prediction, joint"):
        beside(alone, "lm", alone)
    with pytest.raises(CompanionError, match="says 12 tokens, the recogniser 9"):
        beside(random_graph(0, size="tiny", vocabulary=9), "lm", first)
    with pytest.raises(FusionError, match="no entry `lm`"):
        EntryModel.of(Reference(alone), "lm")
