"""Pruned models on the host: times that say what they are of, kept in files that are checked, in a table."""

import json

import pytest
from attrs import evolve

pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")

from nnac import host
from nnac.host import BATCHES, ENGINES, HostError, Times
from nnac.report import experiments, results
from nnac.report.outcomes import Heard, Outcome
from tests.graphs import random_graph

TIMES = Times("csp75", 0, "d" * 64, 7.5, 0.75, 16, {str(b): {e: 1.5 * b for e in ENGINES} for b in BATCHES}, 1000, 0,
              "a processor")


def test_times_are_read_as_they_were_written_and_checked(tmp_path):
    host.save(tmp_path, TIMES)
    assert host.load_all(tmp_path) == [TIMES]
    file = host.path_of(tmp_path, "csp75", 0)
    for damage, message in ((lambda d: d.pop("ms"), "ms"), (lambda d: d["ms"].pop("8"), "other batches"),
                            (lambda d: d["ms"]["1"].update(torch=0), "other batches"),
                            (lambda d: d.update(nnac_host=9), "version 1")):
        data = json.loads(file.read_text())
        damage(data)
        other = tmp_path / "host-x.json"
        other.write_text(json.dumps(data))
        with pytest.raises(HostError, match=message) as caught:
            host.load(other)
        assert "\n" not in str(caught.value)


def test_the_table_has_a_row_a_model_and_the_report_takes_it(tmp_path):
    lines = host.markdown([TIMES, evolve(TIMES, row="magnitude75", compared=24)], {"csp75": "CSP, 75 %"})
    text = "\n".join(lines)
    assert "| CSP, 75 % | 7.50 | 75% | 1.5 | 1.5 | 1.5 | 12 | 12 | 12 | 96 | 96 | 96 |" in lines
    assert "1,024 integers compared between them, 0 different" in text and "magnitude75" in text
    assert host.markdown([], {}) == []
    file = tmp_path / "e.toml"
    file.write_text('title = "t"\n[[table]]\ntitle = "u"\nrow = [{ name = "a", host = true }]\n')
    report = results.markdown(experiments.load(file), {"a": []}, more=lines)
    assert report.index("## u") < report.index("## Pruned models on the host")


def test_times_of_a_model_that_was_trained_again_since_are_left_out():
    heard = {"sent": Heard(3, 0, 0, 40, "111", "dde")}                               # 7.5 %
    found = {"csp75": [Outcome("csp75", 0, "d", "abc", heard, 1000, 500)]}
    assert host.of_results([TIMES], found) == [TIMES]
    assert host.of_results([TIMES], {"csp75": [evolve(found["csp75"][0], seed=1)]}) == []
    again = {"sent": evolve(heard["sent"], substitutions=2, errors="110")}
    assert host.of_results([TIMES], {"csp75": [evolve(found["csp75"][0], heard=again)]}) == []


def test_zeros_are_those_of_pruned_kernels():
    assert host.zeros(random_graph(0, size="tiny", sparsity=0.8)) == pytest.approx(0.8, abs=0.05)


def test_more_threads_than_one_are_refused(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with pytest.raises(HostError, match="OMP_NUM_THREADS=1"):
        host.one_thread()
