"""Entries that take several hypotheses at once: the same integers, proved, at the price of the weights' bytes."""

import itertools

import numpy as np
import pytest
from attrs import evolve

from nnac.companions import beside
from nnac.decode.fusion import Fusion
from nnac.decode.integer import IntegerStepper
from nnac.decode.search import ROUNDS
from nnac.decode.search.beam import Beam
from nnac.decode.search.greedy import Greedy
from nnac.emulator.executor import Emulator
from nnac.entry import LABELS_PER_SECOND, Calls
from nnac.executors.reference import Reference
from nnac.language.estimate import estimate
from nnac.plan import Budget, Decode
from nnac.policy import loads
from nnac.program import INIT, Program
from nnac.schedule.compile import CompileError, Settings, compile_graph
from nnac.schedule.proof import prove_program
from tests.graphs import random_graph
from tests.schedules import EDGE, TINY, compare
from tests.test_lm import made


@pytest.fixture(scope="module")
def graph():
    """A recogniser with two language models beside it."""
    first, second = (made(seed=seed)[2].eval().bind() for seed in (1, 2))
    return beside(beside(random_graph(5, size="tiny"), "lm", first), "source_lm", second)


@pytest.mark.parametrize("target, hypotheses, sizes", [(EDGE, 6, [2, 4, 6]), (EDGE, 1000, [2, 4, 8, 16]),
                                                       (TINY, 8, [2, 4]), (EDGE, 1, [])])
def test_entries_take_as_many_as_a_search_holds_and_the_banks_hold_sums(graph, target, hypotheses, sizes):
    program = compile_graph(graph, target, Settings(hypotheses=hypotheses))
    for entry in ("prediction", "joint", "lm", "source_lm"):
        assert [e.hypotheses for e in program.sizes(entry)] == sizes
    assert not program.sizes("encoder")
    prove_program(program)
    assert compare(graph, program)[1] == 0


def test_the_entries_of_one_hypothesis_stay_what_they_were(graph):
    alone, together = (compile_graph(graph, EDGE, Settings(hypotheses=k)) for k in (1, 8))
    for name, entry in alone.entries.items():
        if name != INIT:
            assert together.entries[name].cycles == entry.cycles
            assert len(together.entries[name].words) == len(entry.words)


@pytest.mark.parametrize("shape", [dict(project=24), dict(combine="multiply")], ids=str)
def test_a_file_holds_them_and_the_machine_computes_them(shape):
    graph = random_graph(7, size="tiny", vocabulary=70, prediction_cells=40, **shape)
    program = Program.from_bytes(compile_graph(graph, EDGE, Settings(hypotheses=5)).to_bytes())
    assert [e.hypotheses for e in program.sizes("prediction")] == [2, 4, 5]
    prove_program(program)
    assert compare(graph, program)[1] == 0


def test_one_step_of_many_rows_is_the_step_of_each(graph):
    program = compile_graph(graph, EDGE, Settings(hypotheses=4))
    emulator, r = Emulator(program), np.random.default_rng(0)
    for rows in (1, 2, 3, 5, 11):
        for entry in ("prediction", "lm"):
            one = Reference(graph)
            state = {k: r.integers(-99, 99, v.shape) for k, v in one.initial_state(entry, rows).items()}
            (name,), seen = one.inputs[entry], {}
            x = {name: r.integers(0, 12, (1, rows, 1))}
            want, after = one.run(entry, x, state)
            got, now = emulator.run(entry, x, state, lambda k, v, seen=seen: seen.__setitem__(k, v))
            assert all((got[k] == want[k]).all() for k in want) and all((now[k] == after[k]).all() for k in after)
            assert all(v.shape[:2] == (1, rows) for v in seen.values())


def test_beam_search_finds_the_same_with_and_without(graph):
    features = np.random.default_rng(1).standard_normal((24, 3, 8)).astype(np.float32)
    lengths = np.array([24, 20, 8])
    how = Beam(4, 3, nbest=4, fusion=Fusion(("lm", "source_lm"), (0.4, -0.3)))
    programs = [compile_graph(graph, EDGE, Settings(hypotheses=k)) for k in (1, 4)]
    found = [how(IntegerStepper(e), features, lengths) for e in (Reference(graph), *map(Emulator, programs))]
    assert found[0].nbest == found[1].nbest == found[2].nbest
    alone, together = (how.cycles(p, found[0].rounds) for p in programs)
    assert together < alone


def test_what_w_keeps_is_read_first_and_pages_of_parameters_stay_whole():
    """Where parameters do not all stay in A, a reading that began within a page would load it twice, half of it for
    nothing: found at 57 M weights."""
    graph = random_graph(0, size="small", layers=2, cells=384)
    program = compile_graph(graph, evolve(EDGE, sram=155_000, pinned=0), Settings(frames=4))
    prove_program(program)


# ---------------------------------------------------------------------------------------------------------- the price

def test_states_that_a_search_carries_cost_their_bytes_both_ways(graph):
    program = compile_graph(graph, EDGE, Settings(hypotheses=2))
    step, both = program.entries["lm.step"].cycles, program.entries["lm.steps[2]"].cycles
    moved = 2 * sum(s.width * s.size for s in program.states if s.entry == "lm")
    cycles = -(-moved * EDGE.clock // EDGE.cpu.transfer)
    assert program.calls("lm").sizes == ((1, step), (2, both))
    assert program.calls("lm", moved=True).sizes == ((1, step + cycles), (2, both + 2 * cycles))
    assert program.calls("joint", moved=True) == program.calls("joint"), "a joint has no state"


def test_greedy_search_pays_for_steps_alone_and_a_beam_for_rounds(graph):
    program = compile_graph(graph, EDGE, Settings(hypotheses=4))
    rounds = np.array([(0, 0, 1, 1), (0, 0, 3, 4), (0, 1, 0, 3)], ROUNDS)
    calls = {e: program.calls(e, True) for e in ("prediction", "joint", "lm")}
    expected = sum(sum(calls[e].several(n)) for e, counts in dict(prediction=(1, 3, 0), joint=(1, 4, 3), lm=(1, 3, 0)
                                                                  ).items() for n in counts)
    assert Beam(4, fusion=Fusion(("lm",), (0.3,))).cycles(program, rounds) == expected
    ones = np.array([(0, 0, 1, 1), (0, 1, 1, 1)], ROUNDS)
    assert Greedy().cycles(program, ones) == 2 * sum(program.entries[f"{e}.step"].cycles for e in ("prediction",
                                                                                                   "joint"))


@pytest.mark.parametrize("sizes", [((1, 10),), ((1, 10), (4, 25)), ((1, 10), (2, 11), (3, 35), (8, 36)),
                                   ((1, 1), (4, 9))])
def test_several_hypotheses_are_covered_at_the_least_cost(sizes):
    calls = Calls(sizes)
    for count in range(12):
        got = calls.several(count)
        ways = (w for k in range(count + 1) for w in itertools.combinations_with_replacement(sizes, k)
                if sum(size for size, _ in w) >= count)
        assert sum(got) == min((sum(c for _, c in w) for w in ways), default=0)


def test_a_state_on_the_cpu_keeps_an_entry_to_one_hypothesis(graph):
    host = Settings(hypotheses=4, places={"prediction.lstm[0]": "cpu"})
    program = compile_graph(graph, EDGE, host)
    assert not program.sizes("prediction") and program.sizes("lm")


def test_the_compiler_prices_the_search_of_the_policy_and_holds_it_to_its_budget(graph):
    """By hand: calls a frame as `nnac.entry` expects them, at the program's own cycles."""
    how = Decode("beam", 4, fusion="shallow", weight=0.3)
    program = compile_graph(graph, EDGE, Settings(hypotheses=how.hypotheses, decode=how))
    frame_s = graph.metadata["frame_ms"] / 1000
    found, total = program.report["search"], 0.0
    for e in program.model_entries:
        if e.name == "source_lm":
            continue                                   # shallow fusion asks the target's alone
        calls, each = e.calls_per_second(1 / frame_s, LABELS_PER_SECOND, 4)
        prices = program.calls(e.name, moved=e.each_hypothesis)
        low = sum(prices.several(int(each)))
        total += calls * frame_s * (low + (each % 1) * (sum(prices.several(int(each) + 1)) - low))
    assert found["search"] == "beam(4), fusion shallow(0.3)" and set(found["entries"]) == {"encoder", "prediction",
                                                                                           "joint", "lm"}
    assert found["cycles_per_frame"] == round(total) and found["rtf"] == pytest.approx(total / frame_s / EDGE.clock)
    tight = Budget("rtf", found["rtf"] * 0.99, "rtf <= little")
    with pytest.raises(CompileError, match=r"budget `rtf <= little` is exceeded: \d.* of real time, beam\(4\), fusion "
                                           r"shallow\(0.3\) \(largest: "):
        compile_graph(graph, EDGE, Settings(hypotheses=4, decode=how, budgets=(tight,)))


def test_a_budget_of_real_time_is_estimated_before_anything_is_compiled():
    head = ('import "targets/edge.nnac"\npolicy p {\n  model rnnt(size="small")\n  target edge\n  layers ** { weights '
            'int8 }\n')
    plan = loads(head + "  decode { search beam(8) }\n}\n").plan
    cost = estimate(plan, plan.graph)
    program = compile_graph(random_graph(0, size="small"), EDGE, Settings(hypotheses=8, decode=plan.decode))
    assert cost.rtf == pytest.approx(program.report["search"]["rtf"], rel=0.12)
    assert cost.rtf > estimate(loads(head + "}\n").plan, plan.graph).rtf, "greedy asks for less"
