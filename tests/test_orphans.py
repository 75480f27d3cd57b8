"""Nothing outlives who started it, and no two trainings write one file."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from nnac.children import TIED, start
from nnac.errors import UserError
from nnac.train import baseline, loop, processes
from nnac.train.language import FloatTask, LmTraining, train
from nnac.train.processes import TrainingError

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


def children_of(pid):
    out = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            out.append(int(stat.parent.name))
    return out


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what, seconds=60.0):
    begun = time.monotonic()
    while not what() and time.monotonic() - begun < seconds:
        time.sleep(0.02)
    return what()


SLEEPER = ("from nnac.children import end_with_parent; end_with_parent(); print('up', flush=True); import time; "
           "time.sleep(600)")


@linux
def test_a_child_and_its_child_end_with_a_parent_that_is_killed():
    """parent > middle > leaf, the parent killed outright."""
    leaf = (f"import sys; from nnac.children import *; end_with_parent(); start([sys.executable, '-c', "
            f"{SLEEPER!r}]).wait()")
    parent = f"import sys; from nnac.children import *; start([sys.executable, '-c', {leaf!r}]).wait()"
    process = subprocess.Popen([sys.executable, "-c", parent])
    assert until(lambda: children_of(process.pid))
    middle, = children_of(process.pid)
    assert until(lambda: children_of(middle))
    last, = children_of(middle)
    process.kill()
    process.wait()
    assert until(lambda: not running(middle) and not running(last))


def test_who_waits_for_a_child_gets_its_status():
    assert start([sys.executable, "-c",
                  "import sys; from nnac.children import *; end_with_parent(); sys.exit(7)"]).wait() == 7
    quiet = subprocess.run([sys.executable, "-c", "from nnac.children import *; end_with_parent()"],
                           stdin=subprocess.DEVNULL,
                           env={k: v for k, v in os.environ.items() if k != TIED})
    assert quiet.returncode == 0, "a program that nobody tied watches nothing"


@pytest.fixture
def text(tmp_path):
    r = np.random.default_rng(0)
    (tmp_path / "text.txt").write_text("\n".join(" ".join("".join(r.choice(list("abcde"), 4)) for _ in range(6))
                                                 for _ in range(200)))
    return tmp_path


def config(steps):
    made = LmTraining.from_json(LmTraining().to_json() | dict(steps=steps))
    return LmTraining.from_json(made.to_json() | {"model": made.model.to_json() |
                                                  dict(vocabulary=12, cells=16, embedding=8)})


@linux
def test_the_ranks_of_a_training_that_is_killed_end_and_leave_its_file_free(text):
    out = text / "x.nnc"
    program = ("import json, sys; from nnac.train.language import *; from nnac.train.pace import Run; "
               "train(FloatTask(LmTraining.from_json(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3]), '', 2, True, "
               "Run(every=5))")
    said = json.dumps(config(100_000).to_json())
    process = subprocess.Popen([sys.executable, "-c", program, said, str(text / "text.txt"), str(out)])
    try:
        assert until(lambda: Path(f"{out}.part").exists(), 200)
        ranks = children_of(process.pid)
        assert len(ranks) == 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert until(lambda: not any(map(running, ranks)), 10)
    assert Path(f"{out}.part").exists() and not out.exists()
    with processes.alone(str(out)):
        pass


def test_two_trainings_into_one_file_are_refused(text, monkeypatch):
    out = text / "x.nnc"
    task = FloatTask(config(2), str(text / "text.txt"), str(out))
    monkeypatch.setattr(processes.alone.__wrapped__, "__defaults__", (0.1,))
    with FileLock(f"{out}.lock"), pytest.raises(TrainingError, match="another run is training into"):
        train(task, "", 1, True)
    assert not out.exists() and not Path(f"{out}.part").exists()
    assert train(task, "", 1, True)[-1]["step"] == 2
    assert sorted(p.name for p in text.iterdir()) == ["text.txt", "x.nnc", "x.nnc.log.jsonl"]


def test_who_comes_second_finds_the_output(text):
    out = text / "x.nnc"
    out.write_text("made meanwhile")
    with pytest.raises(TrainingError, match="is there already"), processes.alone(str(out)):
        pass
    assert out.read_text() == "made meanwhile"


def test_what_is_missing_is_seen_before_processes_are_started(text, monkeypatch):
    """Two processes would each start Python and PyTorch to say it."""
    monkeypatch.setattr("nnac.train.loop.run_processes", lambda *_: pytest.fail("processes were started"))
    corpus = "there is no split 'train'; make the corpus first"
    for task, why in ((FloatTask(config(2), "nowhere", str(text / "x")), "nowhere: no such file"),
                      (baseline.FloatTask(baseline.TrainConfig(), "nowhere", str(text / "x")), f"nowhere: {corpus}")):
        with pytest.raises(UserError, match=why):
            loop.train(task, "", 2, True)
    (text / "one").write_text("turn on the light\n")
    with pytest.raises(UserError, match="one: "):
        loop.train(FloatTask(config(2), str(text / "one"), str(text / "x")), "", 2, True)
    (text / "x").write_text("made earlier")
    with pytest.raises(TrainingError, match="is there already"):
        loop.train(FloatTask(config(2), str(text / "text.txt"), str(text / "x")), "", 2, True)
    assert all(hasattr(getattr(importlib.import_module(m), c), "look") for m, c in
               (where.split(":") for where in loop.TASKS.values()))
