"""The sparse benchmark: crossovers are where they are, turns measure all forms, and a quick run prints every figure."""

import json

import pytest

pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")

from benchmarks.bench_sparse import crossover, least, main


def rows(ratios):
    return [dict(inverse=i, seconds={"fused": 1.0, "dense torch": r, "dense numpy": 9.0, "held torch": 2 * r})
            for i, r in ratios.items()]


def test_the_crossover_lies_where_the_ratio_passes_one():
    """Twice as fast at 1/16, half as fast at 1/4: by logarithms, as fast at 1/8."""
    assert crossover(rows({16: 2.0, 4: 0.5}), "fused") == pytest.approx(1 / 8)
    assert crossover(rows({16: 0.5, 4: 0.25}), "fused") is None
    assert crossover(rows({16: 3.0, 4: 2.0}), "fused") == 1 / 4, "at least that"
    assert crossover(rows({16: 3.0}), "paper") is None
    assert crossover(rows({16: 2.0, 4: 0.5}), "fused", "AVX2") == pytest.approx(1 / 4), "a slower dense one"


def test_all_forms_take_turns():
    order: list[str] = []
    found = least({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0)
    assert "".join(order) == "ab" + "ab" + 2 * "aabb", "once at first, then in turns; a short one warms its own caches"
    assert set(found) == {"a", "b"} and all(0 <= t < 1 for t in found.values())


def test_a_quick_run_ends_with_one_line_of_figures(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main(["--quick", "--parts", "cross,memory", "--sizes", "64", "--plot", str(tmp_path / "x.svg")])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures["fused_over_dense"]) == {"64/64", "64/8", "64/1"} and figures["memory_ratio"] > 20
    assert set(figures["fused_over_dense_avx2"]) == set(figures["crossover_density_avx2"]) == {"64/64", "64/8", "64/1"}
    assert figures["fused_over_paper"] and "crossover_density" in figures and (tmp_path / "x.svg").stat().st_size > 1000
