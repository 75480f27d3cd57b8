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
from nnac.schedule.compile import CompileError, Settings, compile_graph
from nnac.schedule.proof import decoded
from tests import machine_programs
from tests.graphs import random_graph, with_codebook
from tests.schedules import EDGE, LARGE, TINY, random_case

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


TILE = "LDW dram={} bytes={} word=0 rows=64 cols={} live={} steps={} table=0"


def test_a_tile_that_is_used_again_has_its_place_in_w_until_then():
    again = "MVM word=0 words={} act={} span=500 stride=0 columns=1 bank=0 clear=1 weights=0 act16=0"
    first = [TILE.format(0, 128, 500, 500, 500), again.format(500, "0x0"), SUMS.format(0x1000, 0),
             again.format(500, "0x1000"), SUMS.format(0x2000, 0)]
    # 2 + 250 until the first byte, a burst of 18, 502 in the decoder, 504 until the sums are there, 12: cycle 1288, and
    # 516 for the second product
    assert least(*first).cycles == 252 + 18 + 502 + 504 + 12 + 516
    # of 512 words 12 are left at cycle 1288: 88 of a tile of 100 are asked for after it, of 1,707 cycles 205 before;
    # then 102 in the decoder, 104, 12
    other = [TILE.format(128, 12_800, 100, 100, 100), again.format(100, "0x2000"), SUMS.format(0x3000, 0)]
    assert least(*first, *other) == Bound(1288 + 252 + 1707 - 205 + 218, {
        "latency": 252, "DRAM": 18 + 252 + 1707 - 205 + 218, "decoder": 502, "multipliers": 504, "vector unit": 12})
    # of a tile of which products use a part nobody says that it lies there as a whole
    part = [line.replace("words=500", "words=100") for line in first]
    assert least(*part, *other).cycles == 252 + 18 + 1707 + 218


def test_multipliers_wait_for_a_long_vector_instruction_when_every_bank_is_full():
    """Ten sums of 100 products, each read by RQ, beside moves of 8 + n / 64 cycles."""
    long = [line for k in range(10) for line in (PRODUCT.format(512 + 10 * k, k % 4).replace("words=10", "words=100"),
                                                 SUMS.format(0x10000 + 256 * k, k % 4))]
    move = "CPY src=0x3000 dst=0x20000 bytes=12800 count={} sstride=0 dstride=12800"
    assert least(*long).cycles == 1 + 1000 + 4 + 12
    # of 1,000 cycles four sums, 400, can be made while it runs
    assert least(*long, move.format(3)).cycles == 1 + 1000 + 608 - 400
    assert least(*long, move.format(1)).cycles == 1 + 1000 + 4 + 12, "208 cycles: no more than two sums take"
    # three of the ten need what is moved, and do not run beside it: four others can, and the last product's end is left
    after = [line.replace("act=0 ", "act=0x20000 ") if k >= 14 else line for k, line in enumerate(long)]
    assert least(move.format(3), *after).cycles == 1 + 1000 + 608 - 400 + 4 + 12
    # with all ten behind it nothing does
    after = [line.replace("act=0 ", "act=0x20000 ") for line in long]
    assert least(move.format(3), *after).cycles == 1 + 608 + 1000 + 4 + 12


@pytest.mark.parametrize("seed", range(60))
def test_no_program_as_compilers_order_them_is_faster_than_its_bound(seed):
    code, config = machine_programs.compiled(seed)
    assert of_code(code, config).cycles <= simulate(code, config).cycles


@pytest.mark.parametrize("seed", range(4))
def test_no_call_of_a_random_graph_is_faster_than_its_bound(seed):
    case = random_case(seed)
    try:
        program = compile_graph(case.graph, case.target, case.settings)
    except CompileError:
        return
    for name in program.entries.keys() - {INIT}:
        assert bound(program, name).cycles <= program.entries[name].cycles, (name, case.text)


def test_the_order_in_which_they_stand_does_not_matter():
    first = [PRODUCT.format(512, 0), SUMS.format(0x1000, 0)]
    other = [PRODUCT.format(522, 1), SUMS.format(0x2000, 1)]
    assert least(*first, *other) == least(first[0], other[0], *other[1:], *first[1:])


def recognitions(compiled):
    return bench_nna.recognitions(compiled, Console(file=io.StringIO()))


def test_whole_recognitions_of_bundled_policies_are_within_5_percent_of_the_roofline_or_of_their_bound():
    """Those that were furthest from it; of all policies: `make bench-bounds`."""
    found = {}
    for name in ("int4_conformer:int4_conformer", "aat:aat_cpu"):
        found |= recognitions(bench_nna.bundled(name))
    assert len(found) == 4 and not bench_nna.beyond(found), found
    by = {name: w["by"].split()[0] for name in ("int4_conformer", "aat_cpu") for key, w in found.items()
          if f":{name}/" in key and "greedy" in key}
    assert by == {"int4_conformer": "vector", "aat_cpu": "DRAM"}


@pytest.mark.parametrize("name", ["rnnt small/int8/rapid", "rnnt small/cb4/rapid", "rnnt medium/int8/rapid_chip"])
def test_whole_recognitions_of_several_frames_a_call_on_machines_of_short_calls_are_too(name):
    """Tiles that a recurrence keeps in W leave others less room; rows of an embedding are fetched under products with
    the hidden state."""
    found = recognitions(bench_nna.sized(name))
    assert {"frames" in key for key in found} == {False, True} and not bench_nna.beyond(found), found
    assert all(w["bound"] <= bench_nna.HELD for w in found.values())
