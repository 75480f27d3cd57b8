"""A short run of `make bench-robust`: hostile input of every kind ends right, or in one line."""

import json

import pytest

from benchmarks import bench_robust


@pytest.mark.parametrize("kind", bench_robust.KINDS)
def test_nothing_is_bad(kind, capsys):
    assert bench_robust.main([kind, "--share", "0.015", "--seed", "7"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["bad"] == 0 and last["tried"] == last["kinds"][kind]["tried"] >= 1


def test_what_is_bad_is_counted(monkeypatch, capsys):
    def bad(*_):
        raise KeyError("x")

    monkeypatch.setitem(bench_robust.KINDS, "numbers", (3, bad))
    assert bench_robust.main(["numbers"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bad"] == 3
