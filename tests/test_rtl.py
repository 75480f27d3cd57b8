"""The RTL core beside the emulator: the same bytes, the same cycles, the same memories."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import numpy as np
import pytest
from attrs import evolve

from nnac import codec
from nnac.cli import main
from nnac.emulator import MachineError, simulate
from nnac.emulator.listing import find_target
from nnac.isa import FIL, HALT, HOST, LDT, LDW, MVM, PROF, RQ, MachineConfig, by_opcode, encode_all
from tests.machine_programs import compiled, full, stress

pytest.importorskip("amaranth", reason="the core is described in Amaranth (extra rtl)")
build = pytest.importorskip("nnac.rtl.build")
if build.compiler() is None or shutil.which("verilator") is None:
    pytest.skip("simulating the core takes Verilator and a C++ compiler", allow_module_level=True)
pytestmark = pytest.mark.timeout(1800)            # the first builds the core: a minute of a processor of one's own

from benchmarks import cosim  # noqa: E402
from nnac.rtl import params  # noqa: E402
from nnac.rtl.cosim import differences, emulated, on_core  # noqa: E402
from nnac.rtl.machine import CoreFault, CoreMachine  # noqa: E402
from nnac.rtl.params import CoreError, check, lacking  # noqa: E402
from tests.rtl_mutants import plant  # noqa: E402
from tests.rtl_programs import ALL, CODECS, Draw, extremes, roots  # noqa: E402
from tests.time_mutants import RULES, planted  # noqa: E402

TINY = MachineConfig.of(find_target("tiny"))


@pytest.fixture(scope="module")
def tiny():
    """The core of `tiny`, simulated; its DRAM is larger than any address of the timing programs."""
    return CoreMachine(TINY, np.zeros(5 << 20, np.uint8))


@pytest.mark.parametrize("make", [compiled, stress, full], ids=lambda f: f.__name__)
def test_every_instruction_starts_and_is_done_in_the_cycle_the_emulator_says(make, tiny):
    compared = 0
    for seed in range(150):
        code, _ = make(seed, TINY)
        try:
            want = simulate(code, TINY)
        except MachineError:
            continue
        got = tiny.run(code, limit=10**6, time_only=True)
        assert (got.start.tolist(), got.done.tolist()) == (want.start.tolist(), want.done.tolist()), (
            f"{make.__name__} seed {seed}"
        )
        compared += len(code)
    assert compared > 1_000


@pytest.mark.parametrize("kind", [k for k in ALL if k not in (LDT, LDW)], ids=lambda k: k.__name__)
def test_random_programs_of_one_instruction_leave_the_same_memories(kind, tiny):
    """Weights lie in W from the start; each program is 25 of one instruction, with accumulations before what reads
    them.
    """
    compared = 0
    for seed in range(12):
        compared += same(tiny, Draw(seed, TINY, {kind: 1.0} | ({MVM: 0.5} if kind is RQ else {})).program(25))
    assert compared > 60


@pytest.mark.parametrize("name", CODECS)
def test_weight_streams_of_every_codec_become_the_words_and_inputs_the_emulator_decodes(name, tiny):
    """Tiles of all sizes follow each other in the ring, their tables reloaded, bitmaps in blocks of any shape."""
    assert sum(same(tiny, Draw(seed, TINY, {LDW: 1.0}, (name,)).program(24)) for seed in range(12)) > 200


def test_random_programs_of_all_instructions_leave_the_same_memories(tiny):
    assert sum(same(tiny, Draw(seed, TINY, ALL).program(80)) for seed in range(40)) > 2000


def test_marks_and_calls_of_the_host_are_told_with_their_numbers_and_cycles(tiny):
    code = [PROF(id=9), HOST(id=7, time=20), FIL(dst=64, bytes=16, value=5), HALT()]
    called = []

    def host(part: int) -> None:
        called.append(part)
        tiny.a[0] = 77

    tiny.reset()
    run = tiny.run(code, limit=1000, host=host)
    want = simulate(code, TINY)
    assert (run.start.tolist(), run.done.tolist()) == (want.start.tolist(), want.done.tolist())
    assert called == [7] and tiny.a[0] == 77 and run.marks == ((9, int(want.start[0])),)
    assert tiny.a[64:80].view("<u4").tolist() == [5] * 4


def test_what_a_program_must_not_do_stops_the_core(tiny):
    tiny.reset()
    with pytest.raises(CoreFault, match="reports an error"):
        tiny.run([*[FIL(signal=1) for _ in range(256)], HALT()], limit=10**5)
    tiny.reset()
    with pytest.raises(CoreFault, match="did not halt"):
        tiny.run([FIL(wait=1), HALT()], limit=1000)
    tiny.reset()
    with pytest.raises(CoreFault, match="reports an error"):
        tiny.run([FIL(), HALT()], data=bytes(32), limit=1000)


def test_the_core_has_every_instruction_and_refuses_one_that_it_lacks_by_its_name_and_by_the_hardware(
    tiny, monkeypatch
):
    """By whoever starts a program, and by fetch, as no instruction."""
    assert not lacking()
    free = next(k for k in range(1, 64) if k not in by_opcode)
    with pytest.raises(CoreFault, match="reports an error"):
        tiny.run([FIL(), HALT()], data=free.to_bytes(16, "little") + encode_all([HALT()]), limit=1000)
    tiny.reset()
    monkeypatch.setattr(params, "BUILT", tuple(cls for cls in params.BUILT if cls is not FIL))
    with pytest.raises(CoreFault, match=r"\[1\]: the core has no FIL; the emulator runs this program"):
        tiny.run([PROF(), FIL(), HALT()], limit=1000)


def test_the_last_bit_of_the_root_s_table_shows(tiny):
    case = roots(TINY)
    assert len(case.code) > 4 and same(tiny, case)


def test_the_longest_rows_and_the_most_chunks_heads_and_taps_leave_the_same_memories(tiny):
    assert same(tiny, extremes(TINY)) > 8


@pytest.mark.parametrize("name", ["raw", "entropy", "block_bitmap[4x4]+entropy"])
def test_a_stream_that_is_shorter_than_its_weights_or_ends_in_a_wrong_state_stops_the_core(name, tiny):
    rng = np.random.default_rng(5)
    matrix = np.where(rng.random((16, 40)) < 0.5, 0, rng.integers(-20, 20, (16, 40))).astype(np.int8)
    encoded = codec.encode(matrix, name, TINY.lanes)
    (tile,) = encoded.tiles

    def run(data: bytes) -> None:
        tiny.reset()
        tiny.dram[: len(encoded.header)] = np.frombuffer(encoded.header, np.uint8)
        tiny.dram[1024 : 1024 + len(data)] = np.frombuffer(data, np.uint8)
        table = LDT(bytes=len(encoded.header), steps=encoded.table_steps)
        load = LDW(dram=1024, bytes=len(data), rows=16, cols=40, live=tile.live_words, steps=tile.steps)
        tiny.run([table, load, HALT()], limit=10**5)

    run(tile.data)
    assert (tiny.w[: tile.live_words] == matrix.T[tiny.index[: tile.live_words]]).all()
    with pytest.raises(CoreFault, match="reports an error"):
        run(tile.data[:-1])
    if "entropy" in name:
        damaged = bytearray(tile.data)
        damaged[1] ^= 4  # in a lane's first state
        with pytest.raises(CoreFault, match="reports an error"):
            run(bytes(damaged))


def same(core, case) -> int:
    """Instructions compared; 0 if the drawn data make it an illegal program."""
    try:
        want = emulated(case)
    except MachineError:
        return 0
    assert not (found := differences(core, on_core(core, case), case, want)), found
    return len(case.code)


def test_planted_rules_of_time_stand_in_one_place_each_and_change_something():
    code, _ = compiled(0, TINY)
    want = simulate(code, TINY)
    changed = 0
    for _, old, new in RULES:                        # `planted` refuses a text that stands nowhere, or twice
        rules = planted(old, new)
        try:
            changed += bool((rules(code, TINY).done != want.done).any())
        except MachineError:
            changed += 1
    assert changed > 5


def test_a_core_that_cannot_be_built_is_refused_with_the_number_in_the_way():
    with pytest.raises(CoreError, match="one weight word a cycle"):
        check(MachineConfig.of(find_target("rapid")))
    with pytest.raises(CoreError, match="decoder as wide as a word"):
        check(evolve(TINY, decode_factor=2))
    with pytest.raises(CoreError, match="a port of A for each column"):
        check(evolve(TINY, a_banks=16))


def test_the_core_s_verilog_is_written_once_for_a_machine_and_again_when_it_or_its_makers_change(monkeypatch, tmp_path):
    made = []
    monkeypatch.setenv("NNAC_CACHE", str(tmp_path))

    def write(config):
        made.append(config)
        return f"core {len(made)}"

    assert [build.written(write, TINY), build.written(write, TINY)] == ["core 1", "core 1"]
    assert build.written(write, evolve(TINY, latency=TINY.latency + 1)) == "core 2"
    monkeypatch.setattr(build, "version", lambda package: "another Amaranth")
    assert build.written(write, TINY) == "core 3" and [c.latency - TINY.latency for c in made] == [0, 1, 0]


def test_without_verilator_one_line_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None if name == "verilator" else f"/usr/bin/{name}")
    with pytest.raises(CoreError, match=r"takes Verilator, and there is none \(apt-get install verilator\)"):
        build.simulator()


def test_the_command_writes_verilog_that_verilator_finds_no_fault_with(tmp_path, capsys):
    out = tmp_path / "core.v"
    assert main(["rtl", "--target", "tiny", "--out", str(out)]) == 0
    assert "core of `tiny`" in capsys.readouterr().out
    if shutil.which("verilator"):
        done = subprocess.run(
            ["verilator", "--lint-only", "--top-module", "core", str(out)], capture_output=True, text=True
        )
        assert done.returncode == 0 and "%Error" not in done.stderr, done.stderr[:2000]


FLAT = r"""
module core(clk, out);
  input clk;
  wire clk;
  output [3:0] out;
  wire [3:0] out;
  wire [3:0] \unit.sum ;
  wire [1:0] \unit.there ;
  reg [3:0] kept;
  assign \unit.sum [1:0] = kept[1:0] + 2'h1;
  assign \unit.sum [3] = kept[3];
  assign \unit.sum [2] = 1'h0;
  assign \unit.there [0] = | kept;
  assign \unit.there [1] = & kept;
  assign out = { \unit.sum [1:0], \unit.there  };
  always @(posedge clk)
    kept <= out;
endmodule
"""


def test_a_fault_goes_where_a_signal_gets_most_of_the_bits_that_are_read_or_on_the_bit_that_is_named():
    faults = (("one more", "unit.sum", "{} + 1"), ("it is there", "unit.there [0]", "1'b1"))
    text = plant(FLAT, faults)
    assert r"assign \unit.sum [1:0]  = fault == 8'd1 ? healthy_1 + 1 : healthy_1;" in text
    assert "wire [1:0] healthy_1;\n  assign healthy_1 = kept[1:0] + 2'h1;" in text
    assert r"assign \unit.there [0] = fault == 8'd2 ? 1'b1 : healthy_2;" in text
    assert text.count("fault == ") == 2 and "module core(mutant, clk, out);\n  input [7:0] mutant;" in text
    with pytest.raises(ValueError, match=r"unit.there \[2\] is not assigned by itself"):
        plant(FLAT, (("", "unit.there [2]", "1'b1"),))
    with pytest.raises(ValueError, match=r"unit.other is not assigned"):
        plant(FLAT, (("", "unit.other", "1'b1"),))


def numbers_done(target: str, library: str, numbers: range) -> dict:
    return dict(count=len(numbers), seen=list(numbers))


def test_pieces_of_a_co_simulation_are_kept_and_a_run_that_was_stopped_goes_on(tmp_path, capsys):
    state, library = tmp_path / "state.jsonl", tmp_path / "0123456789ab" / "core.so"

    def run(count: int, until: float) -> dict:
        kept = cosim.Kept(state, {"tiny": library})
        return cosim.Pieces(kept, 1, until).figures(numbers_done, "tiny", "tiny", library, cosim.pieces(count, 4))

    assert run(4, time.monotonic() + 100) == dict(count=4, seen=[0, 1, 2, 3])
    assert run(10, 0) == dict(count=4, seen=[0, 1, 2, 3])  # too late for the others
    assert "numbers_done on tiny: 2 of 3 pieces are left for another run" in capsys.readouterr().out
    assert run(10, time.monotonic() + 100) == dict(count=10, seen=list(range(10)))
    keys = [json.loads(line)["key"] for line in state.read_text().splitlines()]
    assert len(keys) == 3 and all(key.startswith("numbers_done tiny:0123456789ab ") for key in keys)
    state.write_text("no piece\n")
    assert run(4, 0) == {} and "a line that is no piece is passed over" in capsys.readouterr().out


def test_lines_that_ran_are_added_up_over_the_instances_of_a_module():
    def point(line: int, place: str, count: int) -> str:
        fields = dict(f="core.v", l=line, n=7, page="v_line/lane", o="if", h=place)
        return "C '" + "".join(f"\x01{k}\x02{v}" for k, v in fields.items()) + f"' {count}\n"

    text = "# SystemC::Coverage-3\n" + point(12, "core.lane_0", 3) + point(12, "core.lane_1", 4) + point(90, "core", 0)
    assert cosim.points(text) == {(12, "7if"): 7, (90, "7if"): 0}
