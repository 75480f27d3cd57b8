"""Latency: utterances worked by hand, what must hold whatever the numbers, and the command on a program."""

import json
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from nnac.cli import main
from nnac.decode.search import ROUNDS
from nnac.decode.search.beam import Beam
from nnac.decode.search.greedy import Greedy
from nnac.latency import plane
from nnac.latency.measure import Latencies, LatencyError, borrowed, compared, costs_of, listen, measure
from nnac.latency.simulate import Calls, Costs, Scenario, change, quantiles, simulate, steps_heard
from nnac.speech.wer import word_errors

FREE = Scenario(hangover_s=0.020, feature_s=0, launch_s=0, choose_s=0, more_s=0, finish_s=0)
# a cycle is a millisecond; a step covers 60 ms, the first needs 15 more
MS = Costs(1000, 0.060, 0.015, 6, Calls(((1, 10),)), Calls(((1, 3),)), Calls(((1, 1),)))


def rounds(*rows):
    """(step, new prefixes, hypotheses) each."""
    return np.array([(0, *row) for row in rows], ROUNDS)


def ms(seconds):
    return pytest.approx(seconds / 1000)


def test_an_engine_that_keeps_up_has_the_text_when_the_last_step_is_searched():
    """Speech to 240, endpoint 260: steps end at 75, 135, 195, 255; the last: 10 encoder, 3 + 1 and 1 of search ->
    270."""
    run = simulate(MS, FREE, 0.240, rounds((0, 1, 1), (1, 0, 1), (2, 0, 1), (3, 1, 1), (3, 0, 1)))
    assert run.ready == pytest.approx((0.075, 0.135, 0.195, 0.255)) and run.closed == ms(260)
    assert run.done == ms(270) and run.upl == ms(30) and run.engine == ms(10) and run.backlog == 0
    assert run.busy == ms(4 * 10 + 2 * 3 + 5 * 1)


def test_a_text_is_final_at_the_endpoint_and_not_before():
    run = simulate(MS, evolve(FREE, hangover_s=0.070), 0.200, rounds())
    assert run.ready[-1] == ms(255) and run.heard[-1] == ms(266) and run.closed == ms(270) == run.done
    assert run.upl == ms(70), "all of it is waiting for the endpoint"


def test_a_step_that_takes_longer_than_its_audio_leaves_a_backlog_that_grows():
    """80 ms of work for 60 of audio: 4 steps from 75 on end at 75 + 4 x 81."""
    slow = evolve(MS, encoder=Calls(((1, 80),)))
    run = simulate(slow, FREE, 0.240, rounds())
    assert run.done == ms(75 + 4 * 81) and run.backlog == ms(75 + 3 * 81 - 255)


def test_a_batch_waits_until_it_is_whole_and_the_rest_until_the_endpoint():
    """Two steps a call of 12: begun at 135 and 255; of five steps the last is known to be alone at the endpoint,
    320."""
    two = evolve(MS, encoder=Calls(((1, 10), (2, 12))))
    run = simulate(two, FREE, 0.300, rounds())
    assert run.heard == pytest.approx((0.148, 0.149, 0.268, 0.269, 0.331)) and run.done == ms(331)


def test_audio_that_waits_is_there_at_once_and_has_to_be_caught_up_with():
    """200 ms of keyword: the first three steps are there at 0 (75, 135, 195), the fourth at 55; loading ends at 40."""
    run = simulate(MS, evolve(FREE, waiting_s=0.200, load_s=0.040), 0.240, rounds())
    assert run.ready == pytest.approx((0, 0, 0, 0.055)) and run.heard == pytest.approx((0.051, 0.062, 0.073, 0.084))
    assert run.speech_end == ms(40) and run.closed == ms(60) and run.upl == ms(44)


def test_what_the_host_takes_is_counted_where_it_is_taken():
    """One step: 6 vectors of 1 ms, 3 calls launched at 2 ms, a choice among 3 at 5 + 2 x 0.5 ms, 7 ms to finish."""
    host = Scenario(hangover_s=0.020, feature_s=0.001, launch_s=0.002, choose_s=0.005, more_s=0.0005, finish_s=0.007)
    costs = evolve(MS, joint=Calls(((1, 1), (4, 2))))
    run = simulate(costs, host, 0.060, rounds((0, 1, 3)), keep=True)
    assert run.done == ms(75 + 6 + (2 + 10) + (2 + 3) + (2 + 2) + 6 + 7)
    assert {s.unit for s in run.spans} == {"host", "encoder", "prediction", "joint"}
    assert sum(s.end - s.start for s in run.spans) == pytest.approx(run.busy)
    assert all(a.end <= b.start + 1e-12 for a, b in zip(run.spans, run.spans[1:], strict=False)), "one thing at a time"


def test_new_prefixes_ask_language_models_and_the_internal_one():
    costs = evolve(MS, languages=(Calls(((1, 5),)), Calls(((1, 7), (4, 9)))), internal=True)
    run = simulate(costs, FREE, 0.060, rounds((0, 2, 1)))
    assert run.done == ms(75 + 10 + 2 * 3 + 2 * 5 + 9 + 2 * 1 + 1)


def test_several_hypotheses_take_the_cheapest_calls():
    calls = Calls(((1, 10), (4, 25)))
    assert [calls.several(n) for n in (0, 1, 2, 3, 4, 5, 6, 9)] == [
        [], [10], [10, 10], [25], [25], [25, 10], [25, 10, 10], [25, 25, 10]]
    assert Calls(((1, 10),)).several(3) == [10, 10, 10]
    with pytest.raises(ValueError, match="for one step"):
        Calls(((4, 1),))


def test_audio_too_short_for_a_step_is_silence():
    assert steps_heard(MS, 0.074) == 0 and steps_heard(MS, 0.075) == 1
    run = simulate(MS, FREE, 0.030, rounds())
    assert run.done == run.closed == ms(50) and run.heard == ()


@given(st.integers(0, 10**6))
def test_more_work_or_more_waiting_audio_never_brings_the_text_earlier(seed):
    r = np.random.default_rng(seed)
    calls = [Calls(((1, int(r.integers(1, 90))),)) for _ in range(3)]
    costs = Costs(1000, 0.06, 0.015, 6, *calls)
    end = float(r.uniform(0.05, 1.5))
    count = steps_heard(costs, end + 0.02)
    said = rounds(*sorted((int(r.integers(0, count)), int(r.integers(0, 3)), 1) for _ in range(6 if count else 0)))
    run = simulate(costs, FREE, end, said)
    assert run.upl >= 0.02 - 1e-9 and list(run.heard) == sorted(run.heard)
    assert all(h > at for h, at in zip(run.heard, run.ready, strict=True))
    slower = evolve(costs, encoder=Calls(((1, calls[0].one + 1),)))
    assert simulate(slower, FREE, end, said).done >= run.done - 1e-9
    waits = [simulate(costs, evolve(FREE, waiting_s=w), end, said).upl for w in (0.0, 0.3, 0.6)]
    assert waits == sorted(waits) or waits == pytest.approx(sorted(waits))
    assert simulate(costs, evolve(FREE, load_s=0.5), end, said).done >= run.done - 1e-9


def test_changes_are_paired():
    r = np.random.default_rng(0)
    a = r.lognormal(0, 1, 80)
    value, (low, high) = change(a, 0.9 * a)
    assert [value, low, high] == pytest.approx([-0.1] * 3), "the same for each"
    other, (low, high) = change(a, r.permutation(a))
    assert other == pytest.approx(0) and low < -0.05 < 0.05 < high, "no pairs: no certainty"
    q = quantiles(a)
    assert q.p50_interval[0] < q.p50 < q.p50_interval[1] < q.p90 < q.p90_interval[1]
    with pytest.raises(ValueError, match="same utterances"):
        change(a, a[:5])


def latencies(costs, ends=(1.0, 1.5, 2.0), scenario=None):
    """What an engine of these costs does with utterances that end there, a label every third step."""
    scenario = scenario or evolve(FREE, choose_s=0.001, finish_s=0.001)
    asked = [rounds(*((i, int(i % 3 == 0), 1) for i in range(steps_heard(costs, e + 0.02)))) for e in ends]
    runs = [simulate(costs, scenario, e, r) for e, r in zip(ends, asked, strict=True)]
    return Latencies(runs, asked, word_errors(["a"] * len(ends), ["a"] * len(ends)), ["a"] * len(ends), costs, scenario)


def test_a_machine_is_slowed_until_its_work_is_that_share_of_the_audio():
    done = latencies(MS)
    for share in (0.3, 0.8, 1.1):
        slower = plane.slowness(done, share)
        assert plane.moved(done, slower, 0.0).rtf == pytest.approx(share)
    same = plane.moved(done, 1.0, 0.0)
    assert same.upl == pytest.approx(done.upl) and plane.moved(same, 1.0, 0.5).upl >= same.upl
    with pytest.raises(plane.PlaneError, match="the host alone takes"):
        plane.slowness(done, 0.001)


def test_a_plane_finds_the_gain_where_work_piles_up_and_none_before(tmp_path):
    """The second takes a tenth fewer cycles in the encoder: nothing to see while it keeps up."""
    first, second = latencies(MS), latencies(evolve(MS, encoder=Calls(((1, 9),))))
    points = list(plane.plane(first, second, (0.3, 1.2), (0.0, 1.0)))
    assert [(p.share, p.waiting_s) for p in points] == [(0.3, 0.0), (0.3, 1.0), (1.2, 0.0), (1.2, 1.0)]
    change = [p.changes["upl_p90"][0] for p in points]
    assert change[2] < -0.1 and change[3] < -0.05 and change[0] > change[2]
    assert points[0].plain()["work_over_audio"] == 0.3 and json.loads(json.dumps(points[0].plain()))
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        plane.draw(points, "a plane", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_labels_are_borrowed_at_the_times_they_were_said():
    """Steps of 30 ms in place of 60: what was said in the second step is said in the fourth."""
    done, half = latencies(MS, (0.5,)), evolve(MS, step_s=0.030, vectors=3)
    other = borrowed(done, half)
    assert other.rounds[0]["frame"].tolist() == [2 * f + 1 for f in done.rounds[0]["frame"]]
    assert len(other.timelines[0].heard) == steps_heard(half, 0.52) and other.texts == done.texts
    assert borrowed(done, MS).upl == done.upl
    with pytest.raises(LatencyError, match="say nothing of steps of 45 ms"):
        borrowed(done, evolve(MS, step_s=0.045))


# ------------------------------------------------------------------------------------------------------- on a program

@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A tiny recogniser of random weights, two programs of it (one with `frames 4`), and a corpus of five."""
    pytest.importorskip("espeakng_loader")
    from nnac.decode.front_end import FrontEnd
    from nnac.schedule.compile import Settings, compile_graph
    from nnac.speech.corpus import CorpusSpec, build, load_split, manifest_path
    from nnac.speech.features import FeatureSpec
    from nnac.speech.tokens import LETTERS
    from tests.graphs import random_graph
    from tests.schedules import EDGE

    folder = tmp_path_factory.mktemp("latency")
    build(folder / "corpus", CorpusSpec(train=0, dev=0, sent=5, voice=0, wavs=5), workers=1, quiet=True)
    split = load_split(folder / "corpus", "sent")
    front = FrontEnd(FeatureSpec(), split.normalisation(), LETTERS)
    graph = random_graph(3, size="tiny", features=40, stack=3, vocabulary=LETTERS.count)
    paths = []
    for frames in (1, 4):
        program = compile_graph(graph, EDGE, Settings(frames=frames), metadata=dict(front_end=front.to_json()))
        paths.append(folder / f"frames{frames}.nnp")
        program.save(paths[-1])
    return [str(p) for p in paths], str(manifest_path(folder / "corpus", "sent"))


def test_a_program_is_timed_by_its_own_cycles_and_what_its_search_asked(compiled):
    from nnac.decode.front_end import front_end_of
    from nnac.program import Program
    from nnac.speech.audio import read_manifest

    (path, batched), manifest = compiled
    program = Program.load(path)
    listed = read_manifest(manifest)
    heard = listen(front_end_of(program), listed, 0.2)
    assert [h.seconds for h in heard] == pytest.approx([min(u.duration, u.speech_end + 0.2) for u in listed], abs=1e-3)
    assert all(len(h.features) == int((h.seconds * 16000 - 400) / 160) + 1 for h in heard)
    for how in (Greedy(), Beam(4)):
        done = measure(program, heard, Scenario(), how, quiet=True)
        cost = costs_of(program, how)
        assert (cost.step_s, cost.first_s, cost.vectors) == (0.06, 0.015, 6)
        cycles = {name: e.cycles for name, e in program.entries.items()}
        assert (cost.encoder.one, cost.init) == (cycles["encoder.step"], cycles["init"])
        for t, h in zip(done.timelines, heard, strict=True):
            assert t.upl >= 0.2 and len(t.heard) == steps_heard(cost, h.speech_end + 0.2)
    waits = measure(Program.load(batched), heard, Scenario(), Greedy(), quiet=True)
    alone = measure(program, heard, Scenario(), Greedy(), quiet=True)
    assert costs_of(Program.load(batched), Greedy()).encoder.largest[0] == 4 and waits.texts == alone.texts
    shares = compared(alone, waits)
    assert set(shares) == {"upl_p50", "upl_p90", "engine_p50", "engine_p90"} and shares["upl_p90"][0] > 0


def test_the_command_prints_compares_and_draws(compiled, tmp_path, capsys):
    (path, batched), manifest = compiled
    picture = tmp_path / "one.svg"
    assert main(["latency", path, batched, "--manifest", manifest, "--waiting", "500", "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "5 utterances, ms" in text and "UPL P90" in text and f"{batched} against {path}:\n  UPL P50 " in text
    drawn = xml.dom.minidom.parseString(picture.read_text())
    said = [t.firstChild.data for t in drawn.getElementsByTagName("text") if t.firstChild]
    assert {"audio", "host", "encoder", "prediction", "joint"} <= set(said) and any("endpoint" in s for s in said)
    assert main(["latency", path, "--manifest", manifest, "--hangover", "300", "--first", "3", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)[path]
    assert figures["utterances"] == 3 and figures["upl_p90_ms"] >= 300 > figures["engine_p90_ms"] > 0
    pytest.importorskip("matplotlib")
    plain = ["latency", path, batched, "--manifest", manifest, "--first", "3", "--labels", path]
    assert main([*plain, "--slower-to", "0.9", "--plane", str(tmp_path / "plane.svg"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said[path]["rtf"] == pytest.approx(0.9) and len(said["plane"]) == 45
    assert main([*plain[:2], "--manifest", manifest, "--plane", str(tmp_path / "plane.svg")]) == 2
    assert "compares two programs" in capsys.readouterr().err


def test_a_manifest_that_does_not_say_where_speech_ends_is_refused_in_one_line(compiled, tmp_path, capsys):
    (path, _), manifest = compiled
    rows = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
    folder = Path(manifest).parent
    for change_, message in ((lambda r: r.pop("speech_end"), "does not say where its last word ends"),
                             (lambda r: r.update(speech_end=99.0), "`speech_end` is 99 s, the file holds")):
        row = rows[0] | dict(audio=str(folder / rows[0]["audio"]))
        change_(row)
        (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
        assert main(["latency", path, "--manifest", str(tmp_path / "m.jsonl")]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert issubclass(LatencyError, Exception)


def test_a_budget_of_what_a_user_waits_is_decided_on_utterances(compiled, tmp_path, capsys):
    from nnac.commands.compile import undecided
    from nnac.policy import loads
    from nnac.program import Program

    (path, _), manifest = compiled
    plan = loads('import "targets/edge.nnac"\npolicy p {\n  model rnnt(size="tiny")\n  target edge\n'
                 "  layers ** { weights int8 }\n  budget { upl(p90) <= 201 ms; engine(p50) <= 90 us }\n}\n").plan
    assert {b.quantity: b.limit for b in plan.budgets} == {"upl(p90)": 0.201, "engine(p50)": 90e-6}
    budgets = plan.to_json()["budgets"]
    program = Program.load(path)
    evolve(program, plan=dict(program.plan) | {"budgets": budgets}).save(tmp_path / "p.nnp")
    assert main(["latency", str(tmp_path / "p.nnp"), "--manifest", manifest]) == 1
    err = capsys.readouterr().err
    assert "budget `engine(p50) <= 90 us` is exceeded: 0.1 ms on 5 utterances" in err and "upl(p90)" not in err
    assert main(["latency", str(tmp_path / "p.nnp"), "--manifest", manifest, "--finish-us", "50"]) == 0
    assert "budget" not in capsys.readouterr().err, "met"
    assert undecided(Program.load(tmp_path / "p.nnp")) == [
        f"budget `{b['text']}`: decided on utterances, by `nnac latency`" for b in budgets]
