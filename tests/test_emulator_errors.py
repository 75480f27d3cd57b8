"""Whatever a program does wrong is one clear error that names the instruction, the layer and the policy line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from attrs import evolve

from nnac.emulator import AddressError, DataError, HazardError, Machine, MachineError
from nnac.emulator.hazards import check_races
from nnac.emulator.timing import Timing
from nnac.isa import (
    CPY,
    DOT,
    FIL,
    GTH,
    HALT,
    HOST,
    KEEP,
    LDA,
    LDT,
    LDW,
    LN,
    LSTM,
    MVM,
    RQ,
    SMAX,
    STA,
    TAB,
    MachineConfig,
)
from nnac.isa.text import Assembly, assemble
from nnac.isa.vector import RQ_HEAD, RQ_ROW, RQ_WIDE_ROW
from tests import machine_by_hand as by_hand
from tests.graphs import random_graph

C = MachineConfig(lanes=16, vector=4, stream_words=128, ring_bytes=4096, a_bytes=4096, latency=10)
ONE = bytes([0])                                       # header of the codec raw


def machine(*code, data=b"", fast=False, config=C, batch=1):
    program = Assembly({"main": (*code, HALT())}, {"main": [("layer.one", "policy.nnac:7")] * (len(code) + 1)}, (),
                       ((0, data),))
    return Machine(program, config, fast=fast, batch=batch)


@pytest.mark.parametrize("code, words", [
    (FIL(dst=4092, bytes=8), "writes A[0xffc … 0x1004]; A ends at 0x1000"),
    (MVM(word=2175, words=2), "reads W"), (MVM(act=4090, span=10), "reads A"), (RQ(dst=4092, rows=16), "writes A"),
    (LDA(dram=1024, bytes=64), "reads DRAM[0x400 … 0x440]; DRAM ends at 0x10"), (LSTM(pre=4000, units=16), "reads A"),
    (CPY(src=0, dst=2048, bytes=16, count=4, dstride=1024), "writes A"), (TAB(src=3500), "reads A")])
def test_an_operand_outside_its_memory_is_found_before_anything_runs(code, words):
    with pytest.raises(AddressError, match=re.escape(words)) as caught:
        machine(code, data=bytes(16))
    assert ("main[0]" in str(caught.value) and "layer layer.one" in str(caught.value)
            and "policy policy.nnac:7" in str(caught.value))


def load(**more):
    """A tile of 16 x 4 weights, raw."""
    return [LDT(bytes=1), LDW(dram=16, bytes=64, rows=16, cols=4, live=4, steps=4, signal=1, **more)]


DATA = ONE + bytes(15) + bytes(range(64))


@pytest.mark.parametrize("code, words", [
    ([LDT(bytes=1), LDW(dram=16, bytes=63, rows=16, cols=4, live=4, steps=4)], "weight stream"),
    ([LDT(bytes=1), LDW(dram=16, bytes=64, rows=16, cols=4, live=3, steps=4)],
     "has 4 live words, the instruction says 3"),
    ([LDW(dram=16, bytes=64, rows=16, cols=4, live=4, steps=4)], "weight stream: empty stream header"),
    ([LDT(dram=16, bytes=5)], "weight stream"),
    ([LDT(bytes=1, steps=3)], "takes 0 steps to fill, the instruction says 3"),
    ([LDT(bytes=1), LDW(dram=16, bytes=64, rows=16, cols=4, live=4, steps=5)],
     "takes 4 decoder steps, the instruction says 5"),
    ([*load(), MVM(words=4, span=3, clear=1, wait=1)], "input 3, the span is 3"),
    ([*load(), MVM(words=4, span=4, clear=1, weights=2, wait=1)], "do not fit int4"),
    ([*load(), MVM(words=4, span=4, clear=1, wait=1, signal=2), RQ(dst=256, rows=16, wait=2)],
     "0 bits do not fit int8"),
    ([GTH(index=0, dram=0, pitch=16, bytes=128)], "does not lie in the image"),
    ([HOST(id=3)], "calls part 3 of the host")])
def test_bad_data_is_found_when_it_is_met(code, words):
    for fast in (False, True):
        with pytest.raises(MachineError, match=words) as caught:
            machine(*code, data=DATA, fast=fast).run()
        assert re.search(r"at main\[\d\], cycle \d+:", str(caught.value))


def test_an_accumulator_that_overflows_32_bits_is_an_error_in_both_executors():
    data = DATA + RQ_HEAD.pack(zero_point=0, bits=8) + RQ_ROW.pack(bias=np.full(16, 2**31 - 1), multiplier=1, shift=8)
    code = [LDA(dram=80, dst=256, bytes=136), FIL(dst=0, bytes=4, value=0x01010101, signal=2), *load(),
            MVM(words=4, span=4, clear=1, wait=3, signal=4), RQ(params=256, dst=512, rows=16, wait=4)]
    for fast in (False, True):
        with pytest.raises(DataError, match="more than 32 bits"):
            machine(*code, data=data, fast=fast).run()


def test_parameters_that_differ_between_utterances_are_an_error():
    m = machine(RQ(params=0, dst=512, rows=4), batch=2)
    m.memories.a[1, 2] = 8
    with pytest.raises(DataError, match="differ between utterances"):
        m.run()


@pytest.mark.parametrize("code, words", [
    (RQ(dst=256, params=256, rows=8), "which it has still to read"),
                                         (RQ(dst=256, params=0, addend=192, add=2, rows=8, columns=2, stride=64),
                                                                      "column 0 of the result lies over the addend of "
                                                                      "column 1"),
    (CPY(src=0, dst=0, bytes=16), "which it has still to read"),
    (CPY(src=0, dst=64, bytes=64, count=2, sstride=64, dstride=64), "still to read"),
    (SMAX(src=0, dst=8, params=512, n=4, groups=4), "vectors that are still to be read"),
    (KEEP(src=24, ring=0, bytes=8, slots=4), "the rows to be kept lie in the ring"),
    (DOT(src=0, ring=64, dst=0, params=256, n=8), "which it has still to read"),
    (LN(src=0, dst=4096, n=1291, a16=1), "may leave 62 bits"), (RQ(out=3), "out=3"),
                                         (RQ(columns=5), "the machine has 4")])
def test_what_could_be_read_in_two_ways_is_refused(code, words):
    """Parameters, other columns' addends and other vectors under a result, a copy over itself, a norm beyond its
    integers."""
    with pytest.raises(MachineError, match=words):
        machine(code, config=evolve(C, a_bytes=16384))


@pytest.mark.parametrize("change, words", [
    (dict(shift=63), "shift=63 is not in 0 … 62"), (dict(multiplier=1 << 31),
                                                    "multiplier=2147483648 is not in 0 … 2147483647"),
    (dict(fraction=16), "fraction=16 is not in 0 … 15"), (dict(bits=9), "9 bits do not fit int8"),
                                           (dict(tanh=8), "no LUT slot 8"),
    (dict(sigmoid=1), "LUT slot 1 has an entry of -5; a table of symmetry complement has none below 0")])
def test_parameters_that_mean_nothing_are_errors_and_no_exceptions(change, words):
    values = dict(multiplier=1 << 15, shift=38, bits=8, fraction=11, sigmoid=0, tanh=1, tanh_cell=1) | change
    block = b"".join(int(values.get(f.name, 0)).to_bytes(f.bits // 8, "little") for f in LSTM.block.fields)
    for fast in (False, True):
        m = machine(LSTM(pre=0, cell=64, dst=128, params=256, units=4), fast=fast)
        m.memories.a[0, 256:268] = np.frombuffer(block, np.uint8)
        m.memories.luts[1] = -5
        with pytest.raises(DataError, match=words):
            m.run()


@pytest.mark.parametrize("wide, multiplier, bias, words", [
    (0, 1 << 23, (1 << 31) - 1, ""), (1, (1 << 15) - 1, (1 << 47) - 1, ""), (1, 1 << 15, (1 << 31) - 1, ""),
                                                           (1, (1 << 31) - 1, -(1 << 31), ""),
    (1, 1 << 15, 1 << 31, "more than 32 bits"), (1, (1 << 31) - 1, -(1 << 31) - 1, "more than 32 bits")])
def test_a_wide_product_is_exact_or_refused(wide, multiplier, bias, words):
    """A 48-bit sum takes 15 bits of multiplier, a 32-bit one 31; beyond that the emulator used to wrap."""
    row = RQ_WIDE_ROW if wide else RQ_ROW
    for shift, fast in ((62, True), (0, False), (40, True)):
        m = machine(*load(), MVM(words=4, span=4, clear=1, wait=1, signal=2),
                    RQ(params=256, dst=512, rows=1, wide=wide, out=1, wait=2),
                    data=DATA, fast=fast)
        m.memories.a[0, 256: 264 + row.bytes] = np.frombuffer(RQ_HEAD.pack(zero_point=0, bits=16) + row.pack(
            bias=bias, multiplier=multiplier, shift=shift), np.uint8)
        if words:
            with pytest.raises(DataError, match=words):
                m.run()
            continue
        m.run()
        exact = (bias * multiplier + (1 << shift >> 1)) >> shift
        assert int(m.memories.a[0, 512:514].view("<i2")[0]) == max(-32768, min(32767, exact))


@pytest.mark.parametrize("code, words", [
    ([*load(), MVM(words=4, span=4, clear=1)], r"uses W\[0x0 … 0x4\] .* \[1\] LDW of DW writes it"),
    ([LDA(dram=0, bytes=16, dst=64), FIL(dst=72, bytes=4)], r"uses A\[0x48 … 0x4c\] .* \[0\] LDA of DA writes it"),
    ([MVM(words=100, span=64, act=0), FIL(dst=60, bytes=4)], r"uses A\[0x3c … 0x40\] .* \[0\] MVM of MV reads it"),
    ([MVM(words=10, bank=1), RQ(params=2048, rows=4, bank=1)], r"uses ACC\[0x4 … 0x5\]"),
    ([FIL(dst=0, bytes=400), HOST(id=1)], r"uses A\[0x0 … 0x190\]"),
    ([STA(src=0, dram=1 << 12, bytes=64), LDW(dram=1 << 12, bytes=64, rows=16, cols=4, live=4)],
     r"uses DRAM\[0x1000 … 0x1040\]")])
def test_a_missing_semaphore_is_a_hazard_that_names_both(code, words):
    with pytest.raises(HazardError, match=words) as caught:
        machine(*code, data=DATA).timing()
    assert "a semaphore is missing" in str(caught.value) and "layer layer.one" in str(caught.value)


def test_reading_together_is_no_hazard():
    machine(MVM(words=100, span=64, act=0), CPY(src=0, dst=1024, bytes=64)).timing()


def test_an_instruction_that_runs_ahead_of_program_order_is_a_hazard():
    """FIL comes after LDA in the program, takes no notice, and is done before LDA begins to write: not even an overlap
    in time."""
    code = [FIL(dst=2048, bytes=1024, signal=1), LDA(dram=0, bytes=16, dst=64, wait=1), MVM(act=64, span=16, words=1)]
    with pytest.raises(HazardError, match="LDA of DA writes it"):
        machine(*code, data=DATA).timing()


def test_every_semaphore_of_a_program_that_matters_is_missed():
    """Take away one wait at a time from a program of MVMs, RQs and LSTM steps; each that lets an instruction start
    earlier on shared data is noticed, as a race, a deadlock, or (where a token is left over and nothing shared moves)
    harmless: the results are then the same."""
    graph = random_graph(6, size="tiny", cells=24, norm=False, reduce=1)
    node = graph.by_path["encoder.lstm[0]"]
    config = evolve(C, a_bytes=32768)
    program = by_hand.lstm_acc32(node, graph, config, words=16)
    whole = Machine(program, config)
    x = np.random.default_rng(0).integers(-128, 128, (1, 1, 16))
    expected = whole.run("main", {node.inputs[0]: x})[node.output]
    code, caught, harmless = program.code["main"], 0, 0
    for at, i in enumerate(code):
        for s in range(12):
            if i.wait >> s & 1:
                broken = [*code[:at], evolve(i, wait=i.wait ^ 1 << s), *code[at + 1:]]
                try:
                    got = Machine(evolve(program, code={"main": broken}), config).run("main",
                        {node.inputs[0]: x})[node.output]
                    assert (got == expected).all()
                    harmless += 1
                except MachineError:
                    caught += 1
    assert caught > 10 and caught > harmless, (caught, harmless)


def test_the_race_check_itself_can_fail():
    code = (MVM(words=4, span=4), FIL(dst=0, bytes=4), HALT())
    sizes = dict(A=4096, W=128, ACC=16, LUT=8, TABLE=4, DRAM=0)
    times = dict(unit=np.array([2, 3, 4]), arrive=np.zeros(3), free=np.zeros(3), decode=np.full(3, -1), bus=(),
                 cycles=50, bursts=np.zeros(3))
    check_races(code, Timing(start=np.array([1, 9, 2]), done=np.array([8, 20, 2]), **times), C, sizes)
    with pytest.raises(HazardError):
        check_races(code, Timing(start=np.array([1, 8, 2]), done=np.array([8, 20, 2]), **times), C, sizes)


def test_dram_is_read_only_but_for_what_sta_writes():
    m = machine(FIL(dst=0, bytes=64, value=7, signal=1), STA(src=0, dram=1 << 12, bytes=64, wait=1, signal=2),
                LDA(dram=1 << 12, dst=128, bytes=64, wait=2), data=DATA)
    m.run()
    assert (m.memories.a[:, 128:192] == m.memories.a[:, :64]).all() and m.memories.a[0, 128] == 7


STORE = """
data 0x100 i8 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
data 0x140 i8 17 18 19 20
{writable}
entry main:
    STA src=0 dram=0x120 bytes=16 signal=s0
    STA src=0 dram=0x200 bytes=16 wait=s0 signal=s1
    LDA dram=0x100 dst=64 bytes=128 wait=s1
    HALT
"""


@pytest.mark.parametrize("writable", ["", "writable 0x120 0xf0", "writable 0x0 0x1000"])
def test_what_stores_leave_alone_keeps_what_the_image_says(writable, tmp_path):
    """Also between two stores, across the border of the writable part, and in a program file."""
    from nnac.emulator.listing import to_assembly, to_program
    from nnac.isa.text import disassemble
    from nnac.program import Program
    from tests.schedules import TINY

    assembly = assemble(STORE.format(writable=writable))
    file = tmp_path / "p.nnap"
    to_program(assembly, TINY).save(file)
    again = assemble(disassemble(to_assembly(Program.load(file), data=True)))
    for program in (assembly, Program.load(file), again):
        m = Machine(program, target=TINY)
        m.memories.a[0, :16] = 99
        for fast in (True, False):
            m.fast = fast
            m.run()
            assert m.memories.a[0, 64:192].tolist() == [*range(1, 17), *[0] * 16, *[99] * 16, *[0] * 16, 17, 18, 19, 20,
                                                        *[0] * 60]


@pytest.mark.parametrize("text, words", [
    ("data 0x200 i8 1\nwritable 0x100 16\n STA src=0 dram=0x120 bytes=16\n HALT",
     r"writes DRAM\[0x120 … 0x130\]; the program may write 0x100 … 0x110"),
    ("writable 0x100 16\nwritable 0x100 16", "said twice"), ("writable 8 16", "multiple of 16"),
                                         ("writable 16", "an address and a number")])
def test_stores_elsewhere_are_refused_before_anything_runs(text, words):
    with pytest.raises(ValueError if "HALT" not in text else AddressError, match=words):
        Machine(assemble(text), C)


def test_a_weight_stream_in_the_writable_part_is_refused():
    code = [STA(src=0, dram=0, bytes=16, signal=2), LDT(bytes=1, wait=2)]
    for fast in (True, False):
        with pytest.raises(DataError, match="a weight stream lies in the writable part of DRAM, 0x0 … 0x10"):
            machine(*code, data=DATA, fast=fast).run()


def test_errors_read_as_people_read_them():
    with pytest.raises(MachineError) as caught:
        Machine(assemble('entry a:\n MVM act=0xffc span=64 @enc.lstm[0] "p.nnac:12:3"\n HALT'), C)
    assert str(caught.value) == (
        "bad address: reads A[0xffc … 0x103c]; A ends at 0x1000\n"
        "  at a[0]: MVM  word=0 words=1 act=0xffc span=64 stride=0 columns=1 bank=0 clear=0 weights=0 act16=0\n"
        "  layer enc.lstm[0]\n"
        "  policy p.nnac:12:3")
