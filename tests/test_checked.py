"""Files of every format with absurd contents: refused in one line, or read; never an exception of Python's own, never
believed."""

import json
import random
import re

import numpy as np
import pytest
from attrs import field, frozen
from attrs.validators import ge

from benchmarks.small import make
from nnac.checked import Wrong, checked, parse_json
from nnac.errors import UserError
from nnac.program import Program, ProgramError
from nnac.report import experiments, outcomes


@frozen
class Row:
    name: str
    seeds: int = field(default=1, validator=ge(1))
    share: float | None = None
    pair: tuple[int, str] | None = None


@frozen
class File:
    rows: tuple[Row, ...] = field(metadata={"key": "row"})
    names: dict[str, float] = field(factory=dict)


def test_every_problem_is_said_at_once_with_its_place():
    with pytest.raises(Wrong) as error:
        checked(File, {"row": [{"name": 3, "seeds": 1.5, "share": True}, {"seeds": 0, "name": "x", "pair": [1]}, 7, {}],
                       "names": {"a": "b"}, "x": 1})
    assert set(error.value.problems) >= {
        "row[1].name: a text is expected, not 3", "row[1].seeds: a whole number is expected, not 1.5",
        "row[1].share: a number is expected, not True", "row[2].pair: a list of 2 is expected, not of 1",
        "row[3]: a table is expected, not 7", "row[4].name: is missing", "names.a: a number is expected, not 'b'"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "\ud800", "\x1b[2J", None, [], {}],
                         ids=range(8))
def test_values_beyond_sense_are_refused(value):
    with pytest.raises(Wrong):
        checked(File, {"row": [{"name": "x", "share": value}] if not isinstance(value, str)
                       else [{"name": value}]})if value is not None else checked(
            File, {"row": [{"name": value}]})


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "NaN", "{", b"\xff", '{"a": Infinity}'], ids=range(6))
def test_json_beyond_sense_is_refused(text):
    with pytest.raises(Wrong):
        parse_json(text)


# ------------------------------------------------------------------------------------- crafted programs and checkpoints

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("small"))


VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, -0.0, "", "x", "\x1b[2J", [], {}, [[]], [1, 2, 3], {"a": 1}]


def leaves(data, path=()):
    """Paths of all values within."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for k, v in items:
        yield from leaves(v, (*path, k))


def changed(data, path, value):
    """A copy with one value exchanged (or, for ..., taken away)."""
    copy = json.loads(json.dumps(data))
    at = copy
    for k in path[:-1]:
        at = at[k]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copy


def crafted(program: Program, content):
    """The bytes of a program with other contents and a right checksum."""
    from safetensors.numpy import save

    from nnac.program import FORMAT, VERSION, _digest

    tensors = {"dram": program.dram}
    for e in program.entries.values():
        tensors[f"words.{e.name}"], tensors[f"lines.{e.name}"] = e.words, e.lines
    text = json.dumps(content)
    return save(tensors, {"nnac": json.dumps({"format": FORMAT, "version": VERSION, "sha256": _digest(tensors, text),
                                              "content": text})})


def test_a_program_of_absurd_contents_is_refused_or_runs(small):
    from nnac.decode.front_end import front_end_of
    from nnac.emulator.executor import Emulator
    from nnac.emulator.image import image

    program = Program.load(small.program)
    content = json.loads(json.dumps(program._content()))
    r = random.Random(17)
    paths = [p for p in leaves(content) if p and p[0] not in ("plan", "report")]
    tried = refused = 0
    for _ in range(400):
        data = crafted(program, changed(content, r.choice(paths), r.choice([*VALUES, ...])))
        tried += 1
        try:
            read = Program.from_bytes(data, "p")
            front_end_of(read)
            Emulator(read)
            for entry in image(read).entries.values():
                _ = entry.timing
        except UserError as error:
            assert str(error)
            refused += 1
    assert refused > tried // 2


def test_promised_cycles_are_counted(small):
    program = Program.load(small.program)
    content = json.loads(json.dumps(program._content()))
    content["entries"][1]["cycles"] += 1
    from nnac.emulator.errors import MachineError
    from nnac.emulator.executor import Emulator

    emulator = Emulator(Program.from_bytes(crafted(program, content), "p"))
    with pytest.raises(MachineError, match="promises"):
        emulator.cycles("encoder")


@pytest.mark.parametrize("what", ["bins", "sram", "width"])
def test_sizes_are_refused_before_memory_is_asked_for(small, what):
    from nnac.decode.front_end import front_end_of

    program = Program.load(small.program)
    content = json.loads(json.dumps(program._content()))
    if what == "bins":
        content["metadata"]["front_end"]["features"]["bins"] = 10**9
    elif what == "sram":
        content["target"]["sram"] = 10**13
    else:
        content["values"][0]["width"] = 10**9
    with pytest.raises(ProgramError):
        front_end_of(Program.from_bytes(crafted(program, content), "p"))


def test_a_checkpoint_of_absurd_contents_is_refused_or_read(small, tmp_path):
    from nnac import checkpoint
    from nnac.decode.recogniser import load_recogniser
    from nnac.train.policy import load_module

    r = random.Random(23)
    for source, load in ((small.checkpoint, load_module), (small.network, load_recogniser)):
        file = checkpoint.load(source)
        paths = [p for p in leaves(file.metadata) if p and p[0] != "kind" and p[:2] != ("plan", "origins")]
        for _ in range(60):
            checkpoint.save(tmp_path / "x", file.tensors, changed(file.metadata, r.choice(paths),
                                                                  r.choice([*VALUES, ...])))
            try:
                load(tmp_path / "x")
            except UserError as error:
                assert str(error).count("\n") == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_named_wherever_it_is(small, tmp_path, value):
    from nnac import checkpoint

    file = checkpoint.load(small.checkpoint)
    for name in [k for k, v in file.tensors.items() if v.dtype.kind == "f" and v.size][::5]:
        tensors = dict(file.tensors)
        tensors[name] = tensors[name].copy()
        tensors[name].reshape(-1)[-1] = value
        checkpoint.save(tmp_path / "x", tensors, file.metadata)
        with pytest.raises(checkpoint.CheckpointError, match=re.escape(name)):
            checkpoint.load(tmp_path / "x")


# ------------------------------------------------------------------------------------------- experiments, results, jobs

def test_an_experiments_file_of_absurd_values_is_one_line(tmp_path):
    import tomllib
    from pathlib import Path

    text = Path("specs/comparison/all.toml").read_text()
    r = random.Random(31)
    lines = text.split("\n")
    words = ["3", "1.5", "true", "[]", "{}", '"x"', "[[]]", "-1", "nan", "[1, 2]", "1979-05-27", "9" * 400, "9" * 5000,
             "[" * 3000, '"\\u001b"']
    for _ in range(300):
        at = r.choice([i for i, line in enumerate(lines) if "=" in line and not line.startswith("#")])
        key = lines[at].partition("=")[0]
        (tmp_path / "e.toml").write_text("\n".join([*lines[:at], f"{key}= {r.choice(words)}", *lines[at + 1:]]))
        try:
            experiments.load(tmp_path / "e.toml")
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith(str(tmp_path))
    for text in ("table = 3", "title = 3", "claim = [3]", "[[table]]\ntitle = 1\nrow = 3", "title = 'x'\nzz = 1", ""):
        (tmp_path / "e.toml").write_text(text)
        with pytest.raises(UserError):
            experiments.load(tmp_path / "e.toml")
    assert tomllib


def test_a_result_file_of_absurd_values_is_one_line(tmp_path):
    from pathlib import Path

    source = json.loads(sorted(Path("results").glob("int8-s0*.json"))[0].read_text())
    r = random.Random(37)
    paths = [p for p in leaves(source) if p and p[0] != "notes"]
    for _ in range(300):
        (tmp_path / "x.json").write_text(json.dumps(changed(source, r.choice(paths), r.choice([*VALUES, ...]))))
        try:
            outcomes.load(tmp_path / "x.json")
        except UserError as error:
            assert "\n" not in str(error)


def jobs(policy):
    """A task of every kind."""
    from nnac.policy import loads
    from nnac.train import baseline, hybrid, images, language, weight_only
    from nnac.train.policy import PolicyConfig, PolicyTask

    plan = loads(policy.read_text()).plan
    return [baseline.FloatTask(baseline.TrainConfig(), "c", "o"),
            PolicyTask(plan, PolicyConfig.of(plan, steps=3), "f", "c", "o"),
            language.FloatTask(language.LmTraining(), "t", "o"),
            language.PolicyTask(plan, language.LmPolicyConfig.of(plan, steps=3), "f", "t", "o"),
            weight_only.WeightOnlyTask(plan, PolicyConfig.of(plan, steps=3), "f", "c", "o"),
            images.PolicyTask(plan, images.ImagePolicyConfig.of(plan, steps=3), "i", "o"),
            hybrid.FloatTask(hybrid.HybridTraining(), "c", "a", "o"),
            hybrid.PolicyTask(plan, PolicyConfig.of(plan, steps=3), "f", "c", "a", "o")]


@pytest.mark.parametrize("number", range(8))
def test_a_job_file_of_absurd_values_is_one_line(number, small, tmp_path):
    from nnac.train.loop import TASKS, job_of, read_job
    from nnac.train.pace import Run

    tasks = jobs(small.policy)
    assert {t.kind for t in tasks} == {*TASKS}
    task = tasks[number]
    job = json.loads(json.dumps(job_of(task, Run())))
    (tmp_path / "j").write_text(json.dumps(job))
    assert read_job(tmp_path / "j")[0] == task
    r = random.Random(41 + number)
    paths = [p for p in leaves(job) if p]
    for _ in range(80):
        (tmp_path / "j").write_text(json.dumps(changed(job, r.choice(paths), r.choice([*VALUES, ...]))))
        try:
            read_job(tmp_path / "j")
        except UserError as error:
            assert "\n" not in str(error)
    (tmp_path / "j").write_text("[" * 100_000)
    with pytest.raises(UserError, match="deep"):
        read_job(tmp_path / "j")
    job["task"] |= {"out": 3, "colour": 1}
    job["task"]["config"] |= {"steps": "many", "batch_frames": 1.5}
    (tmp_path / "j").write_text(json.dumps(job))
    with pytest.raises(UserError) as caught:                # all of it at once, each with its place
        read_job(tmp_path / "j")
    for words in ("task.out: a text is expected, not 3", "unknown `colour`", "config.steps: a whole number",
                  "config.batch_frames: a whole number"):
        assert words in str(caught.value)
    job["kind"] = "wish"
    (tmp_path / "j").write_text(json.dumps(job))
    with pytest.raises(UserError, match="'hybrid-policy' is expected, not 'wish'"):
        read_job(tmp_path / "j")


def test_the_sizes_of_a_language_model_are_read_checked():
    from nnac.model.lm_torch import LmConfig

    with pytest.raises(Wrong, match=r"model.layers: 'layers' must be >= 1: 0; model.tied: true or false"):
        LmConfig.from_json({**LmConfig().to_json(), "layers": 0, "tied": 1})
    with pytest.raises(Wrong, match="unknown `colour`"):
        LmConfig.from_json({**LmConfig().to_json(), "colour": 0})


def test_a_part_of_a_challenge_is_read_checked(tmp_path):
    from nnac.graphblas.challenge import ChallengeError, Kept

    good = {"of": {"neurons": 1024, "layers": 3, "images": "ab"}, "active": [0, 2], "touched": 5, "seconds": 0.5}
    (tmp_path / "p").write_text(json.dumps(good))
    assert Kept.read(tmp_path / "p", 3).part.active == (0, 2)
    for key, value, words in (("active", [0, 3], "numbers of images are 0 to 2"),
                              ("touched", "many", "touched: a whole"), ("seconds", -1, "seconds"),
                              ("of", 3, "of: a table"), ("colour", 1, "unknown `colour`")):
        (tmp_path / "p").write_text(json.dumps(good | {key: value}))
        with pytest.raises(ChallengeError, match=words):
            Kept.read(tmp_path / "p", 3)
    (tmp_path / "p").write_text("{")
    with pytest.raises(ChallengeError, match="not JSON"):
        Kept.read(tmp_path / "p", 3)
