"""Matrix files: Matrix Market and the challenge's, written, read back, and refused in one line."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnac.cli import main

pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")

from scipy import io

from nnac.graphblas.challenge import ChallengeError, layer_file, read_layer, write_layer
from nnac.graphblas.matrices import Entries, MatrixError, read_matrix, write_matrix
from nnac.model.sparse_dnn import digest, topology

FORMS = ("tsv", "tsv.gz", "mtx", "mtx.gz")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9), cols=st.integers(1, 9), form=st.sampled_from(FORMS))
def test_what_is_written_is_read_again_bit_for_bit(tmp_path_factory, seed, rows, cols, form):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, cols)) * (rng.random((rows, cols)) < 0.4)
    path = str(tmp_path_factory.mktemp("m") / f"w.{form}")
    write_matrix(path, Entries.of(w))
    assert (read_matrix(path, w.shape).dense() == w).all()
    if "mtx" in form:
        assert (io.mmread(path).toarray() == w).all() and read_matrix(path).shape == w.shape


def test_other_programs_files_are_read(tmp_path):
    """Comments, symmetry and patterns, as the Matrix Market collection has them."""
    file = tmp_path / "a.mtx"
    file.write_text("%%MatrixMarket matrix coordinate pattern symmetric\n% a triangle\n3 3 3\n2 1\n3 1\n3 2\n")
    assert (read_matrix(str(file)).dense() == 1 - np.eye(3)).all()


HEAD = "%%MatrixMarket matrix coordinate real general\n"
BAD = {
    "twice.mtx": (HEAD + "2 2 2\n1 2 5\n1 2 6\n", r"entry \(1, 2\) is there twice"),
    "outside.mtx": (HEAD + "2 2 1\n3 1 5\n", "no Matrix Market file|outside 2 x 2"),
    "zero.mtx": (HEAD + "2 2 1\n0 1 5\n", "no Matrix Market file|outside 2 x 2"),
    "size.mtx": (HEAD + "2 3 1\n1 1 5\n", "a matrix of 2 x 3, not 2 x 2"),
    "terabytes.mtx": (HEAD + "2 2 1000000000000\n1 1 5\n", "no Matrix Market file .its head announces"),
    "digits.mtx": (HEAD + f"2 2 {'9' * 5000}\n1 1 5\n", "no Matrix Market file .its head announces"),
    "short.mtx": (HEAD + "2 2 2\n1 1 5\n", "no Matrix Market file"),
    "words.mtx": (HEAD + "2 2 1\n1 x 5\n", "no Matrix Market file"),
    "dense.mtx": ("%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n", "a sparse one is `coordinate`"),
    "nothing.mtx": ("", "no Matrix Market file"),
    "nan.mtx": (HEAD + "2 2 1\n1 1 nan\n", "entry 1 is no number"),
    "twice.tsv": ("1\t2\t5\n2\t2\t1\n1\t2\t6\n", r"entry \(1, 2\) is there twice"),
    "outside.tsv": ("1\t1\t5\n3\t1\t5\n", r"entry 2 is \(3, 1\), outside 2 x 2"),
    "zero.tsv": ("0\t1\t5\n", r"entry 1 is \(0, 1\), outside 2 x 2"),
    "half.tsv": ("1.5\t1\t5\n", "whole numbers"),
    "two.tsv": ("1\t1\n", "not 2 numbers"),
    "words.tsv": ("1\tx\t5\n", "all numbers"),
    "no.gz.tsv.gz": ("1\t1\t1\n", "all numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(name, tmp_path):
    text, message = BAD[name]
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(MatrixError, match=message) as caught:
        read_matrix(str(file), (2, 2))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(file))


def test_no_file_is_one_line():
    for name in ("absent.mtx", "absent.tsv"):
        with pytest.raises(MatrixError, match="no such file"):
            read_matrix(name)


@pytest.mark.parametrize("form", FORMS)
def test_layers_of_the_challenge_come_back_from_its_files(form, tmp_path):
    for k, layer in enumerate(topology(64, 5)):
        write_layer(layer_file(str(tmp_path), 64, k + 1, form), layer)
        assert digest(read_layer(str(tmp_path), 64, k + 1)) == digest(layer)
    if form == "tsv":
        assert (tmp_path / "n64-l1.tsv").read_text().splitlines()[0] == "1\t1\t0.0625"


def test_files_that_are_no_layer_are_one_line(tmp_path):
    layer = next(topology(64, 1))
    rows, cols = np.repeat(np.arange(64), 32), layer.ravel()

    def refused(message, values, keep=slice(None)):
        write_matrix(str(tmp_path / "n64-l1.tsv"), Entries(rows[keep], cols[keep], values[keep], (64, 64)))
        with pytest.raises(ChallengeError, match=message):
            read_layer(str(tmp_path), 64, 1)

    refused(r"the weight at \(1, 1\) is 0.5; every weight of the challenge is 1/16", np.full(2048, 0.5))
    refused("neuron 1 has 31 connections, one of the challenge has 32", np.full(2048, 1 / 16), slice(1, None))
    with pytest.raises(ChallengeError, match=r"n64-l2\.tsv: no such file \(nor n64-l2\.tsv\.gz"):
        read_layer(str(tmp_path), 64, 2)


def test_the_command_writes_its_network_and_runs_from_the_files(tmp_path, capsys):
    images = tmp_path / "images.tsv"
    rng = np.random.default_rng(5)
    images.write_text("".join(f"{i + 1}\t{p + 1}\t1\n" for i in range(8)
                              for p in np.flatnonzero(rng.random(1024) < 0.05 * (i + 1))))
    network = str(tmp_path / "network")
    common = ["challenge", "--neurons", "1024", "--layers", "3", "--json"]
    assert main([*common, "--write", network, "--form", "mtx"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 3
    found = []
    for more in ([], ["--network", network]):
        assert main([*common, "--images", str(images), *more]) == 0
        found.append(json.loads(capsys.readouterr().out)["found"])
    assert found[0] == found[1] and 0 < len(found[0])
    (tmp_path / "network" / "n1024-l2.mtx").unlink()
    assert main([*common, "--images", str(images), "--network", network]) == 1
    assert "n1024-l2.tsv: no such file" in capsys.readouterr().err


TOO_MANY = [("1 2 3\n" * 30_000, "more than 21,845 lines"), ("1" * 3_000_000, "a line of more")]


@pytest.mark.parametrize("text, said", TOO_MANY)
@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_a_table_that_there_is_no_room_for_is_refused_before_there_is_any(tmp_path, monkeypatch, name, text, said):
    """Half a megabyte of gzip was unpacked to as many gigabytes as it held."""
    monkeypatch.setattr("nnac.graphblas.matrices.memory", lambda: 1 << 20)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    with pytest.raises(MatrixError, match=said):
        read_matrix(str(tmp_path / name))
