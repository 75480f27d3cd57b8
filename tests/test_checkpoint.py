"""Checkpoints: exact, and refused when anything was altered."""
import os

import numpy as np
import pytest
import torch

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.decode.recogniser import Recogniser, load_recogniser, save_recogniser
from nnac.model.rnnt_torch import Rnnt, RnntConfig
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import LETTERS


@pytest.fixture
def path(tmp_path):
    tensors = {"w": torch.arange(6.0).view(2, 3), "q": np.array([1, -2], np.int8)}
    checkpoint.save(tmp_path / "x.nnc", tensors, {"kind": "test", "list": [1, "a"]})
    return tmp_path / "x.nnc"


def test_tensors_and_metadata_come_back_exactly(path):
    c = checkpoint.load(path, "test")
    assert c.metadata == {"kind": "test", "list": [1, "a"]}
    assert np.array_equal(c.tensors["w"], np.arange(6, dtype=np.float32).reshape(2,
                                                                                 3)) and c.tensors["q"].dtype == np.int8
    assert torch.equal(c.state_dict()["w"], torch.arange(6.0).view(2, 3))


def test_a_prefix_selects_and_is_taken_off(tmp_path):
    checkpoint.save(tmp_path / "x", {"model.a": np.zeros(1), "side.a": np.ones(1)}, {})
    assert list(checkpoint.load(tmp_path / "x").under("side.")) == ["a"]


def test_the_same_contents_are_the_same_bytes(path, tmp_path):
    first = path.read_bytes()
    c = checkpoint.load(path)
    checkpoint.save(tmp_path / "y.nnc", c.tensors, c.metadata)
    assert (tmp_path / "y.nnc").read_bytes() == first


def test_every_cut_is_refused_in_one_line(path, tmp_path):
    whole = path.read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(CheckpointError) as error:
            checkpoint.load(tmp_path / "cut")
        assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path / "cut"))


def test_every_altered_byte_is_refused_or_harmless(path, tmp_path):
    whole, good = path.read_bytes(), checkpoint.load(path)
    for k in range(len(whole)):
        (tmp_path / "bad").write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1:])
        try:
            c = checkpoint.load(tmp_path / "bad")
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:      # a space of the header's padding, say: then what was read is what was written
            assert c.metadata == good.metadata and all(np.array_equal(c.tensors[n], good.tensors[n])
                                                       for n in good.tensors)


@pytest.mark.parametrize("kind, words", [("other", "holds 'test', expected 'other'"), ("test", None)])
def test_the_kind_is_checked(path, kind, words):
    if words is None:
        checkpoint.load(path, kind)
    else:
        with pytest.raises(CheckpointError, match=words):
            checkpoint.load(path, kind)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.load(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        checkpoint.load(tmp_path / "text")
    from safetensors.numpy import save_file
    save_file({"a": np.zeros(1)}, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="not an nnac checkpoint"):
        checkpoint.load(tmp_path / "plain")


def test_writing_that_fails_leaves_the_old_file(path, tmp_path):
    before = path.read_bytes()
    with pytest.raises(ValueError):
        checkpoint.save(path, {}, {"not": float("nan")})
    with pytest.raises(TypeError):
        checkpoint.save(path, {}, {"not": object()})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.nnc"]


def recogniser():
    torch.manual_seed(0)
    model = Rnnt(RnntConfig(features=8, hidden=8, prediction=8, joint=8, embedding=4, vocabulary=LETTERS.count)).eval()
    return Recogniser(model, FeatureSpec(bins=8), Normalisation(np.zeros(8), np.ones(8)), LETTERS, {"steps": 3})


def test_a_recogniser_comes_back_whole(tmp_path):
    r = recogniser()
    save_recogniser(tmp_path / "r.nnc", r)
    again = load_recogniser(tmp_path / "r.nnc")
    assert (again.features == r.features and again.tokens == r.tokens and again.training == {"steps": 3}
            and not again.model.training)
    x, n = torch.randn(60, 2, 8), torch.tensor([60, 40])
    assert torch.equal(again.model.encode(x, n)[0], r.model.encode(x, n)[0])


def test_parameter_names_are_paths_of_the_model_graph():
    names = set(recogniser().model.state_dict())
    assert {"encoder.lstm.0.weight_ih_l0", "encoder.lstm.2.bias_hh_l0", "encoder.norm.0.weight",
            "prediction.embedding.weight",
            "prediction.lstm.0.weight_hh_l0", "joint.encoder.weight", "joint.prediction.weight",
            "joint.output.bias"} <= names
    assert "joint.prediction.bias" not in names


@pytest.mark.parametrize("change, words", [
    (lambda t, m: t.pop("joint.output.bias"), "joint.output.bias"),
                                           (lambda t, m: m["model"].update(hidden=9), "size mismatch"),
    (lambda t, m: m.pop("tokens"), "tokens"), (lambda t, m: m["tokens"].update(pieces=["a"]), "tokens"),
    (lambda t, m: t["joint.output.bias"].fill(np.nan), "not finite"),
                                           (lambda t, m: m["model"].update(colour=1), "colour")])
def test_a_recogniser_that_does_not_fit_together_is_refused(tmp_path, change, words):
    save_recogniser(tmp_path / "r.nnc", recogniser())
    c = checkpoint.load(tmp_path / "r.nnc")
    change(c.tensors, c.metadata)
    checkpoint.save(tmp_path / "bad.nnc", c.tensors, c.metadata)
    with pytest.raises(CheckpointError, match=words) as error:
        load_recogniser(tmp_path / "bad.nnc")
    assert "\n" not in str(error.value)


def test_a_number_stays_a_number(tmp_path):
    checkpoint.save(tmp_path / "x.nnc", {"clip": np.float32(1.5), "vector": np.ones(1, np.float32),
                                         "turned": np.arange(6.0).reshape(2, 3).T}, {})
    tensors = checkpoint.load(tmp_path / "x.nnc").tensors
    assert tensors["clip"].shape == () and tensors["vector"].shape == (1,) and np.array_equal(tensors["turned"],
        np.arange(6.0).reshape(2, 3).T)


def test_a_pipe_or_a_device_is_refused_at_once_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (checkpoint.load, checkpoint.is_checkpoint, checkpoint.digest_of):
        for place in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(CheckpointError, match=r"is a (pipe|device), and is read in more than one place"):
                read(place)
