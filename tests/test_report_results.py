"""Sweeps and their report: nothing done twice, statistics checked by hand, verdicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nnac.report import experiments as ex
from nnac.report import outcomes as oc
from nnac.report import results, runs
from nnac.speech.wer import word_errors

SMALL = """
title = "A comparison"
splits = ["sent"]

[[table]]
title = "One"
note = "A note."
row = [
  { name = "float", label = "float32" },
  { name = "int8", policy = "p.nnac", seeds = 2, quick = true },
  { name = "gq5", label = "5 bits", policy = "p.nnac", define = { bits = 5 } },
]

[[claim]]
paper = "GQ"
text = "loses nothing"
row = "gq5"
against = "int8"
measure = "wer_points"
at_most = 1.0
"""


def write(tmp_path, text=SMALL):
    (tmp_path / "p.nnac").write_text("policy p {}")
    path = tmp_path / "e.toml"
    path.write_text(text)
    return path


def outcome(row="gq5", seed=0, errors=(0, 1, 2, 0), words=(4, 5, 6, 5), size=1000, cycles=100.0):
    pack = lambda v: "".join(oc.DIGITS[x] for x in v)  # noqa: E731
    heard = oc.Heard(sum(errors), 0, 0, sum(words), pack(errors), pack(words))
    return oc.Outcome(row, seed, "d", "abc", {"sent": heard}, 1000, size, size + 10, cycles, 60.0, 10**6, checked=50)


# ------------------------------------------------------------------------------------------------ experiments

def test_an_experiments_file_says_what_it_means(tmp_path):
    e = ex.load(write(tmp_path))
    assert [r.name for r in e.rows] == ["float", "int8", "gq5"] and e.tables[0].rows[2].define == {"bits": 5}
    assert e.policy_path(e.tables[0].rows[1]) == tmp_path / "p.nnac" and e.policy_path(e.tables[0].rows[0]) is None


@pytest.mark.parametrize("change,message", [
    (("seeds = 2", "seeds = 0"), "seeds"), (('name = "gq5"', 'name = "int8"'), "two rows"), (("quick = true", "quik = true"), "quik"),
    (('row = "gq5"', 'row = "gq6"'), "no row is called `gq6`"), (("wer_points", "wer"), "no measure `wer`"), (("at_most = 1.0", ""), "at_most"),
    (("title = \"A", "title = A"), "e.toml"), (('name = "float"', 'name = "a/b"'), "names files"), (('title = "One"', ""), "title"),
])
def test_a_mistake_in_it_is_one_line(tmp_path, change, message):
    path = write(tmp_path, SMALL.replace(*change, 1) if change[0] in SMALL else pytest.fail("the case is stale"))
    with pytest.raises(ex.ExperimentError, match=message) as caught:
        ex.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_policy_is_named(tmp_path):
    e = ex.load(write(tmp_path))
    (tmp_path / "p.nnac").unlink()
    with pytest.raises(ex.ExperimentError, match=r"p\.nnac"):
        e.policy_path(e.tables[0].rows[1])


def test_the_comparison_in_the_repository_is_sound():
    from nnac.compiler import resolve

    e = ex.load("specs/comparison/all.toml")
    digests = {}
    for row in e.rows:
        path = e.policy_path(row)
        if path is not None:
            plan = resolve(path, row.policy_name, **{k: str(v) for k, v in row.define.items()})
            digests.setdefault((plan.digest, row.steps), []).append(row.name)
    assert not [names for names in digests.values() if len(names) > 1]             # no two rows are the same run
    assert len(digests) >= 25 and len(e.claims) >= 8


# ------------------------------------------------------------------------------------------------ result files

def test_a_result_file_round_trips(tmp_path):
    path = oc.save(tmp_path, outcome())
    assert oc.load(path) == outcome() and path.name == "gq5-s0.json" and path.stat().st_size < 2000
    assert oc.load_all(tmp_path, [("gq5", 2), ("int8", 1)]) == {"gq5": [outcome()], "int8": []}


@pytest.mark.parametrize("damage", ["", "{}", "[]", "null", '{"nnac_result": 2}'])
def test_a_damaged_result_file_is_one_line(tmp_path, damage):
    path = tmp_path / "x.json"
    path.write_text(damage)
    with pytest.raises(oc.OutcomeError, match=r"x\.json"):
        oc.load(path)
    data = json.loads(oc.save(tmp_path, outcome()).read_text())
    data["heard"]["sent"]["errors"] = "0!20"
    path.write_text(json.dumps(data))
    with pytest.raises(oc.OutcomeError, match="damaged"):
        oc.load(path)


def test_counts_come_from_the_word_error_counter():
    h = oc.Heard.of(word_errors(["a b c", "d e", ""], ["a x c", "d e f", "g"]))
    assert (h.substitutions, h.deletions, h.insertions, h.words, h.errors, h.lengths) == (1, 0, 2, 5, "111", "320") and h.rate == 60.0


def test_rates_and_differences_are_those_of_the_counts():
    a, b = outcome("a", errors=(0, 1, 2, 0)), outcome("b", errors=(1, 1, 3, 0))
    assert oc.rate([a])[0] == pytest.approx(100 * 3 / 20)
    assert oc.difference([a], [b])[0] == pytest.approx(10.0) and oc.difference([a], [b], relative=True)[0] == pytest.approx(200 / 3)
    assert oc.difference([a], [a])[1:] == (0.0, 0.0)
    assert oc.rate([a, outcome("a", 1, errors=(2, 1, 2, 0))])[0] == pytest.approx(100 * 4 / 20)


def test_pairing_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(0)
    words = rng.integers(4, 9, 800)
    errors = np.minimum(rng.poisson(0.4, 800), 9)
    worse = np.minimum(errors + (rng.random(800) < 0.03), 9)
    a, b = outcome("a", errors=errors, words=words), outcome("b", errors=worse, words=words)
    (ra, a_low, a_high), (rb, b_low, _) = oc.rate([a]), oc.rate([b])
    assert a_low < ra < a_high and b_low < a_high                                  # alone they overlap
    value, low, high = oc.difference([a], [b])
    assert 0 < low < value < high and value == pytest.approx(rb - ra)


def test_seeds_widen_an_interval():
    rng = np.random.default_rng(1)
    words = rng.integers(4, 9, 400)
    same = [outcome("a", s, errors=np.minimum(rng.poisson(0.3, 400), 9), words=words) for s in range(3)]
    apart = [outcome("a", s, errors=np.minimum(rng.poisson(0.1 + 0.2 * s, 400), 9), words=words) for s in range(3)]
    width = lambda o: oc.rate(o)[2] - oc.rate(o)[1]  # noqa: E731
    assert width(apart) > 1.5 * width(same)


def test_other_utterances_are_refused():
    with pytest.raises(ValueError, match="same utterances"):
        oc.difference([outcome()], [outcome(words=(4, 5, 6, 6))])


# ------------------------------------------------------------------------------------------------ verdicts, report

@pytest.mark.parametrize("interval,bounds,expected", [
    ((0, -1, 0.5), (1.0, None), "holds"), ((0, -1, 1.5), (1.0, None), "undecided"), ((2, 1.5, 3), (1.0, None), "does not hold"),
    ((8, 7.7, 8.1), (None, 7.6), "holds"), ((7, 6, 7.5), (None, 7.6), "does not hold"), (None, (1.0, None), "not run")])
def test_a_verdict_needs_the_whole_interval(interval, bounds, expected):
    claim = ex.Claim("p", "t", "a", "b", "wer_points", *bounds)
    assert results.verdict(claim, interval) == expected


def test_a_reason_is_given_only_where_a_claim_does_not_hold(tmp_path):
    e = ex.load(write(tmp_path, SMALL.replace("at_most = 1.0", 'at_most = 1.0\nreason = "too few  steps"')))
    found = {"int8": [outcome("int8")], "float": []}
    assert "- *loses nothing*: too few steps" in results.markdown(e, found | {"gq5": [outcome(errors=(3, 3, 3, 3))]})
    assert "too few" not in results.markdown(e, found | {"gq5": [outcome()]}) and "too few" not in results.markdown(e, found | {"gq5": []})


def test_measures_of_size_and_time():
    found = {"a": [outcome("a", size=650, cycles=80.0)], "b": [outcome("b", size=1000, cycles=100.0)], "f": [outcome("f", cycles=None)]}
    value = lambda m, against="b": results.measured(ex.Claim("p", "t", "a", against, m, 0.0), found)  # noqa: E731
    assert value("bytes_relative")[0] == pytest.approx(-35) and value("cycles_relative")[0] == pytest.approx(-20)
    assert value("compression")[0] == pytest.approx(1000 / 650) and value("cycles_relative", "f") is None and value("bytes_relative", "x") is None


def test_the_pareto_front():
    assert results.front([(3, 1), (1, 5), (2, 2), (2, 9), (4, 1)]) == [1, 2, 0] and results.front([]) == []


def test_the_report_is_made_from_files_alone(tmp_path):
    e = ex.load(write(tmp_path))
    found = {"int8": [outcome("int8", 0), outcome("int8", 1, errors=(0, 1, 1, 0))], "gq5": [outcome(errors=(0, 2, 2, 0), size=800)], "float": []}
    text = results.markdown(e, found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:5]}) == 1                       # every row of a table has its columns
    assert "| int8 | 12.50 (" in text and "| 5 bits | 20.00 (" in text and "+7.50 (" in text and "| float32 | not run |" in text
    assert "## Pareto front" in text and text.index("One: 5 bits") < text.index("One: int8")
    assert "6.40" in text and "15.00, 10.00" in text and "3 of 4 runs" in text and "150 integers" in text
    pytest.importorskip("matplotlib")
    results.write(e, found, tmp_path / "RESULTS.md", tmp_path / "results")
    made = (tmp_path / "RESULTS.md").read_text()
    assert "results/wer_size.svg" in made and (tmp_path / "results" / "wer_cycles.svg").stat().st_size > 1000
    first = (tmp_path / "results" / "wer_size.svg").read_bytes()
    results.write(e, found, tmp_path / "RESULTS.md", tmp_path / "results")
    assert b"<svg" in first and (tmp_path / "results" / "wer_size.svg").read_bytes() == first       # the same results draw the same picture


def test_the_report_in_the_repository_is_of_its_result_files():
    e = ex.load("specs/comparison/all.toml")
    found = oc.load_all(Path("results"), [(r.name, r.seeds) for r in e.rows])
    assert results.markdown(e, found, pictures=("results/wer_size.svg", "results/wer_cycles.svg")) + "\n" == Path("RESULTS.md").read_text()


# ------------------------------------------------------------------------------------------------ scheduling

def script(body):
    return lambda row, seed: [sys.executable, "-c", body, row.name, str(seed)]


def test_runs_are_done_once_and_first_seeds_first(tmp_path):
    e, folder = ex.load(write(tmp_path)), tmp_path / "results"
    order = lambda **k: [(r.name, s) for r, s in runs.missing(e, folder, **k)]  # noqa: E731
    assert order() == [("float", 0), ("int8", 0), ("gq5", 0), ("int8", 1)]
    assert [(r.name, s) for r, s in runs.missing(e.quick(), folder)] == [("int8", 0)] and not e.quick().claims
    oc.save(folder, outcome("int8", 0))
    assert order() == [("float", 0), ("gq5", 0), ("int8", 1)] and order(only=["int8"]) == [("int8", 1)]
    with pytest.raises(runs.RunError, match="gq9"):
        order(only=["gq9"])


def test_a_result_of_another_policy_network_or_length_is_not_counted(tmp_path):
    from attrs import evolve

    e, folder = ex.load(write(tmp_path)), tmp_path / "results"
    done = outcome("int8", 0)
    path = oc.save(folder, evolve(done, start="f", steps=400))
    same = runs.Identity("d", "f", 400, {"sent": 4})
    assert runs.stale(e, folder, lambda row: same) == {} and runs.stale(e, folder, lambda row: None) == {}
    for other, what in ((evolve(same, digest="e"), "policy"), (evolve(same, start="g"), "float network"), (evolve(same, steps=9), "length"),
                        (evolve(same, utterances={"sent": 5}), "utterances")):
        found = runs.stale(e, folder, lambda row, other=other: other)
        assert list(found) == [path] and what in found[path] and (other.short == same.short) == (what == "utterances")
        assert ("int8", 0) in [(r.name, s) for r, s in runs.missing(e, folder, useless=found)]
        assert oc.load_all(folder, [("int8", 2)], found) == {"int8": []}
    assert ("int8", 0) not in [(r.name, s) for r, s in runs.missing(e, folder)] and path.is_file()


def test_rows_that_heard_other_utterances_are_named(tmp_path):
    oc.save(tmp_path, outcome("a"))
    oc.save(tmp_path, outcome("b", words=(4, 5, 6, 6)))
    with pytest.raises(oc.OutcomeError, match=r"a-s0\.json and b-s0\.json did not hear the same"):
        oc.load_all(tmp_path, [("a", 1), ("b", 1)])


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, at_once):
    e = ex.load(write(tmp_path))
    body = f"import sys, pathlib; print('hello'); pathlib.Path({str(tmp_path)!r}, sys.argv[1] + sys.argv[2]).touch(); sys.exit(sys.argv[1] == 'int8')"
    failed = runs.work(runs.missing(e, tmp_path / "none"), script(body), tmp_path / "logs", at_once, quiet=True)
    assert sorted(failed) == ["int8-s0", "int8-s1"]
    assert all((tmp_path / n).exists() for n in ("float0", "int80", "gq50", "int81"))
    assert (tmp_path / "logs" / "gq5-s0.log").read_text() == "hello\n"


def test_an_interrupt_ends_the_children(tmp_path, monkeypatch):
    e, started = ex.load(write(tmp_path)), []
    real = runs.subprocess.Popen
    monkeypatch.setattr(runs.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runs.work(runs.missing(e, tmp_path), script("import time; time.sleep(60)"), tmp_path / "logs", 2, quiet=True)
    assert len(started) == 2 and all(p.poll() is not None for p in started)


def test_a_float_network_that_was_not_given_is_named(tmp_path):
    from nnac.sweep import Recognise

    e = ex.load(write(tmp_path))
    with pytest.raises(runs.RunError, match="--float large=FILE"):
        Recognise(tmp_path, {})(e, ex.Row("x", float="large"), 0, tmp_path)


def test_what_the_command_line_does_not_say_the_policy_says():
    from nnac.compiler import resolve
    from nnac.train.policy import PolicyConfig

    plan = resolve("specs/comparison/gq.nnac")
    assert PolicyConfig.of(plan, steps=None, seed=None).steps == plan.training.total == 400
    eight = resolve("specs/rnnt_int8.nnac")
    assert PolicyConfig.of(eight, steps=None).steps == eight.training.total != PolicyConfig().steps and PolicyConfig.of(eight, steps=7).steps == 7
