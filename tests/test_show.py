"""``nnac show``: each stage of what a file holds, and one clear line for a stage that it does not."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from nnac import compiler
from nnac.cli import main
from nnac.ir import QGraph
from nnac.plan import Plan
from nnac.program import Program
from tests.graphs import bind_randomly

TINY = str(Path(__file__).parent / "tiny.nnac")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """A program of the tiny policy with weights at random."""
    from nnac.schedule.compile import Settings, compile_graph

    plan = compiler.resolve(TINY)
    graph = compiler.lower(plan)
    graph = evolve(graph, metadata={**graph.metadata, "vocabulary": graph.values["joint.output"].width})
    made = compile_graph(bind_randomly(graph, np.random.default_rng(1)), plan.target, Settings.of(plan),
                         plan=plan.to_json())
    path = tmp_path_factory.mktemp("show") / "tiny.nnp"
    made.save(path)
    return path


def show(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    status = main(["show", *map(str, args)])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_a_policy_shows_its_plan_and_its_graph(capsys):
    plan = compiler.resolve(TINY)
    assert show(capsys, TINY, "--stage", "plan") == (0, f"{plan}\n", "")
    assert show(capsys, TINY) == show(capsys, TINY, "--stage", "graph") == (0, f"{compiler.lower(plan)}\n", "")
    assert "encoder.lstm[0] = lstm(" in show(capsys, TINY)[1]


def test_a_program_shows_itself_and_what_it_was_made_from(capsys, program):
    status, text, _ = show(capsys, program)
    loaded = Program.load(program)
    assert status == 0 and text == f"{loaded}\n" and len(text.splitlines()) < 40
    for name, entry in loaded.entries.items():
        assert any(line.split()[0] == name and f"{entry.cycles:,} cycles" in line for line in text.splitlines()), name
    plan = compiler.resolve(TINY)
    assert show(capsys, program, "--stage", "graph")[1] == f"{compiler.lower(plan)}\n"
    assert Plan.from_json(json.loads(show(capsys, program, "--stage", "plan", "--json")[1])).sites == plan.sites


def test_json_says_what_the_text_says(capsys, program):
    graph = json.loads(show(capsys, TINY, "--json")[1])
    lowered: QGraph = compiler.lower(compiler.resolve(TINY))
    assert [n["path"] for n in graph["nodes"]] == [n.path for n in lowered.nodes]
    assert [v["name"] for v in graph["values"]] == list(lowered.values)
    entries = json.loads(show(capsys, program, "--json")[1])["entries"]
    assert {e: v["cycles"] for e, v in entries.items()} == {e: v.cycles
                                                            for e, v in Program.load(program).entries.items()}


@pytest.mark.parametrize("stage, word", [("bound", "nnac train"), ("program", "nnac compile")])
def test_a_stage_that_a_policy_does_not_have_is_one_line_that_says_where_it_comes_from(capsys, stage, word):
    status, out, err = show(capsys, TINY, "--stage", stage)
    assert status == 2 and not out and word in err and len(err.splitlines()) == 1


def test_a_file_of_another_kind_is_one_line(capsys, tmp_path, program):
    other = tmp_path / "x.bin"
    other.write_bytes(b"\0" * 100)
    for path in (other, tmp_path, tmp_path / "none.nnp"):
        status, out, err = show(capsys, path)
        assert status == 1 and not out and len(err.splitlines()) == 1 and str(path) in err
    assert show(capsys, program, "-D", "bits=4")[0] == 2


def test_showing_a_policy_is_as_light_as_lowering_one():
    code = ("import sys; from nnac.cli import main; main(['show', sys.argv[1], '--stage', 'plan']); print('torch' in "
            "sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, TINY], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("False\n"), done.stderr
