"""The whole path end to end, on a tiny model: audio files in, transcripts out, the same integers everywhere."""

import json
from pathlib import Path

import pytest
from attrs import evolve

from nnac.cli import main
from nnac.demo import run, tiny

pytest.importorskip("espeakng_loader")
POLICY = str(Path(__file__).parent / "tiny.nnac")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, figures, what was said)."""
    out, said = tmp_path_factory.mktemp("demo"), []
    return out, run(out, evolve(tiny(), policy=POLICY), said.append, quiet=True), said


def test_emulator_and_training_module_agree_on_every_integer_and_transcript(demo):
    _, figures, said = demo
    assert figures["different_integers"] == 0 and figures["different_transcripts"] == 0
    assert figures["compared_integers"] > 100_000 and figures["utterances"] == 6
    assert sum("reference" in text for text in said) >= 6, "each utterance is shown"


def test_the_figures_are_whole(demo):
    _, figures, _ = demo
    for key in ("wer_float", "wer_training_module", "wer_emulator", "model_bytes", "program_bytes", "cycles_per_frame", "rtf", "wall_s"):
        assert figures[key] > 0, key
    assert figures["wer_training_module"] == figures["wer_emulator"]
    json.dumps(figures)


def test_a_second_call_repeats_nothing(demo):
    out, figures, _ = demo
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    again = run(out, evolve(tiny(), policy=POLICY), lambda text: None, quiet=True)
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()} == before
    assert {k: v for k, v in again.items() if k != "wall_s"} == {k: v for k, v in figures.items() if k != "wall_s"}


def test_run_transcribes_files_and_manifests_and_says_what_is_wrong_with_others(demo, tmp_path, capsys):
    out, _, _ = demo
    program, wav = str(out / "tiny_int8.nnp"), str(sorted((out / "corpus" / "wav").iterdir())[0])
    assert main(["run", program, "--audio", wav]) == 0
    assert "real-time factor" in capsys.readouterr().out
    assert main(["run", program, "--manifest", str(out / "corpus" / "sent.jsonl"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4 and "reference" in lines[0] and lines[-1]["wer"] > 0 and lines[-1]["cycles"] > 0
    (tmp_path / "empty.wav").write_bytes(b"")
    assert main(["run", program, "--audio", str(tmp_path / "empty.wav")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("empty.wav: the file is empty")
    assert main(["run", program]) == 2


def test_a_damaged_program_or_checkpoint_is_refused_in_one_line(demo, tmp_path, capsys):
    out, _, _ = demo
    for name, command in (("tiny_int8.nnp", ["run", "FILE", "--audio", "x.wav"]), ("tiny_int8.nnc", ["compile", "FILE", "--out", str(tmp_path / "x")])):
        data = bytearray((out / name).read_bytes())
        cut, altered = tmp_path / f"cut-{name}", tmp_path / f"altered-{name}"
        cut.write_bytes(data[: len(data) // 2])
        data[-5] ^= 1
        altered.write_bytes(data)
        for bad in (cut, altered, tmp_path / "absent"):
            assert main([str(bad) if c == "FILE" else c for c in command]) == 1
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and str(bad) in err
