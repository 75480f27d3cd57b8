"""Sweeps and their report: nothing done twice, statistics checked by hand, verdicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from nnac import host
from nnac.report import experiments as ex
from nnac.report import outcomes as oc
from nnac.report import results, runs
from nnac.report import statistics as st
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
    (("seeds = 2", "seeds = 0"), "seeds"), (('name = "gq5"', 'name = "int8"'), "two rows"),
                                            (("quick = true", "quik = true"), "quik"),
    (('row = "gq5"', 'row = "gq6"'), "no row is called `gq6`"), (("wer_points", "wer"), "no measure `wer`"),
                                            (("at_most = 1.0", ""), "at_most"),
    (("title = \"A", "title = A"), "e.toml"), (("at_most = 1.0", "at_most = 1.0\nindifference = 0.2"),
        "or else indifference"), (("at_most = 1.0", "indifference = 0"), "indifference"),
    (('name = "float"', 'name = "a/b"'), "names files"), (('title = "One"', ""), "title"),
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


def test_every_row_names_its_policy_and_means_the_same_run_in_the_main_table_as_where_it_is_decided():
    from nnac.compiler import resolve

    def rows(path):
        e = ex.load(path)
        return {r.name: (resolve(p, r.policy_name, **{k: str(v) for k, v in r.define.items()}).digest, r.steps)
                for r in e.rows if (p := e.policy_path(r)) is not None}
    found = {path.stem: rows(path) for path in sorted(Path("specs/comparison").glob("*.toml"))}
    both = found["all"].keys() & found["decide"].keys()
    assert len(both) >= 8 and all(found["all"][name] == found["decide"][name] for name in both)


def test_the_second_condition_hears_the_models_of_the_first_and_pairs_of_aat_differ_in_what_training_sees():
    """Models are found by row, policy and steps."""
    decide, noise, aat = (ex.load(f"specs/comparison/{name}.toml") for name in ("decide", "noise", "aat"))
    trained = {r.name: r for r in decide.rows}
    for row in noise.rows:
        if row.policy is not None:
            other = trained[row.name]
            assert (row.policy, row.policy_name, row.define, row.steps, row.seeds) == (
                other.policy, other.policy_name, other.define, other.steps, other.seeds)
    rows = {r.name: r for r in aat.rows}
    for claim in aat.claims[:4]:
        ours, theirs = rows[claim.row], rows[claim.against]
        assert evolve(theirs, name=ours.name, label=ours.label, weight_only=False) == ours and theirs.weight_only


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
    assert (h.substitutions, h.deletions, h.insertions, h.words, h.errors, h.lengths) == (1, 0, 2, 5, "111",
        "320") and h.rate == 60.0


def test_rates_and_differences_are_those_of_the_counts():
    a, b = outcome("a", errors=(0, 1, 2, 0)), outcome("b", errors=(1, 1, 3, 0))
    assert st.rate([a]).value == pytest.approx(100 * 3 / 20)
    assert st.difference([a], [b]).value == pytest.approx(10.0)
    assert st.difference([a], [b], relative=True).value == pytest.approx(200 / 3)
    assert st.difference([a], [a]).utterances == st.Interval(0, 0, 0, 0, 0)
    assert st.rate([a, outcome("a", 1, errors=(2, 1, 2, 0))]).value == pytest.approx(100 * 4 / 20)


def test_pairing_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(0)
    words = rng.integers(4, 9, 800)
    errors = np.minimum(rng.poisson(0.4, 800), 9)
    worse = np.minimum(errors + (rng.random(800) < 0.03), 9)
    a, b = outcome("a", errors=errors, words=words), outcome("b", errors=worse, words=words)
    of_a, of_b = st.rate([a]).utterances, st.rate([b]).utterances
    assert of_a.low < of_a.value < of_a.high and of_b.low < of_a.high              # alone they overlap
    d = st.difference([a], [b]).utterances
    assert 0 < d.low < d.value < d.high and d.value == pytest.approx(of_b.value - of_a.value)


def test_seeds_widen_an_interval():
    rng = np.random.default_rng(1)
    words = rng.integers(4, 9, 400)
    same = [outcome("a", s, errors=np.minimum(rng.poisson(0.3, 400), 9), words=words) for s in range(3)]
    apart = [outcome("a", s, errors=np.minimum(rng.poisson(0.1 + 0.2 * s, 400), 9), words=words) for s in range(3)]
    assert st.rate(apart).utterances.width > 1.5 * st.rate(same).utterances.width


def test_the_same_seeds_are_drawn_together_and_others_apart():
    """Rows that share the luck of each seed: paired, the luck cancels; were their seeds drawn apart, it would not."""
    rng = np.random.default_rng(2)
    words = rng.integers(4, 9, 400)
    lucks = [np.minimum(rng.poisson(0.1 + 0.3 * s, 400), 8) for s in range(3)]
    a = [outcome("a", s, errors=lucks[s], words=words) for s in range(3)]
    b = [outcome("b", s, errors=lucks[s] + (rng.random(400) < 0.05), words=words) for s in range(3)]
    other = [outcome("b", s + 7, errors=[oc.DIGITS.index(c) for c in o.heard["sent"].errors], words=words)
             for s, o in enumerate(b)]
    together, apart = st.difference(a, b).utterances, st.difference(a, other).utterances
    assert together.value == pytest.approx(apart.value) and apart.width > 4 * together.width


def test_speakers_are_clusters():
    """Two speakers with errors of their own: over utterances the interval is narrow, over speakers it says how little
    two people tell."""
    words = np.full(400, 5)
    errors = np.repeat([0, 1], 200)
    voices = ["en+anna"] * 200 + ["en+bob"] * 200
    pack = lambda v: "".join(oc.DIGITS[x] for x in v)  # noqa: E731
    heard = oc.Heard(200, 0, 0, 2000, pack(errors), pack(words), oc.packed_speakers(voices))
    o = oc.Outcome("a", 0, "d", "abc", {"sent": heard}, 1000, 10)
    r = st.rate([o])
    assert r.utterances.high - r.utterances.low < 3 and r.speakers is not None
    assert (r.speakers.low, r.speakers.high) == (0.0, 20.0) and r.deciding is r.speakers
    assert heard.speaker_names[:1] + heard.speaker_names[-1:] == ["00", "01"]
    # the same accent is not the same person, the same variant is
    assert oc.packed_speakers(["en+bob", "sco+bob", "en+al"]) == "010100" and oc.packed_speakers([]) == ""


def test_two_splits_do_not_share_speakers():
    heard = oc.Heard(0, 0, 0, 10, "00", "55", "0001")
    sample = st.Sample.of([oc.Outcome("a", 0, "d", "abc", {"sent": heard, "voice": heard}, 1, 1)])
    assert sample.speakers is not None and sorted(sample.speakers.tolist()) == [0, 1, 2, 3]


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say():
    """Paired differences of Poisson errors with a known mean: 95 % intervals miss it in about 5 % of 200 draws."""
    missed = 0
    for trial in range(200):
        rng = np.random.default_rng([3, trial])
        words = np.full(300, 6)
        base = rng.poisson(0.3, 300)
        more = base + (rng.random(300) < 0.06)                                     # + 0.06 errors on 6 words: 1 point
        i = st.difference([outcome("a", errors=base, words=words)], [outcome("b", errors=more, words=words)]).utterances
        missed += not i.low <= 1.0 <= i.high
    # binomial(200, 0.05): mean 10, sd 3.1
    assert 2 <= missed <= 22


def test_the_spread_finds_the_noise_that_was_put_in():
    """Known components: each utterance's own difference (sd 0.5 errors), seed by utterance (sd 0.8), each run's (0.02
    errors an utterance)."""
    rng = np.random.default_rng(4)
    utterances, seeds, words = 4000, 6, np.full(4000, 6)
    own, run = rng.normal(0.2, 0.5, utterances), rng.normal(0, 0.02, seeds)
    d = own + run[:, None] + rng.normal(0, 0.8, (seeds, utterances))
    s = _spread_of(d, words)
    unit = 100 / 6
    assert s.value == pytest.approx(unit * d.mean()) and s.utterance == pytest.approx(unit * 0.5, rel=0.1)
    assert s.interaction == pytest.approx(unit * 0.8, rel=0.05) and s.seed == pytest.approx(unit * run.std(ddof=1),
        rel=0.4)
    assert s.error(4000, 6) < s.error(1000, 6) < s.error(1000, 3) and 0 < s.equivalence(0.5, 4000, 6) <= 1
    assert s.decides(s.value, 4000, 6) == pytest.approx(0.05) and s.decides(-5, 4000, 6) > 0.99
    assert s.detectable(4000, 6) == pytest.approx(2.486 * s.error(4000, 6), rel=1e-3)


def _spread_of(d, words):
    """`statistics.spread` on real-valued differences: it only ever sees errors, so a row of zeros stands against
    them."""
    class Row(list):
        pass

    sample = lambda errors: st.Sample(errors, words.astype(float), None, tuple(range(len(errors))))  # noqa: E731
    kept, st.Sample.of = st.Sample.of, classmethod(lambda cls, outcomes: sample(outcomes[0]))
    try:
        return st.spread(Row([np.zeros_like(d)]), Row([d]))
    finally:
        st.Sample.of = kept


def test_one_seed_tells_no_components():
    assert st.spread([outcome("a")], [outcome("b")]) is None


def test_other_utterances_are_refused():
    with pytest.raises(ValueError, match="same utterances"):
        st.difference([outcome()], [outcome(words=(4, 5, 6, 6))])


# ------------------------------------------------------------------------------------------------ verdicts, report

@pytest.mark.parametrize("limits,bounds,expected", [
    ((0, -1, 0.5), (1.0, None), "holds"), ((0, -1, 1.5), (1.0, None), "undecided"),
                                                    ((2, 1.5, 3), (1.0, None), "does not hold"),
    ((8, 7.7, 8.1), (None, 7.6), "holds"), ((7, 6, 7.5), (None, 7.6), "does not hold"), (None, (1.0, None), "not run")])
def test_a_verdict_needs_the_whole_interval(limits, bounds, expected):
    assert st.verdict(limits and st.Estimate(st.Interval.between(*limits)), *bounds) == expected


@pytest.mark.parametrize("limits,expected", [
    ((-1, -1.5, -0.4), "better"), ((-0.1, -0.15, -0.05), "better (by less than 0.2)"),
                                             ((0.0, -0.1, 0.1), "no difference beyond 0.2"),
    ((0.1, -0.1, 0.3), "undecided"), ((0.1, 0.05, 0.15), "worse (by less than 0.2)"), ((1, 0.5, 1.5), "worse"),
                                             (None, "not run")])
def test_with_a_margin_nothing_can_be_shown_to_be_nothing(limits, expected):
    assert st.verdict(limits and st.Estimate(st.Interval.between(*limits)), None, None, 0.2) == expected


def test_the_wider_interval_decides():
    narrow, wide = st.Interval.between(-1, -1.5, -0.5), st.Interval.between(-1, -2.5, 0.5)
    assert st.verdict(st.Estimate(narrow), 0.0, None) == "holds" and st.verdict(st.Estimate(narrow, wide), 0.0,
                                                                                None) == "undecided"


def test_verdicts_are_one_sided():
    """A limit of 95 % on one side: the two-sided interval of 90 %."""
    i = st.Interval.of(0.0, np.linspace(-1, 1, 20001))
    assert (i.low, i.least, i.most, i.high) == pytest.approx((-0.95, -0.9, 0.9, 0.95), abs=1e-3)


def test_the_power_table_is_printed_from_the_result_files(capsys):
    from nnac.cli import main

    assert main(["sweep", "specs/comparison/all.toml", "--power"]) == 0
    text = capsys.readouterr().out
    assert "MRACos helps" in text and "no difference beyond 0.2" in text and "12,000 x 12" in text
    assert "bytes" not in text.split("GQ, arXiv")[1].split("\n")[0]


def test_a_reason_is_given_only_where_a_claim_does_not_hold(tmp_path):
    e = ex.load(write(tmp_path, SMALL.replace("at_most = 1.0", 'at_most = 1.0\nreason = "too few  steps"')))
    found = {"int8": [outcome("int8")], "float": []}
    assert "- *loses nothing*: too few steps" in results.markdown(e, found | {"gq5": [outcome(errors=(3, 3, 3, 3))]})
    assert "too few" not in results.markdown(e, found | {"gq5": [outcome()]}) and "too few" not in results.markdown(e,
        found | {"gq5": []})


@pytest.mark.parametrize("name,folder", [("all", "results"), *((n, f"results/{n}") for n in ("decide", "noise", "aat",
                                                                                              "papers", "fusion",
                                                                                              "sizes"))])
def test_every_claim_that_is_not_decided_or_does_not_hold_says_why(name, folder):
    e = ex.load(f"specs/comparison/{name}.toml")
    found = oc.load_all(Path(folder), [(r.name, r.seeds) for r in e.rows])
    judged = {c.text: results.judged(c, results.measured(c, found, e.search)) for c in e.claims}
    assert "not run" not in judged.values()
    assert not [c.text for c in e.claims if judged[c.text] in ("undecided", "does not hold") and not c.reason]


def test_measures_of_size_and_time():
    found = {"a": [outcome("a", size=650, cycles=80.0)], "b": [outcome("b", size=1000, cycles=100.0)],
             "f": [outcome("f", cycles=None)]}
    value = lambda m, against="b": results.measured(ex.Claim("p", "t", "a", against, m, 0.0), found)  # noqa: E731
    assert value("bytes_relative").value == pytest.approx(-35) and value("cycles_relative").value == pytest.approx(-20)
    assert value("compression").value == pytest.approx(1000 / 650) and value("cycles_relative", "f") is None
    assert value("bytes_relative", "x") is None


def test_the_pareto_front():
    assert results.front([(3, 1), (1, 5), (2, 2), (2, 9), (4, 1)]) == [1, 2, 0] and results.front([]) == []


def test_the_report_is_made_from_files_alone(tmp_path):
    e = ex.load(write(tmp_path))
    found = {"int8": [outcome("int8", 0), outcome("int8", 1, errors=(0, 1, 1, 0))],
             "gq5": [outcome(errors=(0, 2, 2, 0), size=800)], "float": []}
    text = results.markdown(e, found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    # every row of a table has its columns
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert ("| int8 | 12.50 (" in text and "| 5 bits | 20.00 (" in text and "+7.50 (" in text
            and "| float32 | not run |" in text)
    assert "## Pareto front" in text and text.index("One: 5 bits") < text.index("One: int8")
    assert "6.40" in text and "15.00, 10.00" in text and "3 of 4 runs" in text and "150 integers" in text
    pytest.importorskip("matplotlib")
    results.write(e, found, tmp_path / "RESULTS.md", tmp_path / "results")
    made = (tmp_path / "RESULTS.md").read_text()
    assert "results/wer_size.svg" in made and (tmp_path / "results" / "wer_cycles.svg").stat().st_size > 1000
    first = (tmp_path / "results" / "wer_size.svg").read_bytes()
    results.write(e, found, tmp_path / "RESULTS.md", tmp_path / "results")
    # the same results draw the same picture
    assert b"<svg" in first and (tmp_path / "results" / "wer_size.svg").read_bytes() == first


def test_a_table_of_another_family_is_shown_beside_what_others_have_for_as_many_bytes_and_cycles(tmp_path):
    other = """
[[table]]
title = "Two"
against = "slow"
beside = true
row = [{ name = "slow", label = "other", policy = "p.nnac" }, { name = "tiny", policy = "p.nnac" }]
"""
    e = ex.load(write(tmp_path, SMALL.replace("\n[[claim]]", other + "\n[[claim]]")))
    # a step of `slow` is four of the others': 100 cycles in 240 ms are a quarter of 100 in 60
    slow = evolve(outcome("slow", errors=(0, 1, 0, 0), size=990, cycles=400.0), frame_ms=240.0)
    found = {"int8": [outcome("int8", errors=(0, 1, 1, 0))], "gq5": [outcome(size=980, cycles=103.0)], "float": [],
             "slow": [slow], "tiny": [outcome("tiny", size=10, cycles=1.0)]}
    text = results.markdown(e, found)
    # 1,000 bytes are 1 % more than 990, which is no more; 103 cycles are
    assert "| other | 5.00 | 1 | int8 (1) | 10.00 | 0.00 | int8 (0.00) | 10.00 |" in text
    assert "| tiny | 15.00 | 0 | none |  | 0.00 | none |  |" in text and "| 5 bits |" in text
    alone = results.markdown(e, found | {"slow": [], "tiny": []})
    assert "Beside the other tables" in text and "Beside the other tables" not in alone
    assert slow.cycles_per_second == pytest.approx(400 / 0.24) and outcome(cycles=None).cycles_per_second is None


@pytest.mark.parametrize("name,folder,report,pictures", [
    ("all", "results", "RESULTS.md", ("results/wer_size.svg", "results/wer_cycles.svg")),
    ("fusion", "results/fusion", "results/fusion/RESULTS.md", ("wer_beam.svg",)),
    *((n, f"results/{n}", f"results/{n}/RESULTS.md", ("wer_size.svg", "wer_cycles.svg")) for n in ("decide", "sizes"))])
def test_the_report_in_the_repository_is_of_its_result_files(name, folder, report, pictures):
    e = ex.load(f"specs/comparison/{name}.toml")
    found = oc.load_all(Path(folder), [(r.name, r.seeds) for r in e.rows])
    marked = {r.name: r.shown for r in e.rows if r.host}
    timed = host.markdown([t for t in host.of_results(host.load_all(Path(folder)), found) if t.row in marked], marked)
    assert results.markdown(e, found, pictures=pictures, more=timed) + "\n" == Path(report).read_text()


# ------------------------------------------------------------------------------------------------ searches

def fused(row, seed, plain, better, cycles=100.0):
    """A run of two searches on five utterances of ten words, by two speakers."""
    def heard(errors):
        return {"home": oc.Heard(sum(errors), 0, 0, 50, "".join(map(str, errors)), "aaaaa", "0001000101")}
    searched = tuple(oc.Searched(f, 8, o, heard(e), cycles, "1000 2000 3000 4000 5000", "10 20 30 40 50", 10)
                     for f, o, e in (("none", "", plain), ("density_ratio", "--lm-scale 0.3", better)))
    return oc.Outcome(row, seed, "d", "abc", heard(plain), 1000, 500, 600, 50.0, 60.0, 10**6, searched=searched,
                      languages={"lm": (100, 60), "source_lm": (100, 40)})


FUSED = """
title = "Searched"
splits = ["home"]
[search]
domain = "home"
beams = [8]
[[table]]
title = "One"
row = [{ name = "a" }, { name = "b", policy = "p.nnac", language = "p.nnac", seeds = 2 }]
[[claim]]
paper = "P"
text = "saves"
row = "b"
against = "b"
measure = "fusion_points"
at_most = -1.5
[[claim]]
paper = "P"
text = "keeps"
row = "b"
against = "a"
measure = "fusion_kept"
at_least = 80.0
"""


def test_what_fusion_saves_is_paired_and_its_share_is_of_what_it_saves_the_other(tmp_path):
    """a: 20 errors of 50 words, 10 with fusion; b: 21 and 12, of two seeds alike: 18 points of 20, 90 %."""
    e = ex.load(write(tmp_path, FUSED))
    found = {"a": [fused("a", 0, (4, 4, 4, 4, 4), (2, 2, 2, 2, 2))],
             "b": [fused("b", s, (5, 4, 4, 4, 4), (3, 3, 2, 2, 2)) for s in (0, 1)]}
    points, share = (results.measured(c, found, e.search) for c in e.claims)
    assert points.value == pytest.approx(-18) and -20 <= points.utterances.low <= points.utterances.high <= -10
    assert share.value == pytest.approx(90) and share.utterances.high <= 100 + 1e-9 and share.speakers is not None
    assert results.judged(e.claims[0], points) == "holds"
    text = results.markdown(e, found)
    assert "| b | 1,200 | 200 | 1 | 4.00 | 8.00 | 2 |" in text, "1,000 weights and 500 bytes, and the language models'"
    line = next(x for x in text.splitlines() if x.startswith("| b | density ratio | 8 | 24.00"))
    assert "-18.00 (" in line and "| 100 | 0.00167 | 5.00 (" in line and line.count("|") == text.splitlines()[
        text.splitlines().index(line) - 1].count("|")
    assert "no fusion" in text and results.measured(e.claims[1], {"b": found["b"]}, e.search) is None
    assert oc.load(oc.save(tmp_path, found["a"][0])) == found["a"][0]
    nothing = [fused("a", 0, (2, 2, 2, 2, 2), (2, 2, 2, 2, 2))]
    assert results.measured(e.claims[1], found | {"a": nothing}, e.search).value == 0


def test_another_commands_report_is_a_chapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "R.md").write_text("# Later\n\ntext # 1\n\n![x](x.svg)\n")
    path = write(tmp_path, 'parts = ["part/R.md", "absent.md"]\n' + SMALL)
    text = results.markdown(ex.load(path), {})
    assert text.endswith("## Later\n\ntext # 1\n\n![x](part/x.svg)\n")


# ------------------------------------------------------------------------------------------------ scheduling

def script(body):
    return lambda row, seed: [sys.executable, "-c", body, row.name, str(seed)]


def test_runs_are_done_once_and_first_seeds_first(tmp_path):
    e, folder = ex.load(write(tmp_path)), tmp_path / "results"
    order = lambda **k: [(r.name, s) for r, s in runs.missing(e, folder, **k)]  # noqa: E731
    assert order() == [("float", 0), ("int8", 0), ("gq5", 0), ("int8", 1)]
    assert [(r.name, s) for r, s in runs.missing(e.quick(), folder)] == [("int8", 0)] and not e.quick().claims
    oc.save(folder, outcome("int8", 0))
    assert order() == [("float", 0), ("gq5", 0), ("int8", 1)] and order(only=["int8"]) == [
        ("int8", 1)] and order(only=["*5", "fl*"]) == [("float", 0), ("gq5", 0)]
    with pytest.raises(runs.RunError, match="gq9"):
        order(only=["gq9"])


def test_a_result_of_another_policy_network_or_length_is_not_counted(tmp_path):
    e, folder = ex.load(write(tmp_path)), tmp_path / "results"
    done = outcome("int8", 0)
    path = oc.save(folder, evolve(done, start="f", steps=400))
    same = runs.Identity("d", "f", 400, {"sent": 4})
    assert runs.stale(e, folder, lambda row, seed: same) == {} and runs.stale(e, folder, lambda row, seed: None) == {}
    for other, what in ((evolve(same, digest="e"), "policy"), (evolve(same, start="g"), "float network"),
                        (evolve(same, steps=9), "length"),
                        (evolve(same, utterances={"sent": 5}), "utterances")):
        found = runs.stale(e, folder, lambda row, seed, other=other: other)
        assert list(found) == [path] and what in found[path] and (other.short == same.short) == (what == "utterances")
        assert ("int8", 0) in [(r.name, s) for r, s in runs.missing(e, folder, useless=found)]
        assert oc.load_all(folder, [("int8", 2)], found) == {"int8": []}
    assert ("int8", 0) not in [(r.name, s) for r, s in runs.missing(e, folder)] and path.is_file()


def test_a_run_that_another_comparison_has_made_is_taken_under_the_rows_own_name_and_any_other_is_not(tmp_path):
    e, mine, theirs = ex.load(write(tmp_path)), tmp_path / "results", tmp_path / "theirs"
    here = {"int8": runs.Identity("d", "f", 400, {"sent": 4}), "gq5": runs.Identity("e", "f", 400, {"sent": 4})}
    wanted = lambda row, seed: here.get(row.name)  # noqa: E731
    jobs = runs.missing(e, mine)
    with pytest.raises(runs.RunError, match="theirs: no folder of results"):
        runs.taken(jobs, mine, [theirs], wanted)
    oc.save(theirs, evolve(outcome("called-otherwise", 1), start="f", steps=400))    # seed 1 of int8's plan
    oc.save(theirs, evolve(outcome("gq5", 0), start="f", steps=400))                 # gq5 by name alone: int8's plan
    oc.save(theirs, evolve(outcome("longer", 0), start="f", steps=500))
    (theirs / "host-gq5-s0.json").write_text("{}")                                   # what else lies there
    copied = runs.taken(jobs, mine, [theirs], wanted)
    assert copied == [mine / "int8-s0.json", mine / "int8-s1.json"]
    assert [oc.load(p) for p in copied] == [evolve(outcome("int8", s), start="f", steps=400) for s in (0, 1)]
    assert [(r.name, s) for r, s in runs.missing(e, mine)] == [("float", 0), ("gq5", 0)]
    assert runs.stale(e, mine, wanted) == {}


def test_rows_that_heard_other_utterances_are_named(tmp_path):
    oc.save(tmp_path, outcome("a"))
    oc.save(tmp_path, outcome("b", words=(4, 5, 6, 6)))
    with pytest.raises(oc.OutcomeError, match=r"a-s0\.json and b-s0\.json did not hear the same"):
        oc.load_all(tmp_path, [("a", 1), ("b", 1)])


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, at_once):
    e = ex.load(write(tmp_path))
    body = (f"import sys, pathlib; print('hello'); pathlib.Path({str(tmp_path)!r}, sys.argv[1] + "
            f"sys.argv[2]).touch(); sys.exit(sys.argv[1] == 'int8')")
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


def test_of_several_float_networks_of_a_name_each_seed_has_its_own(tmp_path):
    """Given three times under one name, none is overridden; seeds beyond them begin again at the first."""
    from argparse import Namespace

    from nnac.commands.sweep import _networks
    from nnac.sweep import Recognise

    files = [tmp_path / f"{n}.nnc" for n in "abcd"]
    for path in files:
        path.write_bytes(b"x")
    a, b, c, large = files
    given = _networks(Namespace(corpus="c", floats=[str(a), str(b), f"large={large}", str(c)]))
    assert given == {"": [a, b, c], "large": [large]}
    made = Recognise(tmp_path, given)
    assert [made._start("", s) for s in range(5)] == [a, b, c, a, b]
    assert {made._start("large", s) for s in range(3)} == {large} and made._start("small", 0) is None


def test_a_policy_is_resolved_once_for_all_seeds_that_start_from_the_same_networks(tmp_path, monkeypatch):
    from nnac.sweep import Recognise

    made = Recognise(tmp_path, {"": [Path("a"), Path("b"), Path("c")], "large": [Path("d"), Path("e")]})
    begins = lambda row, seed: (row.name, made._start(row.float, seed))  # noqa: E731
    asked = []
    monkeypatch.setattr(Recognise, "identity", lambda self, e, row, seed: asked.append(row) or begins(row, seed))
    rows = ex.Row("x", define={"bits": 4}), ex.Row("y", float="large")
    identity = made.identities(ex.load(write(tmp_path)))
    assert all(identity(row, seed) == begins(row, seed) for row in rows for seed in range(20))
    assert len(asked) == 2 * 6                                                       # three and two come round in six


def test_a_claim_across_networks_says_when_one_of_them_stands_alone(tmp_path):
    e = ex.load(write(tmp_path))
    several = lambda row, *starts: [evolve(outcome(row, s), start=start) for s, start in enumerate(starts)]  # noqa: E731
    for ours, theirs, alone in ((("f", "f"), ("f", "f"), False), (("f", "f"), ("g", "g"), True),
                                (("f", "h"), ("g", "g"), True), (("f", "h"), ("g", "i"), False),
                                (("", ""), ("g", "i"), False)):
        found = {"gq5": several("gq5", *ours), "int8": several("int8", *theirs), "float": []}
        shown = results.markdown(e, found)
        assert ("of these networks |" in shown) == ("*Of these networks*" in shown) == alone, (ours, theirs)


def test_what_the_command_line_does_not_say_the_policy_says():
    from nnac.compiler import resolve
    from nnac.train.policy import PolicyConfig

    plan = resolve("specs/comparison/gq.nnac")
    assert PolicyConfig.of(plan, steps=None, seed=None).steps == plan.training.total == 400
    eight = resolve("specs/rnnt_int8.nnac")
    assert PolicyConfig.of(eight,
        steps=None).steps == eight.training.total != PolicyConfig().steps and PolicyConfig.of(eight, steps=7).steps == 7


def test_the_loss_of_each_utterance_is_that_of_it_alone():
    import torch

    from nnac.model.rnnt_torch import Rnnt, RnntConfig
    from nnac.speech.corpus import Recipe, Split
    from nnac.speech.features import Normalisation
    from nnac.speech.tokens import LETTERS
    from nnac.train.evaluate import losses
    from nnac.train.rnnt_loss import rnnt_loss

    torch.manual_seed(0)
    model = Rnnt(RnntConfig(hidden=16, prediction=12, joint=16, embedding=8, vocabulary=LETTERS.count)).eval()
    rng = np.random.default_rng(0)
    texts = ["one two", "a", "seven lights on", ""]
    features = [rng.standard_normal((n, 40)).astype(np.float16) for n in (60, 24, 90, 42)]
    split = Split("sent", Recipe(), features, texts, ["en+anna"] * 4, [0.6, 0.24, 0.9, 0.42])
    normalisation = Normalisation(np.zeros(40, np.float32), np.ones(40, np.float32))
    found = losses(model, split, normalisation, LETTERS, frames=200)
    for x, text, value in zip(features, texts, found, strict=True):
        ids = torch.tensor(LETTERS.encode(text), dtype=torch.long)[:, None]
        with torch.no_grad():
            logits, lengths = model(torch.from_numpy(x.astype(np.float32))[:, None], torch.tensor([len(x)]), ids)
        assert value == pytest.approx(float(rnnt_loss(logits, ids.T, lengths, torch.tensor([len(ids)]),
                                                      reduction="sum")), rel=1e-4)
    assert len(set(found)) == 4


def test_a_table_may_be_compared_with_a_row_of_its_own(tmp_path):
    """A family of its own: its differences are from its own row, and it stays out of the Pareto front."""
    own = SMALL.replace('note = "A note."', 'note = "A note."\nagainst = "float"')
    e = ex.load(write(tmp_path, own))
    found = {"float": [outcome("float", errors=(0, 1, 0, 0))], "int8": [outcome("int8")], "gq5": [outcome()]}
    shown = results.markdown(e, found)
    assert "| against float32 |" in shown and "Pareto" not in shown
    with pytest.raises(ex.ExperimentError, match="table `One`: `against` names no row of its own: `nothing`"):
        ex.load(write(tmp_path, own.replace('against = "float"', 'against = "nothing"', 1)))


def test_a_list_with_float_networks_has_what_would_be_done_again(tmp_path, monkeypatch, capsys):
    from argparse import Namespace

    from nnac.commands import sweep

    oc.save(tmp_path, outcome("int8", 0))
    known = runs.Identity.of(outcome("int8", 0))
    longer = evolve(known, steps=known.steps + 1)
    made = Namespace(identities=lambda e: lambda row, seed: longer if row.policy else None)
    monkeypatch.setattr(sweep, "_recognise", lambda *_: made)
    args = Namespace(experiments=str(write(tmp_path)), results=str(tmp_path), quick=False, list=True, only=["int8"])
    for floats, first in (([], "int8 seed 1"), (["demo"], "int8 seed 0 (another length of training)")):
        args.floats = floats
        assert sweep.run(args) == 0 and capsys.readouterr().out.splitlines()[0] == first
