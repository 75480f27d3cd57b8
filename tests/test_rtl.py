"""The RTL core beside the emulator: the same bytes, the same cycles, the same memories."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from attrs import evolve

from nnac.cli import main
from nnac.emulator import MachineError, simulate
from nnac.emulator.listing import find_target
from nnac.isa import MachineConfig
from tests.machine_programs import compiled, stress

pytest.importorskip("amaranth", reason="the core is described in Amaranth (extra rtl)")
build = pytest.importorskip("nnac.rtl.build")
if build.compiler() is None:
    pytest.skip("simulating the core takes a C++ compiler", allow_module_level=True)

from nnac.rtl.machine import CoreMachine  # noqa: E402
from nnac.rtl.params import CoreError, check  # noqa: E402

TINY = MachineConfig.of(find_target("tiny"))


@pytest.fixture(scope="module")
def tiny():
    """The core of `tiny`, simulated; its DRAM is larger than any address of the timing programs."""
    return CoreMachine(TINY, np.zeros(5 << 20, np.uint8))


@pytest.mark.parametrize("make", [compiled, stress], ids=lambda f: f.__name__)
def test_every_instruction_starts_and_is_done_in_the_cycle_the_emulator_says(make, tiny):
    compared = 0
    for seed in range(150):
        code, _ = make(seed, TINY)
        try:
            want = simulate(code, TINY)
        except MachineError:
            continue
        got = tiny.run(code, limit=10**6, time_only=True)
        assert (got.start.tolist(), got.done.tolist()) == (want.start.tolist(), want.done.tolist()), f"{make.__name__} seed {seed}"
        compared += len(code)
    assert compared > 2_000


def test_a_core_that_cannot_be_built_is_refused_with_the_number_in_the_way():
    with pytest.raises(CoreError, match="one weight word a cycle"):
        check(MachineConfig.of(find_target("rapid")))
    with pytest.raises(CoreError, match="decoder as wide as a word"):
        check(evolve(TINY, decode_factor=2))


def test_the_command_writes_verilog_that_verilator_finds_no_fault_with(tmp_path, capsys):
    out = tmp_path / "core.v"
    assert main(["rtl", "--target", "tiny", "--out", str(out)]) == 0
    assert "core of `tiny`" in capsys.readouterr().out
    if shutil.which("verilator"):
        done = subprocess.run(["verilator", "--lint-only", "--top-module", "core", str(out)], capture_output=True, text=True)
        assert done.returncode == 0 and "%Error" not in done.stderr, done.stderr[:2000]
