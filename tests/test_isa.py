"""The instruction set: bytes, text and manual follow from one declaration."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from attrs import evolve

from nnac.isa import INSTRUCTION_BYTES, EncodingError, MachineConfig, decode, decode_all, registry
from nnac.isa.base import FIRST_FIELD, bits
from nnac.isa.text import Assembly, AssemblyError, Symbol, assemble, disassemble

KINDS = pytest.mark.parametrize("kind", list(registry.values()), ids=list(registry))


def random_instruction(kind, rng):
    values = {f.name: (int(rng.integers(1 << min(f.bits, 62))) + f.minus) * f.times for f in kind.fields}
    return kind(**values, wait=int(rng.integers(4096)), signal=int(rng.integers(4096)))


@KINDS
def test_bytes_round_trip(kind):
    rng = np.random.default_rng(1)
    for _ in range(50):
        i = random_instruction(kind, rng)
        data = i.encode()
        assert len(data) == INSTRUCTION_BYTES and decode(data) == i


@KINDS
def test_text_round_trips(kind):
    rng = np.random.default_rng(2)
    code = [random_instruction(kind, rng) for _ in range(20)]
    program = Assembly({"a.b": code, "c": code[:1]}, {"a.b": [(f"layer[{k}]", "p.nnac:3") for k in range(20)],
                                                      "c": [("", "")]},
                       (Symbol("x", "input", 64, 8, 10, 2, "c"),), ((32, b"\x01\xff"),))
    for numbers in (False, True):
        back = assemble(disassemble(program, numbers=numbers))
        assert {k: list(v) for k, v in back.code.items()} == {"a.b": code, "c": code[:1]}
        assert (back.debug["a.b"] == program.debug["a.b"] and back.symbols == program.symbols
                and back.data == program.data)


@KINDS
def test_every_reserved_bit_is_checked(kind):
    word = int.from_bytes(kind().encode(), "little")
    for bit in bits(kind.reserved):
        with pytest.raises(EncodingError, match=f"reserved bits {bit} are not zero"):
            decode((word | 1 << bit).to_bytes(16, "little"))


@KINDS
def test_fields_lie_side_by_side_and_refuse_what_does_not_fit(kind):
    at = FIRST_FIELD
    for f in kind.fields:
        assert f.low == at
        at += f.bits
        with pytest.raises(EncodingError, match=f.name):
            kind(**{f.name: f.greatest + f.times}).encode()
        with pytest.raises(EncodingError, match=f.name):
            kind(**{f.name: -f.times}).encode()
        if f.times > 1:
            with pytest.raises(EncodingError, match=f"not a multiple of {f.times}"):
                kind(**{f.name: f.times + 1}).encode()
    assert at <= 128


@KINDS
def test_every_instruction_has_a_manual_paragraph_and_a_time(kind):
    assert kind.__doc__ and len(kind.__doc__) > 40 and all(f.doc for f in kind.fields)
    busy, latency = kind().cycles(MachineConfig())
    assert (kind.unit in ("DW", "DA")) or latency >= busy >= 1


def test_cleared_memory_is_no_instruction():
    with pytest.raises(EncodingError, match="undefined opcode 0x00"):
        decode(bytes(16))
    with pytest.raises(EncodingError, match="instruction 1: undefined opcode 0x3e"):
        decode_all(registry["HALT"]().encode() + b"\x3e" + bytes(15))
    with pytest.raises(EncodingError, match="whole number"):
        decode_all(bytes(17))


@pytest.mark.parametrize("text, line, column, words", [
    ("HALT\n  MVN words=1", 2, 3, "`MVN` is no instruction"),
    ("MVM wrods=1", 1, 5, "did you mean `words`"),
    ("MVM words=1 words=2", 1, 13, "given twice"),
    ("MVM words=ten", 1, 11, "`ten` is not a number"),
    ("MVM words", 1, 5, "is not `operand=value`"),
    ("MVM words=2000", 1, 1, "words=2000 is not in 1 … 1024"),
    ("HALT wait=s12", 1, 11, "`s12` is no semaphore"),
    (f"HALT wait=s{'9' * 5000}", 1, 11, "is no semaphore"),
    ("data 0 i8 200", 1, 11, "200 does not fit i8"),
    ("data 0 f8 1", 1, 8, "`f8` is no type of data"),
    ("symbol port x", 1, 1, "needs a kind"),
    ("symbol input x bits=8", 1, 14, "lacks address, width"),
    ("entry a:\nentry a:", 2, 1, "written twice")])
def test_a_wrong_line_says_where_and_why(text, line, column, words):
    with pytest.raises(AssemblyError, match=words.replace("(", r"\(")) as caught:
        assemble(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_data_lines_make_the_image():
    program = assemble("data 0x2 i16 -2 3\ndata 8 hex 0aff\nHALT")
    assert program.dram == b"\0\0\xfe\xff\x03\0\0\0\x0a\xff"


def test_configurations_of_the_targets_add_up():
    from nnac.target import Dram, Target

    edge = Target("edge", 500_000_000, 64, 4, 512 << 10, 128 << 10, Dram(3_750_000_000, 250, 128),
                  {"int8": Fraction(1), "int4": Fraction(2), "int16": Fraction(1, 2)})
    c = MachineConfig.of(edge)
    assert c.burst_cycles * 15 == 256 and c.stream_words == 512 and c.pinned_words == 2048 and c.ring_bytes == 32768
    assert c.a_bytes + c.words * c.lanes + c.ring_bytes <= edge.sram


def test_the_instruction_set_needs_neither_numpy_nor_torch():
    program = ("import sys\nfrom nnac import isa\nconfig = isa.MachineConfig()\n"
               "assert isa.RQ(rows=64, columns=2).cycles(config) == (isa.VX_FILL + 2 * 4,) * 2\n"
               "assert isa.MVM(words=10).cycles(config) == (10, 10 + isa.MV_DRAIN)\n"
               "for kind in isa.registry.values(): kind().encode(), list(kind().reads(config)), "
               "list(kind().writes(config))\n"
               "print(sorted({'numpy', 'torch', 'networkx', 'scipy'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_target_with_more_than_the_instruction_words_can_name_is_refused_and_fewer_are_kept():
    from nnac.emulator import CodeError, simulate
    from nnac.isa import FIL, HALT
    from nnac.language.check import check_text
    from tests.schedules import TINY

    wrong = "target wide {\n  clock 1 GHz\n  lanes 300\n  columns 17\n  semaphores 13\n}\n"
    assert [d.message for d in check_text(wrong).diagnostics] == [
        "the instruction set has 256 lanes at most, not 300", "the instruction set has 16 columns at most, not 17",
        "the instruction set has 12 semaphores at most, not 13"]
    few = MachineConfig.of(evolve(TINY, semaphores=2))
    assert few.semaphores == 2
    simulate((FIL(signal=2), HALT()), few)
    with pytest.raises(CodeError, match="semaphore s2; the machine has 2"):
        simulate((FIL(signal=4), HALT()), few)


def test_table_sizes_are_those_of_the_arithmetic():
    from nnac import arith
    from nnac.isa.config import LUT_ENTRIES, RSQRT_ENTRIES

    assert (LUT_ENTRIES, RSQRT_ENTRIES) == (arith.SEGMENTS + 1, arith.RSQRT_SEGMENTS + 1)
