"""Whole programs on the RTL core: what the compiler makes, entry by entry; the engine `rtl`."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from nnac.program import INIT
from nnac.schedule.compile import Settings, compile_graph
from tests.graphs import random_graph
from tests.schedules import TINY

pytest.importorskip("amaranth", reason="the core is described in Amaranth (extra rtl)")
build = pytest.importorskip("nnac.rtl.build")
if build.compiler() is None or shutil.which("verilator") is None:
    pytest.skip("simulating the core takes Verilator and a C++ compiler", allow_module_level=True)
pytestmark = pytest.mark.timeout(1800)            # the first builds the core: a minute of a processor of one's own

from benchmarks.cosim import network  # noqa: E402
from nnac.compare import Comparison, recorder, tally, unseen  # noqa: E402
from nnac.emulator.image import image  # noqa: E402
from nnac.executors import Subject, executor  # noqa: E402
from nnac.formats import Precision  # noqa: E402
from nnac.isa import DOT, DWC, GATE, KEEP, MIX, SMAX, MachineConfig  # noqa: E402
from nnac.rtl.machine import CoreFault  # noqa: E402
from nnac.rtl.program import ProgramOnCore  # noqa: E402


@pytest.fixture(scope="module")
def program():
    """An RNN-T of two layers with layer norm, sparse weights in bitmaps and entropy codes, two frames at a time."""
    graph = random_graph(3, size="tiny", layers=2, cells=40, norm=True, sparsity=0.7)
    return compile_graph(graph, TINY, Settings(frames=2))


def test_a_compiled_network_leaves_the_same_memories_in_every_entry(program, tmp_path):
    program.save(tmp_path / "p.nnp")
    figures = network("tiny", str(build.build(MachineConfig.of(TINY)).library), 3, str(tmp_path / "p.nnp"), None)
    assert figures["different"] == 0 and figures["entries"] == len(program.entries) - (INIT in program.entries)
    assert figures["bytes"] > 10**6


def test_a_conformer_leaves_the_same_memories_in_every_entry(tmp_path):
    """Two blocks of attention and convolution over rings that go round."""
    graph = random_graph(
        1, model="conformer", size="tiny", blocks=2, chunk=2, left=4, kernel=7, positions=24,
        precision=lambda path: Precision(activations=16 if path.endswith(".sum") else 8),
    )
    program = compile_graph(graph, TINY, Settings())
    program.save(tmp_path / "p.nnp")
    used = {type(i) for entry in image(program).entries.values() for i in entry.code}
    assert used > {DOT, DWC, GATE, KEEP, MIX, SMAX}
    figures = network("tiny", str(build.build(MachineConfig.of(TINY)).library), 8, str(tmp_path / "p.nnp"), None)
    assert figures["different"] == 0 and figures["bytes"] > 10**6


def test_the_engine_rtl_gives_the_integers_and_states_of_the_emulator(program):
    subject, rng = Subject(compiled=program), np.random.default_rng(0)
    core, emulator = executor("rtl", subject), executor("emulator", subject)
    (name,) = emulator.inputs["encoder"]
    v = emulator.values[name]
    x = {name: rng.integers(-100, 100, (4 * v.rate, 2, v.width))}
    state = emulator.initial_state("encoder", 2)
    (got, after), (want, expected) = core.run("encoder", x, state), emulator.run("encoder", x, state)
    assert all((got[k] == want[k]).all() for k in want) and all((after[k] == expected[k]).all() for k in expected)


def test_what_the_core_does_not_show_is_counted_and_neither_equal_nor_different(program):
    """Values within an entry are overwritten before anyone can look: they were 49,152 differences of a model that was
    right.  What the core does show is compared, and a fault in it is found."""
    subject, rng = Subject(compiled=program), np.random.default_rng(0)
    core, emulator = executor("rtl", subject), executor("emulator", subject)
    (name,) = emulator.inputs["encoder"]
    v = emulator.values[name]
    x = {name: rng.integers(-100, 100, (4 * v.rate, 2, v.width))}
    seen: list[list] = [[], []]
    for one, events in zip((emulator, core), seen, strict=True):
        one.run("encoder", x, one.initial_state("encoder", 2), recorder(events))
    hidden = unseen(emulator, core)
    out = Comparison()
    tally(out, seen[0], seen[1], [0, 1], hidden)
    assert out.different == 0 and set(out.by_value) == set(emulator.outputs["encoder"])
    assert out.unseen and set(out.unseen) == {n for n, _ in seen[0]} - set(out.by_value) <= hidden
    wrong = Comparison()
    tally(wrong, seen[0], [(n, v + 1) for n, v in seen[1]], [0, 1], hidden)
    assert wrong.different == wrong.compared == out.compared > 0


def test_a_core_whose_times_are_not_the_emulator_s_is_a_fault(program):
    core = ProgramOnCore(program)
    entry = core.image.entry("encoder.step")
    entry.timing.done[3] += 1
    with pytest.raises(CoreFault, match=r"encoder.step \[3\]"):
        core.run("encoder.step")
