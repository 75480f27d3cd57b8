"""The float networks that come with nnac are those that their descriptions name, small, and understand speech."""

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.cli import main
from nnac.decode.recogniser import bfloat16, from_bfloat16, load_recogniser, save_recogniser
from nnac.shipped import network, specification

NETWORK = Path(__file__).parent.parent / "networks" / "demo.nnc"
SHIPPED = sorted(NETWORK.parent.glob("*.nnc"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda p: p.stem)
def test_a_network_is_the_file_that_its_description_names(file):
    told = json.loads(Path(f"{file}.json").read_text("utf-8"))
    data = file.read_bytes()
    assert hashlib.sha256(data).hexdigest() == told["sha256"]
    assert told["sha256"] in (NETWORK.parent / "README.md").read_text("utf-8")
    assert len(data) == told["bytes"] <= 5_000_000 and checkpoint.digest_of(file) == told["checkpoint"]
    recogniser = load_recogniser(file)
    assert recogniser.tokens.to_json() == told["tokens"] and recogniser.training == told["training"]
    assert sum(p.numel() for p in recogniser.model.parameters()) == told["weights"]


def test_the_networks_understand_sentences_and_voices_they_never_heard(tmp_path):
    pytest.importorskip("espeakng_loader")
    from nnac.decode.front_end import recognise
    from nnac.speech.corpus import CorpusSpec, build, load_split
    from nnac.speech.wer import word_errors

    build(tmp_path, CorpusSpec(train=0, dev=0, sent=12, voice=12, wavs=0), quiet=True)
    for name, split in itertools.product([p.stem for p in SHIPPED], ("sent", "voice")):
        recogniser = load_recogniser(network(name))
        heard = load_split(tmp_path, split)
        features = [recogniser.normalisation.apply(np.asarray(f, np.float32)) for f in heard.features]
        with torch.no_grad():
            texts = recognise(recogniser.model, recogniser.tokens.decode, features, carry=torch.from_numpy)
        assert word_errors(heard.texts, texts).rate < 20, (name, texts)


def test_a_name_is_a_shipped_network_only_where_no_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        Path(network("demo")).samefile(NETWORK)
        and network("runs/float.nnc") == "runs/float.nnc"
        and network("dmeo") == "dmeo"
    )
    (tmp_path / "demo").write_bytes(b"mine")
    assert network("demo") == "demo"
    assert specification("specs/rnnt_int8.nnac").is_file() and str(specification("absent.nnac")) == "absent.nnac"


def test_bfloat16_is_that_of_torch_ties_and_all():
    x = torch.cat(
        [
            torch.randn(10_000, generator=torch.Generator().manual_seed(0)),
            torch.tensor([0.0, -0.0, 1.00390625, 1.01171875, 3e38, 1e-40]),
        ]
    )
    assert np.array_equal(from_bfloat16(bfloat16(x.numpy())), x.bfloat16().float().numpy())


def test_a_packed_network_is_half_the_bytes_and_the_rounded_weights(tmp_path, capsys):
    whole = load_recogniser(NETWORK)
    save_recogniser(tmp_path / "whole.nnc", whole)
    assert main(["pack", str(tmp_path / "whole.nnc"), "--out", str(tmp_path / "packed.nnc")]) == 0
    assert "2,185,024 weights in" in capsys.readouterr().out
    assert (tmp_path / "packed.nnc").read_bytes() == NETWORK.read_bytes(), "rounding what is rounded changes nothing"
    assert (tmp_path / "packed.nnc").stat().st_size < 0.51 * (tmp_path / "whole.nnc").stat().st_size
    again = load_recogniser(tmp_path / "packed.nnc").model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.model.state_dict().items())


@pytest.mark.parametrize("coding, change", [("int3", None), ("bf16", np.float32), ("bf16", np.int16)], ids=str)
def test_a_network_coded_in_another_way_than_it_says_is_refused(tmp_path, coding, change):
    file = checkpoint.load(NETWORK)
    tensors = {n: v if change is None else v.astype(change) for n, v in file.tensors.items()}
    checkpoint.save(tmp_path / "odd.nnc", tensors, file.metadata | {"coding": coding})
    with pytest.raises(CheckpointError, match=r"does not describe a network: .*code"):
        load_recogniser(tmp_path / "odd.nnc")


def test_training_under_a_policy_takes_the_network_by_its_name(tmp_path):
    pytest.importorskip("espeakng_loader")
    from nnac.speech.corpus import CorpusSpec, build

    build(tmp_path / "corpus", CorpusSpec(train=60, dev=2, sent=0, voice=0, wavs=0), quiet=True)
    command = ["train", str(specification("specs/rnnt_int8.nnac").resolve()), "--float", "demo", "--steps", "0",
               "--corpus", str(tmp_path / "corpus"), "--out", str(tmp_path / "int8.nnc"), "--processes", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "nnac", *command], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "int8.nnc").metadata["training"]["float"] == checkpoint.digest_of(NETWORK)
