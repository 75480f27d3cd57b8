"""Bounds by what instructions need: below every schedule, worked by hand where small, and near what the bundled
policies take."""

import io

import numpy as np
import pytest
from rich.console import Console

from benchmarks import bench_nna
from nnac import isa
from nnac.emulator.timing import simulate
from nnac.isa.text import assemble
from nnac.program import INIT
from nnac.schedule.bounds import Bound, bound, of_code
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.proof import decoded
from tests.graphs import random_graph, with_codebook
from tests.schedules import EDGE, LARGE, TINY

CONFIG = isa.MachineConfig.of(EDGE)


@pytest.mark.parametrize(("target", "bits"), [(EDGE, 8), (LARGE, 4), (TINY, 8), *((t, 4) for t in bench_nna.RAPIDS)],
                         ids=lambda p: getattr(p, "name", p))
def test_no_call_is_faster_than_its_bound_nor_the_bound_than_a_unit(target, bits):
    graph = random_graph(bits, size="small", layers=2, cells=64)
    program = compile_graph(graph if bits == 8 else with_codebook(graph, bits), target,
                            Settings(frames=3, hypotheses=4))
    for name, entry in program.entries.items():
        if name == INIT:
            continue
        least, config = bound(program, name), isa.MachineConfig.of(program.target)
        timing = simulate(decoded(entry), config)
        assert entry.cycles >= least.cycles == sum(least.shares.values()), name
        for unit in ("DA", "MV", "VX"):
            own = timing.unit == isa.UNITS.index(unit)
            assert least.cycles >= (timing.free - timing.start)[own].sum(), (name, unit)
        assert least.cycles >= np.ceil(timing.bursts.sum() * config.burst_cycles), name


def least(*lines: str) -> Bound:
    return of_code(assemble("\n".join([*lines, "HALT"])).code["main"], CONFIG)


PRODUCT = "MVM word={} words=10 act=0 span=10 stride=0 columns=1 bank={} clear=1 weights=0 act16=0"
SUMS = "RQ dst={} params=0x4000 addend=0 rows=64 bank={} columns=1 stride=0 out=1 add=0 wide=0 double=0"


def test_a_bound_by_hand():
    # from cycle 1: 10 words, 4 cycles until the sums are there; RQ of 64 rows: 8 + 64 / 16
    assert least(PRODUCT.format(512, 0), SUMS.format(0x1000, 0)) == Bound(
        27, {"latency": 1, "multipliers": 14, "vector unit": 12})
    # ten products follow each other without a gap; the last one's sums then
    code = [line for k in range(4) for line in (PRODUCT.format(512 + 10 * k, k), SUMS.format(0x1000 + 256 * k, k))]
    assert least(*code).cycles == 1 + 14 + 4 * 12, "VX, which cannot begin before the first sums are there"
    # and whatever reads all four results needs them all: a second phase adds up
    next_ = "MVM word=600 words=30 act=0x1000 span=1000 stride=0 columns=1 bank=0 clear=1 weights=0 act16=0"
    assert least(*code, next_, SUMS.format(0x2000, 0)).cycles == (1 + 14 + 4 * 12) + 34 + 12


def test_the_order_in_which_they_stand_does_not_matter():
    first = [PRODUCT.format(512, 0), SUMS.format(0x1000, 0)]
    other = [PRODUCT.format(522, 1), SUMS.format(0x2000, 1)]
    assert least(*first, *other) == least(first[0], other[0], *other[1:], *first[1:])


def test_whole_recognitions_of_bundled_policies_are_within_5_percent_of_the_roofline_or_of_their_bound():
    """Those that were furthest from it; of all policies: `make bench-bounds`."""
    found = {}
    for name in ("int4_conformer:int4_conformer", "aat:aat_cpu"):
        found |= bench_nna.bundled(Console(file=io.StringIO()), name)
    assert len(found) == 4 and all(min(w["roofline"], w["bound"]) <= bench_nna.HELD for w in found.values()), found
    by = {key.split("/")[1]: w["by"].split()[0] for key, w in found.items() if "greedy" in key}
    assert by == {"int4_conformer:int4_conformer": "vector", "aat:aat_cpu": "DRAM"}
