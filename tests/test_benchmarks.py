"""What benchmarks stand on stays sound between the days on which somebody runs them."""

import io

from rich.console import Console

from benchmarks import bench_language, bench_nna
from nnac.language.check import check_text
from tests.graphs import random_graph


def test_policies_of_many_rules_have_no_errors():
    checked = check_text(bench_language.policy(300), "many.nnac")
    assert checked.errors == 0 and checked.resolutions[0].plan is not None


def test_no_part_of_a_program_beats_its_roofline():
    cases = {("tiny", way): (random_graph(0, size="tiny", cells=64, bidirectional=way == "both ways"), 4)
             for way in ("streaming", "both ways")}
    said = io.StringIO()
    over, _ = bench_nna.schedules(cases, Console(file=said, width=200))
    assert {"tiny/streaming/edge", "tiny/both ways/edge/lstm[1].backward",
            "tiny/both ways/edge/end/frames"} <= over.keys()
    assert all(1 <= ratio < 20 for ratio in over.values()) and "encoder.lstm[0].forward.steps" in said.getvalue()
