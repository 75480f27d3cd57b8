"""What a training may be asked for besides: averaged weights, another schedule, a teacher, curves, other processes, an
end at Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac import checkpoint
from nnac.checked import settings
from nnac.cli import main
from nnac.compiler import resolve
from nnac.decode.recogniser import load_recogniser
from nnac.model.rnnt_torch import RnntConfig
from nnac.speech.corpus import CorpusSpec, build
from nnac.speech.tokens import LETTERS
from nnac.train import baseline, loop, policy
from nnac.train.baseline import FloatTask, TrainConfig, train
from nnac.train.distil import collapsed, divergence
from nnac.train.journal import JournalError
from nnac.train.pace import Pace, Run, one_cycle
from nnac.train.policy import PolicyConfig
from nnac.train.processes import Stopped

pytest.importorskip("espeakng_loader")
TINY = TrainConfig(model=RnntConfig(hidden=24, prediction=16, joint=24, embedding=8, vocabulary=LETTERS.count),
                   steps=12, tokens="letters", batch_frames=1500, warmup=4, learning_rate=5e-3, bfloat16=False)
POLICY = Path(__file__).parent / "tiny.nnac"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    build(directory, CorpusSpec(train=40, dev=2, sent=0, voice=0, wavs=0), quiet=True)
    return directory


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory):
    """An uninterrupted run of one process: (its file, its reports)."""
    out = tmp_path_factory.mktemp("straight") / "float.nnc"
    return out, train(corpus, out, TINY, processes=1, quiet=True)


def losses(reports):
    return [r["loss"] for r in reports if "loss" in r]


# ---- averaged weights

def test_the_average_is_that_of_the_weights_after_every_step(corpus, tmp_path):
    config = evolve(TINY, ema=0.7)
    task = FloatTask(config, str(corpus), str(tmp_path / "x.nnc"))
    learner, examples, _ = task.prepare()
    trainer = loop.Trainer(learner, config, examples, task.identity())
    wanted = [p.detach().double().clone() for p in trainer.parameters]
    for step in range(6):
        trainer.accumulate(0)
        trainer.update()
        decay = min(0.7, (1 + step) / (10 + step))
        wanted = [decay * m + (1 - decay) * p.detach().double()
                  for m, p in zip(wanted, trainer.parameters, strict=True)]
    for mean, w, p in zip(trainer.average, wanted, trainer.parameters, strict=True):
        torch.testing.assert_close(mean.double(), w, rtol=1e-5, atol=1e-7)
        assert not torch.equal(mean, p)
    before = [p.detach().clone() for p in trainer.parameters]
    with trainer.averaged():
        assert all(torch.equal(p, m) for p, m in zip(trainer.parameters, trainer.average, strict=True))
    assert all(torch.equal(p, b) for p, b in zip(trainer.parameters, before, strict=True))


def test_with_an_average_stopped_and_resumed_it_gives_the_same_bytes_and_other_weights_than_without(straight, corpus,
        tmp_path):
    config = evolve(TINY, ema=0.9)
    train(corpus, tmp_path / "whole.nnc", config, processes=1, quiet=True)
    task = FloatTask(config, str(corpus), str(tmp_path / "parts.nnc"))

    def stop_at_7(line):
        if line["step"] == 7:
            raise RuntimeError
    with pytest.raises(RuntimeError):
        loop.run_rank(task, 0, 1, stop_at_7, Run(every=5))
    state = checkpoint.load(tmp_path / "parts.nnc.part")
    assert state.metadata["step"] == 5 and len(state.under("average.")) == len(state.under("parameter."))
    train(corpus, task.out, config, processes=1, quiet=True)
    assert Path(task.out).read_bytes() == (tmp_path / "whole.nnc").read_bytes()
    with_average, without = (load_recogniser(f).model.state_dict() for f in (task.out, straight[0]))
    assert all(not torch.equal(with_average[k], without[k]) for k in without)


# ---- schedule and options

def test_one_cycle_is_that_of_pytorch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=200)
    for step in range(200):
        assert Pace(steps=200, learning_rate=3e-3,
                    schedule="one_cycle").rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimiser.step()
        if step < 199:
            theirs.step()
    assert all(0.0 < one_cycle(s, n) <= 1.0 for n in (1, 2, 3, 5) for s in range(n))


def test_options_that_are_off_leave_no_trace_so_that_older_files_stay_valid():
    assert not {"ema", "schedule", "distil"} & settings(TrainConfig()).keys()
    assert settings(evolve(TINY, ema=0.5))["ema"] == 0.5 and TrainConfig.from_json(settings(evolve(TINY,
        ema=0.5))).ema == 0.5


# ---- a teacher

def random_lattice(seed=0, B=3, T=5, U=4, V=6):
    torch.manual_seed(seed)
    targets, labels = torch.randint(1, V, (B, U)), torch.tensor([4, 2, 0])[:B]
    targets = targets.masked_fill(torch.arange(U) >= labels[:, None], 0)
    ours, theirs = torch.randn(2, B, T, U + 1, V, dtype=torch.float64)
    return ours, theirs, targets, torch.tensor([5, 3, 4])[:B], labels


def test_the_divergence_is_that_of_three_events_at_each_node_within_each_utterance():
    ours, theirs, targets, frames, labels = random_lattice()
    got = divergence(ours, theirs, targets, frames, labels)
    for b in range(3):
        total = 0.0
        for t in range(int(frames[b])):
            for u in range(int(labels[b]) + 1):
                p, q = theirs[b, t, u].softmax(0), ours[b, t, u].softmax(0)
                events = [[0]] + ([[int(targets[b, u])]] if u < labels[b] else [])
                events.append([v for v in range(6) if [v] not in events])
                total += sum(float(p[e].sum() * (p[e].sum() / q[e].sum()).log()) for e in events)
        assert float(got[b]) == pytest.approx(total / (int(labels[b]) + 1), rel=1e-6)
    assert torch.all(divergence(theirs, theirs, targets, frames, labels) == 0)


def test_the_divergence_pulls_the_student_to_the_teacher_and_only_it():
    ours, theirs, targets, frames, labels = random_lattice(1)
    ours.requires_grad_()
    first = None
    for _ in range(60):
        loss = divergence(ours, theirs.requires_grad_(), targets, frames, labels).sum()
        first = first or loss.item()
        gradient, = torch.autograd.grad(loss, ours)
        assert gradient.isfinite().all() and float(gradient[1,
                                                            3:].abs().max()) == 0, "nothing comes from beyond the end"
        ours = (ours - 5.0 * gradient).detach().requires_grad_()
    assert loss.item() < 0.1 * first and theirs.grad is None
    assert torch.allclose(collapsed(ours, targets, labels).exp().sum(-1), torch.ones(3, 5, 5, dtype=torch.float64))


def test_a_fine_tune_with_teacher_and_average_learns_otherwise_and_resumes_to_the_same_bytes(straight, corpus,
        tmp_path):
    plan = resolve(POLICY)
    config = PolicyConfig.of(plan, steps=4, learning_rate=1e-3)
    plain = policy.train(plan, straight[0], corpus, tmp_path / "plain.nnc", config, processes=1, quiet=True)
    config = evolve(config, distil=2.0, ema=0.9)
    taught = policy.train(plan, straight[0], corpus, tmp_path / "taught.nnc", config, processes=1, quiet=True)
    assert losses(taught)[0] == losses(plain)[0], "what is reported is the RNN-T loss alone"
    assert losses(taught)[1:] != losses(plain)[1:]
    task = policy.task(plan, straight[0], corpus, tmp_path / "parts.nnc", config)

    def stop_at_2(line):
        if line["step"] == 2:
            raise RuntimeError
    with pytest.raises(RuntimeError):
        loop.run_rank(task, 0, 1, stop_at_2, Run(every=1))
    policy.train(plan, straight[0], corpus, task.out, config, processes=1, quiet=True)
    assert Path(task.out).read_bytes() == (tmp_path / "taught.nnc").read_bytes()


# ---- curves

def test_the_journal_has_a_line_a_step_and_none_twice(corpus, tmp_path, straight):
    task = FloatTask(TINY, str(corpus), str(tmp_path / "float.nnc"))

    def stop_at_9(line):
        if line["step"] == 9:
            raise RuntimeError
    with pytest.raises(RuntimeError):
        loop.run_rank(task, 0, 1, stop_at_9, Run(every=4))
    log = tmp_path / "float.nnc.log.jsonl"
    assert json.loads(log.read_text().splitlines()[-1])["step"] == 9
    with open(log, "a") as file:
        file.write('{"step": 10, "lo')                              # as a kill leaves it
    train(corpus, task.out, TINY, processes=1, quiet=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert losses(lines) == losses(straight[1]) and lines[-1]["dev"] == straight[1][-1]["dev"]
    assert all(line["rate"] > 0 and line["gradient"] > 0 and line["time"] > 0 for line in lines if "loss" in line)


def test_tensorboard_gets_the_same_curves(corpus, tmp_path, straight):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train(corpus, tmp_path / "float.nnc", TINY, processes=1, quiet=True, run=Run(tensorboard=str(tmp_path / "events")))
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert {"loss", "dev", "rate", "gradient"} <= set(events.Tags()["scalars"])
    curve = events.Scalars("loss")
    assert np.allclose([e.value for e in curve], losses(straight[1])) and [e.step for e in curve] == list(range(1, 13))


def test_without_tensorboard_one_line_says_what_to_install_before_anything_is_done(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(JournalError, match=r"needs the package tensorboard: pip install 'nnac\[log\]'"):
        train(corpus, tmp_path / "float.nnc", TINY, processes=1, quiet=True,
              run=Run(tensorboard=str(tmp_path / "events")))
    assert not list(tmp_path.iterdir())


# ---- processes

@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(corpus, tmp_path, capsys):
    assert main(["baseline", "--corpus", str(corpus), "--out", str(tmp_path / "x.nnc"), "--device", "cuda"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("nnac: --device cuda: ") and err.count("\n") == 1 and "train on the processor" in err


def test_a_batch_and_a_learner_can_be_moved(corpus, tmp_path):
    learner, examples, _ = FloatTask(TINY, str(corpus), str(tmp_path / "x")).prepare()
    parameters = dict(learner.named)
    learner.to(torch.device("cpu"))
    assert all(learner.named[k] is p for k, p in parameters.items())
    batch = examples.batch(np.arange(3))
    assert all(x is y for x, y in zip(vars_of(batch), vars_of(batch.to("cpu")), strict=True))
    assert {x.device.type for x in vars_of(batch.to("meta"))} == {"meta"}


def vars_of(batch):
    return [batch.features, batch.lengths, batch.tokens, batch.token_counts, batch.letters, batch.letter_counts]


def test_torchrun_with_two_processes_gives_the_losses_and_bytes_of_one_process_with_both_batches(straight, corpus,
        tmp_path):
    out, job = tmp_path / "float.nnc", tmp_path / "job.json"
    loop.write_job(baseline.task(corpus, out, TINY), Run(every=5), job)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "nnac.train.loop", str(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                   "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert losses(reports) == losses(straight[1]), "the same loss curve, to the last bit"
    assert out.read_bytes() == straight[0].read_bytes()


def test_a_file_that_is_no_job_is_one_line(tmp_path, capsys):
    (tmp_path / "job.json").write_text("{}")
    for name in ("job.json", "absent.json"):
        assert loop.main(str(tmp_path / name)) == 1
        assert f"{name}: not a training job" in json.loads(capsys.readouterr().out)["error"]


def test_the_command_line_writes_jobs_and_refuses_numbers_out_of_range(straight, corpus, tmp_path, capsys):
    job, out = tmp_path / "job.json", str(tmp_path / "x.nnc")
    command = ["train", str(POLICY), "--float", str(straight[0]), "--corpus", str(corpus), "--out", out]
    assert main([*command, "--ema", "0.99", "--distil", "0.1", "--schedule", "one_cycle", "--every", "7", "--job",
                 str(job)]) == 0
    assert f"torchrun --nproc-per-node 2 -m nnac.train.loop {job}" in capsys.readouterr().out
    task, run = loop.read_job(job)
    assert (task.config.ema, task.config.distil, task.config.schedule, task.config.steps, run.every) == (0.99, 0.1,
        "one_cycle", 4, 7)
    assert Path(task.float_path).is_absolute() and task.identity()["config"]["ema"] == 0.99
    for option, value in (("--ema", "1"), ("--every", "0"), ("--distil", "-1")):
        with pytest.raises(SystemExit) as leaving:
            main([*command, option, value])
        assert leaving.value.code == 2 and option in capsys.readouterr().err


# ---- Ctrl-C

def test_ctrl_c_ends_the_step_and_saves_it(straight, corpus, tmp_path):
    task = FloatTask(TINY, str(corpus), str(tmp_path / "float.nnc"))
    before = signal.getsignal(signal.SIGINT)          # a job in the background ignores it from the start

    def interrupt_at_4(line):
        if line["step"] == 4 and "loss" in line:
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Stopped, match="stopped at step 5, which is saved"):
        loop.run_rank(task, 0, 1, interrupt_at_4, Run(every=1000))
    assert checkpoint.load(task.out + ".part").metadata["step"] == 5
    assert signal.getsignal(signal.SIGINT) is before
    train(corpus, task.out, TINY, processes=1, quiet=True)
    assert Path(task.out).read_bytes() == straight[0].read_bytes()


def test_ctrl_c_stops_two_processes_at_the_same_step_with_the_state_of_one_process_at_that_step(corpus, tmp_path):
    config = evolve(TINY, steps=5000)
    out = tmp_path / "float.nnc"
    program = ("import json, sys; from nnac.train.baseline import *; from nnac.train.pace import Run; "
               "train(sys.argv[1], sys.argv[2], TrainConfig.from_json(json.loads(sys.argv[3])), processes=2, "
               "quiet=True, run=Run(every=10**6))")
    command = [sys.executable, "-c", program, str(corpus), str(out), json.dumps(config.to_json())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log, started = tmp_path / "float.nnc.log.jsonl", time.monotonic()
    while (not log.exists()
           or '"loss"' not in log.read_text()) and process.poll() is None and time.monotonic() - started < 120:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "which is saved" in err and not out.exists()
    step = checkpoint.load(str(out) + ".part").metadata["step"]
    assert step >= 1 and f"stopped at step {step}," in err
    task = FloatTask(config, str(corpus), str(tmp_path / "one.nnc"))

    def stop(line):
        if line["step"] == step:
            raise RuntimeError
    with pytest.raises(RuntimeError):
        loop.run_rank(task, 0, 1, stop, Run(every=step))
    assert Path(task.out + ".part").read_bytes() == Path(str(out) + ".part").read_bytes()


def test_a_trainings_seconds_leave_out_the_pauses(tmp_path):
    from nnac.train import journal

    lines = [(0.0, {"parameters": 9, "step": 0}), (1.5, {"step": 1}), (3.0, {"step": 2}),
             (900.0, {"parameters": 9, "step": 2}), (902.0, {"step": 3}), (902.5, {"step": 3, "dev": 5.0})]
    Path(f"{tmp_path}/m.nnc.log.jsonl").write_text("".join(json.dumps({"time": t} | line) + "\n" for t, line in lines))
    assert journal.seconds(tmp_path / "m.nnc") == 5.5 and journal.seconds(tmp_path / "none") == 0
