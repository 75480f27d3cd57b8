"""A user's own model from its prepared module to the machine: saved, compiled, run, compared, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nnac
from nnac.cli import main
from tests.constructs import LABELS, L, Of, models
from tests.test_capture import POLICY


def saved(folder: Path, model: nn.Module, example: tuple, name: str = "mine") -> tuple[Path, nn.Module]:
    """A checkpoint of a prepared and calibrated model."""
    module = nnac.prepare(model, POLICY, example)
    module.calibrate([example])
    module.eval()
    path = folder / f"{name}.nnc"
    module.save(path)
    return path, module


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """(checkpoint, program, arguments' file, what the module makes of them)."""
    folder = tmp_path_factory.mktemp("tensors")
    torch.manual_seed(0)
    model = Of(lambda s, labels, loud: s.out(torch.tanh(s.rnn(s.e(labels))[0] + s.a(loud))), e=nn.Embedding(11, 6),
               rnn=nn.LSTM(6, 8, batch_first=True), a=L(3, 8), out=L(8, 4))
    labels, loud = LABELS.T.contiguous(), torch.randn(3, 9, 3)
    path, module = saved(folder, model, (labels, loud))
    program, given = folder / "mine.nnp", folder / "in.npz"
    assert main(["compile", str(path), "--out", str(program)]) == 0
    np.savez(given, args_0=labels.numpy(), args_1=loud.numpy())
    with torch.no_grad():
        return path, program, given, module(labels, loud).numpy()


def test_the_machine_returns_what_the_module_returns(tagger, tmp_path, capsys):
    path, program, given, expected = tagger
    for file, engine in ((program, "emulator"), (path, "reference"), (path, "torch"), (path, "emulator")):
        out = tmp_path / f"{engine}.npz"
        assert main(["run", str(file), "--tensors", str(given), "--out", str(out), "--engine",
                     engine]) == 0, capsys.readouterr()
        made = np.load(out)["result"]
        assert made.shape == expected.shape == (3, 9, 4) and np.array_equal(made, expected)
    assert "cycles" in capsys.readouterr().out


def test_compile_says_nothing_of_a_search_that_the_model_does_not_have(tagger, tmp_path, capsys):
    path, *_ = tagger
    assert main(["compile", str(path), "--out", str(tmp_path / "again.nnp")]) == 0
    said = capsys.readouterr().out
    assert "of computing a step" in said and "greedy" not in said and "joint" not in said


def test_every_integer_is_compared(tagger, capsys):
    path, program, given, _ = tagger
    assert main(["compare", str(path), str(program), "--tensors", str(given), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["different_integers"] == 0 and done["compared_integers"] > 27 * (6 + 8 + 8 + 8 + 8 + 4)
    assert main(["compare", str(path), "--tensors", str(given), "--plant", "out", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["value"] == "out"


def test_what_is_not_an_argument_is_said_in_one_line(tagger, tmp_path, capsys):
    _, program, given, _ = tagger
    right = dict(np.load(given))
    cases = {
        "lacking": ({"args_0": right["args_0"]}, "`args_1` is not given"),
        "other width": (right | {"args_1": right["args_1"][..., :2]}, "`args_1` is [batch, time, 3], not [3, 9, 2]"),
        "real labels": (right | {"args_0": right["args_0"].astype(np.float32)}, "labels"),
        "no numbers": (right | {"args_1": right["args_1"] * np.nan}, "no numbers"),
        "other lengths": (right | {"args_1": right["args_1"][:, :5]}, "other times or batches"),
    }
    for name, (arrays, words) in cases.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        assert main(["run", str(program), "--tensors", str(path)]) == 1
        err = capsys.readouterr().err
        assert words in err and len(err.splitlines()) == 1, name
    single = tmp_path / "x.npy"
    np.save(single, right["args_1"])
    broken = tmp_path / "broken.npz"
    broken.write_bytes(given.read_bytes()[:100])
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    for path in (single, broken, pickled, tmp_path / "none.npz"):
        assert main(["run", str(program), "--tensors", str(path)]) in (1, 2)
        assert len(capsys.readouterr().err.splitlines()) == 1
    # an output that is an input
    assert main(["run", str(program), "--tensors", str(given), "--out", str(given)]) == 2


def test_a_model_that_takes_tensors_hears_no_audio(tagger, tmp_path, capsys):
    path, program, _, _ = tagger
    wav = tmp_path / "x.wav"
    wav.write_bytes(b"RIFF")
    for file in (path, program):
        assert main(["run", str(file), "--audio", str(wav)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["bidirectional with projection", "tied weights",
                                  "names that a training module has itself", "two results",
                                  "the last step, batch first", "viewed flat", "vectors without time"])
def test_constructs_of_every_kind_reach_the_machine(name, tmp_path):
    torch.manual_seed(0)
    make, example = models()[name]
    path, module = saved(tmp_path, make(), example)
    from nnac import tensors
    from nnac.executors import Subject

    subject = Subject.load(path)
    arrays = {a.name: x.numpy() for a, x in zip(subject.tensors.read, example, strict=True)}
    compared = tensors.compare(subject, subject, arrays, ("torch", "emulator"))
    assert compared.different == 0 and compared.compared > 0
    with torch.no_grad():
        y = module(*example)
    for ours, theirs in zip(tensors.run(subject, arrays).results, y if isinstance(y, tuple) else (y,), strict=True):
        assert np.array_equal(ours, theirs.numpy())
