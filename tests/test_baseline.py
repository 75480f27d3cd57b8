"""The float trainer: it learns, it repeats, and an interruption changes nothing."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nnac import checkpoint
from nnac.decode.recogniser import load_recogniser
from nnac.model.rnnt_torch import RnntConfig
from nnac.speech.corpus import CorpusSpec, build
from nnac.speech.tokens import LETTERS
from nnac.train import loop
from nnac.train.baseline import FloatTask, TrainConfig, train
from nnac.train.batches import epoch_order, grouped
from nnac.train.loop import TrainingError
from nnac.train.pace import Run

pytest.importorskip("espeakng_loader")
TINY = TrainConfig(model=RnntConfig(hidden=24, prediction=16, joint=24, embedding=8, vocabulary=LETTERS.count),
                   steps=24, tokens="letters", batch_frames=1500, warmup=4, learning_rate=5e-3, bfloat16=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    build(directory, CorpusSpec(train=60, dev=4, sent=0, voice=0, wavs=0), quiet=True)
    return directory


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory):
    """An uninterrupted run of one process: (its file, its reports)."""
    out = tmp_path_factory.mktemp("straight") / "float.nnc"
    return out, train(corpus, out, TINY, processes=1, quiet=True)


def test_the_loss_falls(straight):
    losses = [r["loss"] for r in straight[1] if "loss" in r]
    assert len(losses) == 24
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), "the last epoch against the first: five steps each"
    assert load_recogniser(straight[0]).training["steps"] == 24


class Stop(Exception):
    pass


def test_stopped_and_resumed_it_gives_the_same_bytes(straight, corpus, tmp_path):
    task = FloatTask(TINY, str(corpus), str(tmp_path / "float.nnc"))
    state = tmp_path / "float.nnc.part"

    def stop_at_13(line):
        if line["step"] == 13:
            raise Stop
    with pytest.raises(Stop):
        loop.run_rank(task, 0, 1, stop_at_13, Run(every=5, dev_every=10**6))
    assert checkpoint.load(state).metadata["step"] == 10 and not (tmp_path / "float.nnc").exists()
    reports = train(corpus, task.out, TINY, processes=1, quiet=True)
    assert [r["step"] for r in reports if "loss" in r] == list(range(11, 25))
    assert (tmp_path / "float.nnc").read_bytes() == straight[0].read_bytes()
    assert not state.exists()


def test_two_processes_killed_and_one_that_resumes_give_the_same_bytes(straight, corpus, tmp_path):
    out = tmp_path / "float.nnc"
    program = ("import json, sys; from nnac.train.baseline import *; from nnac.train.pace import Run; "
               "train(sys.argv[1], sys.argv[2], TrainConfig.from_json(json.loads(sys.argv[3])), processes=2, "
               "quiet=True, run=Run(every=4))")
    process = subprocess.Popen([sys.executable, "-c", program, str(corpus), str(out), json.dumps(TINY.to_json())])
    state, started = tmp_path / "float.nnc.part", time.monotonic()
    while not state.exists() and process.poll() is None and time.monotonic() - started < 120:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert state.exists() and not out.exists()
    train(corpus, out, TINY, processes=1, quiet=True)
    assert out.read_bytes() == straight[0].read_bytes()


def test_a_finished_run_is_not_repeated_and_other_settings_are_refused(straight, corpus, tmp_path):
    assert train(corpus, straight[0], TINY, quiet=True)[-1]["step"] == 24
    other = TrainConfig.from_json({**TINY.to_json(), "seed": 1})
    with pytest.raises(TrainingError, match="other settings"):
        train(corpus, straight[0], other, quiet=True)


def one_step_saved(corpus, tmp_path):
    """A task that was stopped after one step."""
    task = FloatTask(TINY, str(corpus), str(tmp_path / "x.nnc"))
    learner, examples, _ = task.prepare()
    trainer = loop.Trainer(learner, TINY, examples, task.identity())
    trainer.accumulate(0)
    trainer.update()
    trainer.save(tmp_path / "x.nnc.part")
    return task


def test_a_state_of_another_run_is_refused(corpus, tmp_path):
    task = one_step_saved(corpus, tmp_path)
    with pytest.raises(TrainingError, match="another training run"):
        train(corpus, task.out, TrainConfig.from_json({**TINY.to_json(), "seed": 1}), processes=1, quiet=True)


@pytest.mark.parametrize("change", ["shape", "name"])
def test_a_state_whose_tensors_are_of_another_version_is_refused_in_one_line(change, corpus, tmp_path):
    task = one_step_saved(corpus, tmp_path)
    state = checkpoint.load(tmp_path / "x.nnc.part")
    name = next(n for n in state.tensors if n.startswith("parameter."))
    tensors = dict(state.tensors)
    value = tensors.pop(name)
    checkpoint.save(tmp_path / "x.nnc.part", tensors | ({name: value[..., :1]} if change == "shape" else {}),
                    state.metadata)
    with pytest.raises(TrainingError, match="another version of nnac") as caught:
        train(corpus, task.out, TINY, processes=1, quiet=True)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_training_process_is_one_line(corpus, tmp_path):
    with pytest.raises(TrainingError, match="network has 64 tokens, letters are 29"):
        train(corpus, tmp_path / "x.nnc", TrainConfig(tokens="letters", steps=2), processes=2, quiet=True)


def test_the_rate_rises_stays_and_falls():
    c = TrainConfig(steps=1000, warmup=100)
    rates = [c.rate(s) for s in range(1000)]
    assert rates[0] == pytest.approx(2e-5) and rates[99] == rates[400] == pytest.approx(2e-3)
    assert rates[400:] == sorted(rates[400:], reverse=True) and rates[-1] < 4.1e-5


def test_batches_hold_every_utterance_once_within_their_size():
    frames = np.random.default_rng(0).integers(80, 400, 300)
    batches = grouped(frames, 4000, np.random.default_rng(1))
    assert sorted(i for b in batches for i in b) == list(range(300))
    assert all(frames[b].max() * len(b) <= 4000 for b in batches)


def test_the_order_of_an_epoch_repeats_and_differs_from_the_next():
    frames = np.random.default_rng(0).integers(80, 400, 300)
    first, again, second = (epoch_order(frames, 4000, 2, 7, e) for e in (0, 0, 1))
    flat = [[list(b) for step in order for b in step] for order in (first, again, second)]
    assert flat[0] == flat[1] != flat[2]
    assert all(len(step) == 2 for step in first)
    assert np.mean([abs(frames[a].mean() - frames[b].mean())
                    for a, b in first]) < 20, "shards of a step are alike in length"
