"""The container: the same program gives the same bytes, and anything that is not a whole, unaltered program is refused
in one line."""

import json
from fractions import Fraction

import numpy as np
import pytest
from attrs import evolve

from nnac.ir import Value
from nnac.program import VERSION, Entry, Port, Program, ProgramError, Slot, Symbol, Tap
from nnac.target import Dram, Target

EDGE = Target("edge", 500_000_000, 64, 4, 1 << 19, 1 << 17, Dram(3_750_000_000, 250, 128), dict(int8=Fraction(1)))


def small() -> Program:
    rng = np.random.default_rng(0)
    port = Port("features", 64, ((0, 40),), 1, 6, 64)
    entry = Entry("encoder.step", rng.integers(0, 1 << 63, (5, 2), np.uint64), np.array([0, 1, 1, 0, 0], np.uint32),
                  (port,), (Port("joint.encoder", 640, ((0, 7), (16, 9)), 2),), (Tap(port, 3),), 1, 1234)
    return Program(EDGE, {"encoder.step": entry}, rng.integers(0, 256, 1000).astype(np.uint8),
                   (Slot("encoder.lstm[0].cell", 1024, 16, 2, 2.0**-11), Slot("x", 2048, 2, 1, None, (1, -2))),
                   (Symbol("table", "A", 4096, 1026),), {"features": Value("features", 40, 8, 6, 0.03)},
                   (("encoder.lstm[0]", "rnnt.nnac:3", "multiply"), ("", "", "halt")), (), "1", dict(name="p"),
                   dict(tokens=["a", "é"]), {})


def test_a_program_survives_its_file(tmp_path):
    program = small()
    program.save(tmp_path / "p.nnap")
    again = Program.load(tmp_path / "p.nnap", EDGE)
    assert again.to_bytes() == program.to_bytes()
    assert (again.entries["encoder.step"].words == program.entries["encoder.step"].words).all()
    assert (again.target, again.states, again.symbols, again.values) == (program.target, program.states,
                                                                         program.symbols, program.values)
    assert again.where("encoder.step", 1) == ("", "", "halt") and again.symbol("A", 4100).name == "table"
    assert again.metadata == dict(tokens=["a", "é"])


def test_equal_programs_have_equal_bytes():
    assert small().to_bytes() == small().to_bytes()


def test_every_truncation_and_every_flipped_byte_is_refused():
    data = small().to_bytes()
    damaged = [data[:n] for n in range(0, len(data), 97)]
    for at in range(0, len(data), 41):
        damaged.append(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:])
    for bad in damaged:
        with pytest.raises(ProgramError) as error:
            Program.from_bytes(bad, "p.nnap")
        assert str(error.value).startswith("p.nnap: ") and "\n" not in str(error.value)


def test_another_version_another_kind_and_another_machine_are_named(tmp_path):
    from safetensors.numpy import save

    header = dict(format="nnac-program", version=99, sha256="", content="{}")
    with pytest.raises(ProgramError, match=f"program version 99; this nnac reads version {VERSION}"):
        Program.from_bytes(save({"dram": np.zeros(1, np.uint8)}, {"nnac": json.dumps(header)}))
    with pytest.raises(ProgramError, match="not an nnac program"):
        Program.from_bytes(save({"dram": np.zeros(1, np.uint8)}, {"nnac": json.dumps(header | dict(format="song"))}))
    with pytest.raises(ProgramError, match="differ in lanes"):
        Program.from_bytes(small().to_bytes(), "p", evolve(EDGE, lanes=32))
    with pytest.raises(ProgramError, match=r"(?i)no such file"):
        Program.load(tmp_path / "absent")
    with pytest.raises(ProgramError, match="no entry `run`"):
        small().entry("run")


def test_ports_write_and_read_back_and_refuse_what_does_not_fit():
    rng = np.random.default_rng(1)
    port = Port("x", 8, ((0, 5), (12, 3)), 2, 3, 20)
    memory = rng.integers(0, 256, (2, 100)).astype(np.uint8)
    before, values = memory.copy(), rng.integers(-32768, 32768, (3, 2, 8))
    port.scatter(memory, values)
    assert (port.gather(memory) == values).all()
    touched = np.zeros(100, bool)
    for start, end in port.ranges:
        touched[start:end] = True
    assert touched.sum() == 3 * 8 * 2 and (memory[:, ~touched] == before[:, ~touched]).all()
    with pytest.raises(ValueError, match="do not fit int16"):
        port.scatter(memory, values + 70000)
    with pytest.raises(ValueError, match="expected integers of shape"):
        port.scatter(memory, values[:2])
