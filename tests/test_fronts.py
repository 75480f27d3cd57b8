"""Transducers that begin with convolutions, from a WAV file to the text: whole and streamed, every integer, in time,
as ONNX."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac import compiler, tensors
from nnac.cli import main
from nnac.compare import compare
from nnac.decode import streams
from nnac.decode.front_end import front_end_of, hypotheses
from nnac.decode.integer import IntegerStepper, stepping
from nnac.decode.search.beam import Beam
from nnac.decode.search.greedy import Greedy
from nnac.decode.streams import Stream
from nnac.executors import executor
from nnac.executors.reference import Reference
from nnac.export import onnx_files
from nnac.latency.measure import costs_of, listen, measure
from nnac.latency.simulate import Scenario
from nnac.program import ProgramError
from nnac.runtime import recognise_files
from nnac.speech.audio import Utterance, load_audio
from nnac.speech.features import log_mel
from tests import fronts

QUICK = ("two Conv1d, steps stacked", "two Conv2d, zeros")
NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in fronts.fronts()]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A front's transducer, made once."""
    return cache(lambda name: fronts.made(tmp_path_factory.mktemp("front"), fronts.fronts()[name]))


@pytest.fixture
def made(request, build):
    return build(request.param)


every = pytest.mark.parametrize("made", NAMES, indirect=True)
some = pytest.mark.parametrize("made", QUICK, indirect=True)


@every
def test_a_wav_file_is_heard_as_the_model_itself_hears_it(made):
    """The model's own forward on normalised features, in real numbers, frame by frame; and the labels that the same
    model says to arrays of them, in integers."""
    front, said = made.subject.front, recognise_files(made.subject, made.audio, quiet=True)
    assert any(said.texts) and said.cycles
    for path, text in zip(made.audio, said.texts, strict=True):
        features, heard = made.front.hear(path)[0], front.hear(path)[0]
        with torch.no_grad(), made.module.real_numbers():
            frames, count = made.module.encode(torch.from_numpy(heard)[:, None], torch.tensor([len(heard)]))
            try:
                theirs = made.encoder(torch.from_numpy(features)[None])
            except RuntimeError:                            # fewer frames than a step reads: torch refuses, we say ""
                assert not len(frames) and not text
                continue
        assert len(frames) == count.item() == theirs.shape[1]
        assert torch.allclose(frames[:, 0], theirs[0], atol=1e-5)
        ids = tensors.run(made.arrays, dict(features=features[None]), "torch").results[0]
        assert text == made.front.text(ids.tolist())


@every
def test_every_integer_of_the_emulator_is_the_training_modules_whole_and_streamed(made, monkeypatch):
    search = Beam(beam=3, nbest=3)
    one, two = (executor(name, made.subject) for name in ("torch", "emulator"))
    front = made.subject.front
    whole = compare(one, two, front, [front.hear(path)[0] for path in made.audio], search=search)
    assert whole.equal and whole.compared > 5_000 and any(whole.texts)
    monkeypatch.setattr(streams, "LONG", 20)
    monkeypatch.setattr(Stream.blocks, "__defaults__", (17,))
    heard = [front.listen(path)[0] for path in made.audio]
    assert [isinstance(h, Stream) for h in heard[:2]] == [True] * 2
    streamed = compare(one, two, front, heard, batch=1, search=search)
    assert streamed.equal and streamed.nbest == whole.nbest and streamed.steps == whole.steps
    with stepping(two) as stepper:                          # as `nnac run` listens
        assert hypotheses(stepper, heard, search=search) == whole.nbest


@pytest.mark.slow
def test_steps_of_several_frames_a_call_are_those_of_one(tmp_path):
    """An encoder without memory in its convolutions may be given steps together."""
    made = fronts.made(tmp_path, fronts.fronts()["two Conv1d, steps stacked"],
                       "  layers ** { frames 3 }\n")
    program = made.subject.program
    together = {name: p.vectors for name, e in program.entries.items() if e.model_entry == "encoder" for p in e.inputs}
    assert together == {"encoder.step": 6, "encoder.steps": 18}
    one, two = (executor(name, made.subject) for name in ("torch", "emulator"))
    found = compare(one, two, made.subject.front, [made.subject.front.hear(path)[0] for path in made.audio])
    assert found.equal and any(found.texts)


@pytest.mark.parametrize("steps", [1, 3])
@some
def test_exported_files_take_frames_and_give_the_machines_integers(made, steps):
    """Log-mel features as they come, T frames a call, each call `decode_chunk_len` of them later; frames of zeros
    around the utterance as the metadata say."""
    onnx, session = pytest.importorskip("onnx"), pytest.importorskip("nnac.onnx.session").Session
    from nnac.onnx.model import OnnxError

    front, encoder = made.subject.front, onnx_files(made.subject.module, "onnx", steps)["encoder.onnx"]
    model = onnx.load_from_string(encoder)
    told = {p.key: p.value for p in model.metadata_props}
    features = log_mel(load_audio(made.audio[0], front.features.rate), front.features)
    reference = IntegerStepper(Reference(made.subject.graph))
    heard = front.heard(features)
    frames, _ = reference.encode(heard[:, None], np.array([len(heard)]))
    zero = np.array([json.loads(told["zero"])], np.float32)
    around = np.concatenate([zero.repeat(json.loads(told["zeros_before"]), 0), features,
                             zero.repeat(json.loads(told["zeros_behind"]), 0)])
    loaded, parts = session.of(model).loaded, []
    state = {i.name: np.zeros((1, i.shape[1]), np.int32) for i in loaded.get_inputs() if i.name != "x"}
    size, hop = json.loads(told["T"]), json.loads(told["decode_chunk_len"])
    for at in range(0, len(around) - size + 1, hop):
        made_now = dict(zip([o.name for o in loaded.get_outputs()],
                            loaded.run(None, dict(x=around[None, at:at + size]) | state), strict=True))
        parts.append(made_now["encoder_out"][0])
        state = {k: made_now[f"{k}.next"] for k in state}
    joined = np.concatenate(parts)
    with pytest.raises(OnnxError, match="begins with convolutions"):
        onnx_files(made.subject.module, "sherpa-onnx", 1)
    assert len(joined) == len(frames) // steps * steps and np.array_equal(joined, frames[:len(joined), 0])


@some
def test_files_in_real_numbers_take_frames_as_well(made):
    onnx, session = pytest.importorskip("onnx"), pytest.importorskip("nnac.onnx.session").Session
    front, module = made.subject.front, made.subject.module
    loaded = session.of(onnx.load_from_string(onnx_files(module, "onnx-qdq", 1)["encoder.onnx"])).loaded
    batch, size, bins = loaded.get_inputs()[0].shape
    features = log_mel(load_audio(made.audio[0], front.features.rate), front.features)
    assert (batch, bins) == ("N", fronts.BINS) and size == front.hearing.read(
        made.subject.graph.rate("encoder", made.subject.graph.inputs["encoder"][0]))
    given = {i.name: np.zeros((1, i.shape[1]), np.float32) for i in loaded.get_inputs() if i.name != "x"}
    ours = loaded.run(None, dict(x=features[None, :size]) | given)[0]
    vectors = front.hearing.of(front.normalisation.apply(features[:size])[:, None])
    before = front.hearing.before
    if before or front.hearing.behind:                          # the zeros around are the host's
        taken = evolve(front.hearing, levels=(evolve(front.hears[0], before=0, behind=0), *front.hears[1:]))
        vectors = taken.of(front.normalisation.apply(features[:size])[:, None])
    with torch.no_grad(), module.module.real_numbers():
        theirs, _ = module.module.encode(torch.from_numpy(vectors), torch.tensor([len(vectors)]))
    assert ours.shape == theirs.shape and np.abs(ours - theirs.numpy()).max() < 0.1 * theirs.abs().max()


@some
def test_the_commands_hear_it(made, tmp_path, capsys):
    """From checkpoint and program: text, every integer, cycles, a planted fault; and when a user has the text."""
    checkpoint, program, wav = str(made.checkpoint), str(tmp_path / "m.nnp"), made.audio[0]
    deaf = str(made.checkpoint.parent / "arrays.nnc")
    for command in ("run", "compare"):
        assert main([command, deaf, "--audio", wav]) == 1
        assert "it hears no audio; give --tensors, or save a transducer with its front end" in capsys.readouterr().err
    with pytest.raises(ProgramError, match="takes tensors: it hears no audio"):
        front_end_of(compiler.program(made.arrays.module))
    assert main(["compile", checkpoint, "--out", program]) == 0
    capsys.readouterr()
    assert main(["run", program, "--audio", wav, "--json"]) == 0
    heard = json.loads(capsys.readouterr().out.splitlines()[0])["text"]
    assert main(["run", checkpoint, "--audio", wav, "--engine", "torch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["text"] == heard
    assert main(["compare", checkpoint, program, "--audio", wav, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["compared_integers"] > 3_000 and said["different_integers"] == 0
    first = next(v for v in said["values"] if v.startswith("encoder.c"))
    assert main(["compare", checkpoint, "--audio", wav, "--plant", first, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["value"] == first
    assert main(["profile", program, "--entry", "encoder.step"]) == 0 and first in capsys.readouterr().out
    lines = [json.dumps(dict(audio=path, text="ab", speech_end=end)) for path, end in zip(made.audio, (0.5, 0.2),
                                                                                         strict=False)]
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["latency", program, "--manifest", str(tmp_path / "m.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[program]["upl_p50_ms"] >= 200


def test_a_step_waits_for_the_frames_that_it_hears_and_the_last_ones_for_the_end(build):
    """Every second frame by three, a zero around; three of these; two steps stacked: 40 ms a step of the encoder.  Its
    first one reads up to frame 7, whose window ends at 95 ms; behind the endpoint a zero stands for 10 ms."""
    made = build("two Conv1d, steps stacked")
    program = compiler.program(made.subject.module)
    costs = costs_of(program, Greedy())
    assert (costs.step_s, costs.first_s, costs.last_s, costs.vectors) == (0.04, 0.055, 0.01, 4)
    heard = listen(made.subject.front, [Utterance(path, "", None, end) for path, end in zip(made.audio, (0.4, 0.3),
                                                                                           strict=False)], 0.055)
    frames = [int((h.seconds * 16_000 - 400) / 160 + 1e-6) + 1 for h in heard]
    features = [made.front.hear(path)[0][:n] for path, n in zip(made.audio, frames, strict=False)]
    hearing = made.subject.front.hearing
    assert all(np.array_equal(h.features, hearing.of(f[:, None])[:, 0]) for h, f in zip(heard, features, strict=True))
    done = measure(program, heard, Scenario(hangover_s=0.055), Greedy(), quiet=True)
    for line, h, n in zip(done.timelines, heard, frames, strict=True):
        assert len(line.heard) == len(line.ready) == ((n + 2 - 7) // 2 + 1) // 2 == (
            len(h.features) // hearing.vectors_of_step // 2)
        assert line.ready[0] == pytest.approx(0.095) and max(line.ready) <= h.seconds
