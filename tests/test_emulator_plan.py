"""Plans equal the interpreter: every byte of A, every weight word, LUT and decoder table, on random programs and on
compiled models."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from nnac import arith, evaluate
from nnac.emulator import Machine
from nnac.emulator.hazards import overlap
from nnac.emulator.image import image
from nnac.emulator.kernels import Matrix
from nnac.emulator.machine import interpret, stretches
from nnac.emulator.memory import Memories
from nnac.emulator.translate import translate
from nnac.isa import (
    ADD,
    AMAX,
    CPY,
    DOT,
    DWC,
    FIL,
    GATE,
    GRU,
    GTH,
    HALT,
    KEEP,
    LDA,
    LDT,
    LDW,
    LN,
    LSM,
    LSTM,
    LUT,
    MIX,
    MUL,
    MVM,
    RQ,
    SMAX,
    TAB,
    MachineConfig,
)
from nnac.isa.text import Assembly
from nnac.isa.vector import RQ_HEAD, RQ_ROW, RQ_WIDE_ROW
from nnac.schedule.compile import Settings, compile_graph
from tests.graphs import random_graph, random_inputs
from tests.test_emulator_analysis import EDGE

C = MachineConfig(lanes=16, vector=4, stream_words=64, pinned_words=64, ring_bytes=4096, a_bytes=16384, latency=10)
DATA, PARAMETERS = 8192, 8192                          # A: data below, parameters from here on


def blocks(rng):
    """Parameter blocks of every kind: name -> (address, bytes), and the image of A."""
    out, at = {}, PARAMETERS

    def put(name, *pieces):
        nonlocal at
        data = b"".join(p if isinstance(p, bytes) else p.tobytes() for p in pieces)
        out[name] = (at, data)
        at += -(-len(data) // 4) * 4

    for out_bits in (8, 16):
        head = RQ_HEAD.pack(zero_point=rng.integers(-5, 6), bits=out_bits)
        for wide in (0, 1):
            row = dict(multiplier=rng.integers(1, 1 << 15, 16), bias=rng.integers(-1 << 20, 1 << 20, 16),
                       shift=rng.integers(15, 30, 16))
            put(f"rq{out_bits}{wide}", head, (RQ_WIDE_ROW if wide else RQ_ROW).pack(**row))
    put("lstm", LSTM.block.pack(multiplier=1 << 15, shift=38, bits=8, fraction=11, sigmoid=0, tanh=1, tanh_cell=2))
    put("gru", GRU.block.pack(multiplier=1 << 15, shift=23, bits=8, sigmoid=0, tanh=1))
    put("add", ADD.block.pack(m0=9000, m1=30000, s0=15, s1=17, bits=8))
    put("mul", MUL.block.pack(multiplier=4000, shift=18, bits=8, zero_point=3))
    for symmetry in (0, 1):
        put(f"lut{symmetry}", LUT.block.pack(multiplier=127, shift=15, bits=8, zero_point=0, slot=1 - symmetry,
                                             symmetry=symmetry))
    put("ln", LN.block.pack(epsilon=50, root_width=round(np.sqrt(24) * 256), multiplier=1 << 20, shift=44, bits=8,
                            zero_point=0),
        rng.integers(-32768, 32768, 24).astype("<i2"), rng.integers(-9, 9, 24).astype("<i4"))
    put("smax", SMAX.block.pack(multiplier=30000, shift=15, out_multiplier=255, out_shift=15, bits=8, slot=3,
                                zero_point=-128))
    put("roots", arith.rsqrt_table().astype("<u2"), np.zeros(1, "<u2"))
    put("gate", GATE.block.pack(multiplier=9000, shift=30, bits=8, zero_point=0, slot=0, symmetry=1))
    put("dot", DOT.block.pack(multiplier=30000, shift=12), rng.integers(-9000, 9000, 2 * (6 + 2 - 1)).astype("<i4"))
    put("mix", MIX.block.pack(multiplier=30000, shift=19, bits=8))
    put("dwc", RQ_HEAD.pack(zero_point=1, bits=8), RQ_ROW.pack(bias=rng.integers(-999, 999, 8),
                                                               multiplier=rng.integers(1, 1 << 15, 8), shift=17),
        rng.integers(-128, 128, 32).astype("i1"))
    put("lsm", LSM.block.pack(multiplier=20000, shift=13, exp=3, log=4))
    for k, table in enumerate((arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(11), arith.exp_table())):
        put(f"table{k}", table.entries.astype("<i2"))
    put("table4", arith.log_table().astype("<i2"))
    return out


def random_code(rng, where):
    """Instructions of all kinds on random addresses: buffers overlap, are used again, half overwritten."""
    def a(size, align=4):
        return int(rng.integers((DATA - size) // align)) * align

    def widths():
        return {k: int(rng.integers(2)) for k in ("a16", "b16", "out16")}

    code = [TAB(src=where[f"table{k}"][0], slot=k) for k in range(5)] if rng.random() < 0.7 else []
    code.append(LDT(dram=0, bytes=1))
    loaded = 0
    for _ in range(int(rng.integers(5, 60))):
        n = int(rng.choice([1, 4, 16, 40]))
        kind = rng.integers(15)
        if kind == 0:
            code.append(FIL(dst=a(n * 4), bytes=4 * n, value=int(rng.integers(1 << 32))))
        elif kind == 1:
            src = int(rng.integers(1000)) * 4
            code.append(CPY(src=src, dst=4096 + a(2048) % 2048, bytes=int(rng.integers(1, 40)),
                            count=int(rng.integers(1, 4)), sstride=40,
                            dstride=64))
        elif kind == 2:
            code.append(ADD(a=a(2 * n), b=a(2 * n), dst=a(2 * n), params=where["add"][0], n=n, **widths()))
        elif kind == 3:
            code.append(MUL(a=a(2 * n), b=a(2 * n), dst=a(2 * n), params=where["mul"][0], n=n, **widths()))
        elif kind == 4:
            code.append(LUT(src=a(2 * n), dst=a(2 * n), params=where[f"lut{rng.integers(2)}"][0], n=n,
                            out16=int(rng.integers(2))))
        elif kind == 5:
            code.append(LN(src=a(48), dst=a(48), params=where["ln"][0], roots=where["roots"][0], n=24, a16=0,
                           out16=int(rng.integers(2))))
        # exp of a table that is 0 is refused
        elif kind == 6 and rng.random() < 0.5 and isinstance(code[0], TAB):
            code.append(SMAX(src=a(2 * n), dst=a(2 * n), params=where["smax"][0], roots=where["roots"][0], n=n,
                             a16=int(rng.integers(2)), out16=int(rng.integers(2))))
            code.append(LSM(src=a(2 * n), dst=a(2 * n), params=where["lsm"][0], n=n, a16=int(rng.integers(2))))
        elif kind == 6:
            code.append(AMAX(src=a(2 * n), dst=a(8), n=n, a16=int(rng.integers(2))))
        elif kind == 7:
            code.append(LSTM(pre=a(8 * n), cell=a(2 * n), dst=a(2 * n), params=where["lstm"][0], units=n,
                             out16=int(rng.integers(2))))
        elif kind == 14:
            code.append(GRU(pre=a(12 * n), state=a(2 * n), dst=a(2 * n), params=where["gru"][0], units=n,
                            out16=int(rng.integers(2))))
        elif kind == 12 and isinstance(code[0], TAB):
            code.append(GATE(a=a(2 * n), b=a(2 * n), dst=a(2 * n), params=where["gate"][0], n=n,
                             a16=int(rng.integers(2)), out16=int(rng.integers(2))))
        elif kind in (12, 13):                         # rings of 3 chunks of 2 rows of 2 heads of 4
            ring, kept, size = a(64), a(16), dict(chunk=2, slots=3)
            while kept + 16 > ring and ring + 64 > kept:   # what is kept may not lie in the ring
                kept = a(16)
            code.append(FIL(dst=ring, bytes=4, value=int(rng.integers(6))))
            code.append(KEEP(src=kept, ring=ring, bytes=8, **size))
            code.append(DOT(src=a(16), ring=ring, dst=a(48), params=where["dot"][0], n=4, heads=2, **size))
            code.append(MIX(src=a(48), ring=ring, dst=a(32), params=where["mix"][0], n=4, heads=2,
                            p16=int(rng.integers(2)), out16=int(rng.integers(2)), **size))
            code.append(DWC(ring=ring, dst=a(32), params=where["dwc"][0], n=8, taps=4, out16=int(rng.integers(2)),
                            **size))
        elif kind == 8:
            code.append(LDA(dram=16 * int(rng.integers(100)), dst=a(4 * n), bytes=4 * n))
        elif kind == 9:
            index = a(4)
            code += [FIL(dst=index, bytes=4, value=int(rng.integers(50))),
                     GTH(index=index, dram=16, pitch=32, dst=a(4 * n), bytes=4 * n)]
        else:
            words = int(rng.integers(1, 17))
            word = int(rng.integers(60 - words))
            code.append(LDW(dram=16 * int(rng.integers(200)), bytes=16 * words, word=word, rows=16, cols=words,
                            live=words, steps=words))
            loaded = 1
        if loaded and rng.random() < 0.5:
            words = int(rng.integers(1, code[-1].cols + 1)) if isinstance(code[-1], LDW) else 0
            if words:
                bank, columns, act16 = int(rng.integers(4)), int(rng.integers(1, 5)), int(rng.integers(2))
                for clear in (1, 0)[: int(rng.integers(1, 3))]:
                    # the second product takes the same words, whose inputs are 0 .. words-1
                    word, span = (code[-1].word, code[-1].cols) if clear else (word, words)
                    code.append(MVM(word=word, words=words, act=a(512, 2 if act16 else 1), span=span, stride=64,
                                    columns=columns, bank=bank,
                                    clear=clear, act16=act16))
                out, wide = int(rng.integers(3)), act16
                add = int(rng.choice([0, 1, 2])) if out < 2 else int(rng.choice([0, 1]))
                rows = int(rng.integers(1, 17))
                code.append(RQ(dst=a(512), params=where[f"rq{16 if out == 1 else 8}{wide}"][0], addend=a(512),
                               rows=rows, bank=bank, columns=columns,
                               stride=64, out=out, add=0 if add == 1 else add, wide=wide))
    return [*(i for i in code if overlap(i, C) is None), HALT()]


def same(x: Memories, y: Memories) -> bool:
    return all((getattr(x, k) == getattr(y, k)).all() for k in ("a", "w", "index", "tag",
                                                                "luts")) and x.headers == y.headers


@pytest.mark.parametrize("block", range(6))
def test_random_programs_leave_the_same_memories(block):
    translated = 0
    for seed in range(25 * block, 25 * block + 25):
        rng = np.random.default_rng(seed)
        where = blocks(rng)
        dram = bytes([0]) + bytes(15) + rng.integers(0, 256, 8000, dtype=np.uint8).tobytes()
        made = image(Assembly({"main": random_code(rng, where)}, {}, (), ((0, dram),)), C)
        e = made.entry("main")
        pair = [Memories(C, made.dram, 2, None, made.streams) for _ in range(2)]
        one = None
        for run in range(2):
            data = rng.integers(0, 256, (2, DATA), dtype=np.uint8)
            for m in pair:
                m.a[:, :DATA] = data
                for at, block_bytes in where.values():
                    m.a[:, at: at + len(block_bytes)] = np.frombuffer(block_bytes, np.uint8)
            one = one if run and one.holds(pair[0]) else translate(e, pair[0])
            if one.reason:
                # an int16 put together from bytes of different origin, say: the interpreter's business
                assert one.reason in ("an integer put together from pieces", "an operand that is not aligned",
                                       "weights that were never loaded"), one.reason
                break
            one.run(pair[0])
            interpret(e, pair[1])
            assert same(*pair), f"seed {seed}, run {run}"
            translated += run
    assert translated > 5


SIZES = [dict(size="tiny"), dict(size="tiny", reduce=1, layers=3, cells=40, norm=False),
         dict(size="tiny", project=12, combine="multiply"),
         dict(size="tiny", cells=24, joint=30, vocabulary=40)]


@pytest.mark.parametrize("arguments", SIZES, ids=str)
@pytest.mark.parametrize("frames", [1, 4])
def test_compiled_models_agree_three_ways(arguments, frames):
    graph = random_graph(1, **arguments)
    program = compile_graph(graph, EDGE, Settings(frames=frames))
    pair = [Machine(program, batch=2, fast=fast) for fast in (True, False)]
    rng = np.random.default_rng(0)
    state = evaluate.initial_state(graph, 2)
    for name in ("encoder.step", "prediction.step", "joint.step", "encoder.step", "joint.step"):
        model_entry = name.partition(".")[0]
        x = random_inputs(graph, model_entry, rng, 1, 2)
        if any(len(x[p.value]) != p.vectors for p in program.entry(name).inputs):
            x = {p.value: np.concatenate([x[p.value]] * p.vectors)[: p.vectors] for p in program.entry(name).inputs}
        expected, state = evaluate.evaluate(graph, model_entry, x, state)
        got = [m.run(name, x) for m in pair]
        for value, array in expected.items():
            assert (got[0][value] == array).all() and (got[1][value] == array).all(), (name, value)
        assert same(*(m.memories for m in pair)), name
    assert all(not plan.reason for plan in pair[0].translations())


def test_a_plan_is_made_again_when_what_it_assumed_has_changed():
    graph = random_graph(1, size="tiny")
    program = compile_graph(graph, EDGE, Settings())
    fast, slow = (Machine(program, fast=f) for f in (True, False))
    x = random_inputs(graph, "encoder", np.random.default_rng(0))
    for m in (fast, slow):
        m.run("encoder.step", x)
    (plan,) = [p for p in fast.translations() if p.entry.name == "encoder.step"]
    assert len(plan.assumed) and plan.holds(fast.memories)
    at = plan.assumed[0][0] + 8                        # a byte of some bias
    for m in (fast, slow):
        m.memories.a[:, at] ^= 0x40
    assert not plan.holds(fast.memories)
    got = [m.run("encoder.step", x) for m in (fast, slow)]
    assert all((got[0][k] == got[1][k]).all() for k in got[0]) and same(fast.memories, slow.memories)


def test_code_is_cut_at_the_host():
    from nnac.isa import HOST

    program = Assembly({"main": [FIL(dst=0, bytes=8, value=1, signal=1), HOST(id=1, time=5, wait=1),
                                 CPY(src=0, dst=64, bytes=8, signal=2),
                                 HOST(id=1, wait=2), HALT()]})

    def host(part, m):
        m.a[:, :8] += 1

    fast, slow = (Machine(program, C, host=host, fast=f) for f in (True, False))
    for m in (fast, slow):
        m.run()
    assert stretches(fast.image.entry("main")) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert same(fast.memories, slow.memories) and fast.memories.a[0, 0] == 3 and fast.memories.a[0, 64] == 2


@pytest.mark.parametrize("kind", [np.int8, np.int16])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("native", [False, None], ids=["blas", "native"])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_products_are_exact_at_the_limits_of_every_carrier(kind, bits, native, batch):
    rng = np.random.default_rng(0)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    for rows, cols in ((1, 1), (5, 1000), (7, 1041), (64, 3000)):
        w = rng.choice([low, high, low + 1, 3], (rows, cols)).astype(kind)
        x = rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, 1], (batch, cols)).astype(np.int16)
        expected = x.astype(object) @ w.astype(object).T
        assert (Matrix(w, bits, native=native)(x) == expected).all()


@pytest.mark.parametrize("size", [1, 2, 30, 4096])
@pytest.mark.parametrize("a16", [0, 1])
def test_log_softmax_on_the_machine_is_that_of_the_arithmetic(size, a16):
    """From the text, interpreted and translated, and close to the real one."""
    from nnac.isa.text import assemble

    m, s = arith.multiplier_and_shift(np.float64(0.05 * 2**arith.LOG_FRACTION), 24)
    text = f"""
    LDA dram=0 dst=0x8000 bytes=8 signal=s0
    LDA dram=16 dst=0x8010 bytes=1028 signal=s0
    LDA dram=2048 dst=0x8420 bytes=1028 signal=s0
    FIL dst=0x9000 bytes=0 wait=s0
    FIL dst=0x9000 bytes=0 wait=s0
    TAB src=0x8010 slot=5 wait=s0
    TAB src=0x8420 slot=6
    LSM src=0 dst=0x4000 params=0x8000 n={size} a16={a16}
    HALT"""
    pieces = ((0, LSM.block.pack(multiplier=m, shift=s, exp=5, log=6)),
              (16, arith.exp_table().entries.astype("<i2").tobytes() + bytes(2)),
              (2048, arith.log_table().astype("<i2").tobytes() + bytes(2)))
    x = np.random.default_rng(size).integers(-128, 128, (3, size)) << (3 * a16)
    want = arith.log_softmax(x, arith.exp_table().entries.astype(np.int64), arith.log_table(), int(m), int(s))
    for fast in (True, False):
        machine = Machine(evolve(assemble(text), data=pieces), MachineConfig(), batch=3, fast=fast)
        machine.memories.a[:, : size << a16] = x.astype("<i2" if a16 else "i1").view(np.uint8)
        machine.run()
        got = machine.memories.a[:, 0x4000: 0x4000 + 2 * size].copy().view("<i2")
        assert (got == want).all()
        assert all(not t.reason for t in machine.translations())
    real = 0.05 * x - np.log(np.exp(0.05 * x).sum(-1, keepdims=True))
    assert np.abs(want / 2**arith.LOG_FRACTION - real)[real > -15].max(initial=0) < 2**-8


@pytest.mark.parametrize("size", [1, 2, 30, 4096])
@pytest.mark.parametrize("scale", [0.01, 0.1, 2.0])
def test_softmax_is_close_to_the_real_one_and_adds_up(size, scale):
    x = np.random.default_rng(size).integers(-128, 128, (50, size))
    m, s = arith.multiplier_and_shift(np.float64(scale * 2**arith.LOG_FRACTION), 24)
    got = arith.softmax(x, arith.exp_table().entries.astype(np.int64), arith.rsqrt_table(), int(m), int(s), 1, 0, 0,
                        16) / 2**15
    real = np.exp(scale * (x - x.max(-1, keepdims=True)))
    real /= real.sum(-1, keepdims=True)
    # linear interpolation of exp at steps of 1/32, two roundings to 2^-15; the sum is off by half a unit an element
    assert np.abs(got - real).max() < 6 / 2**15
    assert np.abs(got.sum(-1) - 1).max() < (2 + 0.6 * size) / 2**15
