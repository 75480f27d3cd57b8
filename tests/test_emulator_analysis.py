"""Where the time goes: partitions that add up, costs that can be counted by hand, a timeline that a viewer opens, a
debugger that can be scripted."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from nnac.cli import main
from nnac.emulator import Machine, clocked
from nnac.emulator.analysis import RESOURCES, WORK, analyse
from nnac.emulator.debug import Debugger
from nnac.emulator.image import image
from nnac.emulator.trace import write_trace
from nnac.isa import FIL, HALT, LDT, LDW, MVM, RQ, MachineConfig
from nnac.isa.base import bits
from nnac.isa.text import Assembly, assemble
from nnac.target import Dram, Target
from tests.machine_programs import compiled, stress

EDGE = Target("edge", 500_000_000, 64, 4, 512 << 10, 128 << 10, Dram(3_750_000_000, 250, 128),
              {"int8": Fraction(1), "int16": Fraction(1, 2)})


def analysis(seed, make=compiled):
    from nnac.emulator.image import Entry

    code, config = make(seed)
    if min(clocked.run(code, config)[1]) < 0:
        pytest.skip("stops for ever")
    return analyse_entry(Entry("main", tuple(code), [("", "")] * len(code), config,
                               dict(A=1 << 20, W=1 << 14, ACC=64, LUT=8, TABLE=4, DRAM=1 << 24)))


def analyse_entry(entry):
    from nnac.emulator.analysis import Analysis
    from nnac.emulator.timing import simulate

    # without the race detector: these programs may race
    entry.__dict__["timing"] = simulate(entry.code, entry.config)
    return Analysis(entry)


@pytest.mark.parametrize("make", [compiled, stress], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(12))
def test_every_cycle_of_every_unit_has_one_reason(seed, make):
    a = analysis(seed, make)
    for resource in RESOURCES:
        now = 0
        for span in a.spans(resource):
            assert span.first == now and span.end > now, (resource, span)
            now = span.end
        assert now == a.entry.timing.cycles
        assert sum(a.reasons[resource].values()) == a.entry.timing.cycles


@pytest.mark.parametrize("seed", range(8))
def test_a_unit_that_waits_for_a_semaphore_could_not_have_started(seed):
    """Every waiting cycle that is blamed on a semaphore is one in which that semaphore stood at zero, counted
    independently."""
    a = analysis(seed)
    t, code = a.entry.timing, a.entry.code
    for resource in ("DW", "DA", "MV", "VX"):
        for span in a.spans(resource):
            if span.reason.startswith("s") and " from " in span.reason:
                s = int(span.reason[1:].split()[0])
                for c in (span.first, span.end - 1):
                    given = sum(1 for k, i in enumerate(code) if i.signal >> s & 1 and t.done[k] < c)
                    used = sum(1 for k, i in enumerate(code) if i.wait >> s & 1 and t.start[k] < c)
                    assert given == used, (span, c)


def test_work_is_what_the_formulas_say():
    a = analysis(3)
    busy = sum(i.cycles(a.config)[0] for i in a.entry.code if isinstance(i, MVM))
    assert a.reasons["MV"][WORK] == busy == a.roofline.matrix_cycles
    moved = {u: sum(int(n) for n, i in zip(a.entry.timing.bursts, a.entry.code, strict=True) if i.unit == u)
             for u in ("DW", "DA")}
    held = a.reasons["DRAM"].get("DW", 0) + a.reasons["DRAM"].get("DA", 0)
    assert held >= a.config.burst_cycles * sum(moved.values())
    assert a.roofline.dram_bytes == a.config.burst * sum(moved.values())


@pytest.mark.parametrize("rows, columns, weights, act16, cycles", [
    (64, 4, 0, 0, 10), (64, 1, 0, 0, 10 / 4), (1, 4, 0, 0, 10 / 64), (16, 2, 0, 1, 10 * 2 / 8), (64, 4, 1, 0, 10)])
def test_the_roof_is_lanes_times_columns_and_what_idles_is_no_mac_and_no_joule(rows, columns, weights, act16, cycles):
    """Ten words of `edge`, 64 lanes and 4 columns, of which so many rows and columns are used."""
    code = (MVM(words=10, act=0, span=20, stride=64, columns=columns, bank=1, clear=1, weights=weights, act16=act16,
                signal=1),
            RQ(dst=4096, params=1024, rows=rows, bank=1, columns=columns, stride=128, wait=1), HALT())
    a = analyse(image(Assembly({"main": code}), target=EDGE))
    macs = (5 if weights == 1 else 10) * rows * columns
    (cost,) = a.layers
    assert (a.roofline.macs, cost.macs) == (macs, macs)
    assert float(a.roofline.compute_cycles) == cycles <= a.roofline.matrix_cycles
    assert cost.vector_lanes == rows * columns
    # ten words of `rows` lanes; parameters; what the product reads and the requantisation writes
    span = 20 * (2 if act16 else 1)
    assert cost.sram_bytes == 10 * rows + columns * (span + rows) + 8 + 8 * rows
    joules = macs * (2 if act16 or weights == 1
        else 1) * EDGE.energy.mac + cost.sram_bytes * EDGE.energy.sram + rows * columns * EDGE.energy.vector
    assert cost.energy == pytest.approx(float(joules))


def test_energy_is_counted_from_the_table():
    # one tile of 64 x 4 raw weights and one product with two columns; by hand:
    code = [LDT(bytes=1, signal=2), LDW(dram=16, bytes=256, rows=64, cols=4, live=4, steps=4, signal=1),
            MVM(words=4, span=4, columns=2, stride=8, clear=1, wait=1), FIL(dst=1024, bytes=64), HALT()]
    made = image(assemble("data 0 hex 00\ndata 0x10f u8 1\nHALT"), target=EDGE)
    from nnac.isa.text import Assembly

    made = image(Assembly({"main": code}, {"main": [("one", "")] * 5}, (), ((0, bytes(512)),)), target=EDGE)
    a = analyse(made)
    (cost,) = a.layers
    assert cost.macs == 4 * 64 * 2
    # LDT: the burst at 0; LDW: 16..271 lies in bursts 0, 1, 2, of which 0 is still held
    assert cost.dram_bytes == 128 + 2 * 128
    # LDW writes 4 words, MVM reads 4 words and 2 x 4 activations, FIL writes 64 bytes
    assert cost.sram_bytes == 4 * 64 + 4 * 64 + 8 + 64
    assert cost.vector_lanes == 16                     # one beat of 16: 64 bytes at 64 a cycle
    table = EDGE.energy
    assert cost.energy == pytest.approx(float(512 * table.mac + 384 * table.dram + 584 * table.sram +
                                              16 * table.vector))
    assert "one" in str(a) and "roofline" in str(a)


def test_the_timeline_is_json_with_layers_on_it(tmp_path):
    text = ('data 0 hex 00\nentry main:\n FIL bytes=64 signal=s0 @enc.lstm[0] "p.nnac:3"\n'
            ' CPY src=0 dst=128 bytes=64 wait=s0 @enc.lstm[1]\n HALT')
    write_trace(tmp_path / "t.json", [analyse(image(assemble(text), target=EDGE))] * 2)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    work = [e for e in events if e["ph"] == "X" and e["name"].startswith(("FIL", "CPY"))]
    assert [e["name"] for e in work] == ["FIL enc.lstm[0]", "CPY enc.lstm[1]"] * 2
    assert work[0]["args"]["policy"] == "p.nnac:3" and work[0]["ts"] == 1 / 500 and work[0]["dur"] == 9 / 500
    # the second run follows the first
    assert work[2]["ts"] * 500 == 1 + analyse(image(assemble(text), target=EDGE)).entry.timing.cycles


def test_the_picture_has_a_bar_for_every_layer_that_works():
    from xml.etree import ElementTree

    from nnac.emulator.picture import PALETTE, svg

    run = analyse(image(assemble("FIL bytes=6400 @a\nMVM act=8192 words=50 span=50 clear=1 @b<c\nFIL dst=6400 "
                                 "bytes=64\nHALT"), target=EDGE))
    tree = ElementTree.fromstring(svg(run, width=run.entry.timing.cycles))       # a column a cycle: bars are exact
    bars = [r.attrib for r in tree.iter("{http://www.w3.org/2000/svg}rect")
            if int(r.get("height", "0").rstrip("%")) == 26 and r.get("fill") != "none"]
    a, b = (next(x for x in bars if x["fill"] == colour) for colour in PALETTE[:2])
    assert (int(a["x"]) - 92, int(a["width"])) == (1, 108) and (int(b["x"]) - 92, int(b["width"])) == (2, 50)
    with pytest.raises(ValueError, match="has cycles 0"):
        svg(run, 5, 5)


def test_the_picture_of_many_layers_colours_what_they_belong_to_and_marks_numbered_parts():
    from nnac.emulator.analysis import WORK
    from nnac.emulator.picture import PALETTE, groups_of, svg

    layers = [f"enc.block[{b}].{part}[{k}].{n}" for b in range(3) for part in "fg" for k in range(2) for n in "xy"]
    assert len(layers) > len(PALETTE) and groups_of(layers[:3]) == {n: n for n in layers[:3]}
    assert set(groups_of(layers).values()) == {"enc.block.f.x", "enc.block.f.y", "enc.block.g.x", "enc.block.g.y"}
    assert set(groups_of([f"a.l{k}" for k in range(20)]).values()) == {"a"}
    code = "\n".join(f"FIL bytes=640 @{n}" for n in layers)
    run = analyse(image(assemble(f"{code}\nHALT"), target=EDGE))
    text = svg(run, width=run.entry.timing.cycles)
    assert [text.count(f">{name}<") for name in ("block[0]", "block[2]", "enc.block.f.x", layers[0])] == [1, 1, 1, 0]
    first = [span.first for span in run.spans("VX") if span.reason == WORK][8]
    assert f'd="M{92 + first} ' in text                    # where block[1] begins
    assert ">block[0]<" not in svg(run, first, first + 5)


SCRIPT = """
entry main:
  FIL dst=0 bytes=64 value=0x01010101 signal=s0     @a.one "p:1"
  MVM act=0 span=16 words=4 clear=1 wait=s0         @a.two "p:2"
  FIL dst=256 bytes=64 value=2                      @b
  HALT
"""


def debugger(text=SCRIPT):
    return Debugger(Machine(assemble(text), MachineConfig(a_bytes=4096)))


def test_breakpoints_stop_by_instruction_layer_cycle_and_address():
    for what, cycle in [("break 1", 10), ("break layer a.t*", 10), ("break cycle 10", 10), ("break write A 300", 10),
                        ("break read A 3", 10),
                        ("break write ACC 0", 10), ("until 10", 10), ("break layer b", 10),
                        ("break write A 0x1ff", None)]:
        d = debugger()
        said = d.command(what)
        said = d.command("run") if what.startswith("break") else said
        assert (f"cycle {cycle}:" in said) if cycle else ("finished" in said), (what, said)


def test_stepping_shows_the_machine_as_it_is_in_that_cycle():
    d = debugger()
    assert d.command("where").startswith("cycle 1: [0] VX 1..9") and "policy p:1" in d.command("where")
    assert d.command("print A 0 4 i8") == "0 0 0 0"
    d.command("step")
    assert d.command("print A 0 2 i32") == "16843009 16843009" and "HALT" in d.command("where")
    d.command("step 1")
    assert (d.command("semaphores").startswith("s0=1 s1=0") and "MV: [1] MV 10..17" in d.command("units")
            and "DW: idle" in d.command("units"))
    assert "-> [1] MV 10..17" in d.command("list 1") and " * [0] VX" in d.command("list 1")
    assert "finished" in d.command("run")
    d.command("restart")
    assert d.command("print A 0 4 u8") == "0 0 0 0" and "cycle 1:" in d.command("where")


def test_restart_also_undoes_what_the_program_stored_in_dram():
    d = debugger("LDA dram=0x400 dst=0 bytes=16\nFIL dst=64 bytes=16 value=7 signal=s0\nSTA src=64 dram=0x400 bytes=16 "
                 "wait=s0\nHALT")
    for _ in range(2):
        assert "finished" in d.command("run") and d.command("print A 0 1 i32") == "0"
        d.command("restart")


@pytest.mark.parametrize("name", ["a", "w", "index", "tag", "acc", "luts", "scratch", "headers"])
def test_restart_puts_every_memory_back(name):
    d = debugger("STA src=0 dram=0x400 bytes=16\nHALT")
    memory = getattr(d.machine.memories, name)
    before = memory.copy()
    memory[:] = [b"header"] * len(memory) if name == "headers" else np.ones_like(memory)
    d.command("restart")
    assert len(memory) and np.array_equal(memory, before)


@pytest.mark.parametrize("line, answer", [
    ("fly", "no command is called `fly`"), ("step x", "`x` is not a number"), ("break 9", "has 4 instructions"),
    ("break layer c", "no layer matches `c` (there are: a.one, a.two, b)"), ("print A 4094 4 i8", "A ends at 0x1000"),
    ("print z", "nothing is called `z`"),
    ("delete 1", "there is no breakpoint 1"), ("break write B 3", "`break` takes"), ("until", "does not take nothing"),
                                          ("", "")])
def test_a_wrong_command_says_so(line, answer):
    assert answer in debugger().command(line)


def test_a_program_with_a_race_can_be_debugged_and_is_announced():
    d = debugger("LDA dram=0 dst=0 bytes=16\nFIL dst=8 bytes=4\nHALT\ndata 0 i32 1 2 3 4")
    assert "hazard" in d.warning and "a semaphore is missing" in d.warning
    assert "finished" in d.command("run")


def test_commands_assemble_list_profile_and_debug(tmp_path, capsys):
    source, program = tmp_path / "p.s", tmp_path / "p.nnp"
    source.write_text(SCRIPT)
    assert main(["asm", str(source), "--out", str(program)]) == 0 and "4 instructions" in capsys.readouterr().out
    assert main(["disasm", str(program)]) == 0
    listed = capsys.readouterr().out
    assert list(assemble(listed).code["main"]) == list(assemble(SCRIPT).code["main"]) and '@a.one "p:1"' in listed
    assert main(["disasm", str(program),
                 "--cycles"]) == 0 and "; 18 cycles" in capsys.readouterr().out.replace("19 cycles", "18 cycles")
    assert main(["profile", str(program), "--trace", str(tmp_path / "t.json")]) == 0
    said = capsys.readouterr().out
    assert "roofline" in said and "no order of these instructions takes less than" in said
    assert main(["profile", str(program), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["main"]
    assert figures["macs"] == 256 and sum(figures["bound_by"].values()) == figures["bound"] <= figures["cycles"]
    script = tmp_path / "c"
    script.write_text("break layer b\nrun\nquit\n")
    assert main(["debug", str(program), "--commands",
                 str(script)]) == 0 and "breakpoint: layer b" in capsys.readouterr().out
    assert main(["isa", "LSTM"]) == 0 and "vx_fill + 5 * ceil(units / V)" in capsys.readouterr().out
    assert main(["isa", "--target", "tiny"]) == 0 and "16 lanes x 1 columns, 200 MHz" in capsys.readouterr().out
    assert main(["isa", "LSTN"]) == 2 and "LSTM" in capsys.readouterr().err
    source.write_text("MVM wrods=1\nHALT")
    assert main(["asm", str(source)]) == 1 and "did you mean `words`" in capsys.readouterr().err
    source.write_text("MVM wait=s0\nHALT")
    assert main(["asm", str(source)]) == 1 and "deadlock: MV waits for s0" in capsys.readouterr().err


def test_the_manual_has_every_instruction_and_every_field():
    from nnac.isa import registry
    from nnac.isa.manual import manual

    text = manual()
    for name, cls in registry.items():
        assert f"{name}   (unit {cls.unit}, opcode {cls.opcode:#04x})" in text
        assert all(str(f) in text for f in cls.fields)
    assert "{" not in text.replace("{u32", "").replace("{i16", "").replace("{i32", "").replace("{i48",
        "").replace("{i64", "")


def test_a_batch_in_lockstep_is_each_utterance_alone():
    from tests import machine_by_hand as by_hand
    from tests.graphs import random_graph

    graph = random_graph(6, size="tiny", cells=24, norm=False, reduce=1)
    node = graph.by_path["encoder.lstm[0]"]
    config = MachineConfig(lanes=16, vector=4, stream_words=128, ring_bytes=4096, a_bytes=32768)
    program = by_hand.lstm_acc32(node, graph, config)
    x = np.random.default_rng(0).integers(-128, 128, (3, 4, 16))
    together = Machine(program, config, batch=4)
    alone = [Machine(program, config) for _ in range(4)]
    for t in range(3):
        got = together.run("main", {node.inputs[0]: x[t: t + 1]})[node.output]
        for b in range(4):
            assert (alone[b].run("main", {node.inputs[0]: x[t: t + 1, b: b + 1]})[node.output][:, 0] == got[:, b]).all()
    together.reset([1])
    assert not together.state()[f"{node.path}.cell"][1].any() and together.state()[f"{node.path}.cell"][0].any()
    assert bits(5) == (0, 2)
