"""An instruction is one class: from its declaration follow bytes, text, manual, time, the interpreter, the fast path
and the races."""

from __future__ import annotations

import numpy as np
import pytest

from nnac import isa
from nnac.emulator import HazardError, Machine
from nnac.emulator.dataflow import Dataflow
from nnac.emulator.errors import DataError
from nnac.emulator.image import image
from nnac.emulator.memory import Memories
from nnac.emulator.timing import Timing
from nnac.emulator.translation import Interpreted, Translation
from nnac.isa import CPY, FIL, HALT, HOST, LDA, PROF, STA, registry
from nnac.isa.base import by_opcode, instruction, operand
from nnac.isa.manual import manual
from nnac.isa.operands import Integers
from nnac.isa.records import BadData, Record
from nnac.isa.text import Assembly, assemble, disassemble
from nnac.isa.vector import VectorInstruction
from tests.test_emulator_plan import DATA, C, blocks, random_code, same


@pytest.fixture
def made():
    """Whatever a test declares is forgotten after it."""
    before, codes = dict(registry), dict(by_opcode)
    yield
    for table, kept in ((registry, before), (by_opcode, codes)):
        table.clear()
        table.update(kept)


FILES = ("nnac/isa/vector.py",)             # where MAX would stand, among its like; `make bench-house` counts them


def maximum():
    """All that has to be said of a new instruction."""

    @instruction("VX", 0x3A)
    class MAX(VectorInstruction):
        """The greater of two int8 vectors, element by element.   Cycles: vx_fill + ceil(n / V)."""

        a: int = operand(18, "A address", times=4)
        b: int = operand(18, "A address", times=4)
        dst: int = operand(18, "A address", times=4)
        n: int = operand(12, "elements", minus=1)
        by_element = True

        def beats(self, config):
            return -(-self.n // config.vector)

        def inputs(self, config):
            return Integers(self.a, self.n, 1), Integers(self.b, self.n, 1)

        def outputs(self, config):
            return (Integers(self.dst, self.n, 1),)

        @staticmethod
        def compute(p, a, b):
            return (np.maximum(a, b),)

    return MAX


def test_a_new_instruction_is_one_class(made):
    MAX = maximum()
    assert FILES == (f"{VectorInstruction.__module__.replace('.', '/')}.py",) and issubclass(MAX, VectorInstruction)
    i = MAX(a=0, b=64, dst=128, n=40, signal=1)
    # bytes, text, manual, time
    assert isa.decode(i.encode()) == i
    assert str(i) == "MAX  a=0 b=0x40 dst=0x80 n=40 signal=s0"
    program = Assembly({"main": (i, HALT())})
    assert assemble(disassemble(program)).code["main"] == [i, HALT()]
    assert ("The greater of two int8 vectors" in manual(name="MAX")
            and "bits   84-95  n         elements, minus 1" in manual())
    assert i.cycles(C) == (8 + 10, 8 + 10)
    # races and addresses
    assert list(i.reads(C)) == [("A", 0, 40), ("A", 64, 104)] and list(i.writes(C)) == [("A", 128, 168)]
    with pytest.raises(HazardError, match="LDA of DA writes it"):
        Machine(Assembly({"main": (LDA(dst=64, bytes=16), i, HALT())}, data=((0, bytes(16)),)), C).timing()
    # the interpreter, and the machine as anybody makes it: joined with its like, cut into bands or not
    code = (FIL(dst=256, bytes=40, value=0x05FB05FB), i, MAX(a=128, b=256, dst=128, n=16),
            MAX(a=144, b=272, dst=144, n=24), HALT())
    fast, slow = (Machine(Assembly({"main": code}), C, batch=3, fast=f) for f in (True, False))
    x = np.random.default_rng(0).integers(0, 256, (3, 128), dtype=np.uint8)
    for m in (fast, slow):
        m.memories.a[:, :128] = x
        m.run()
        y = np.maximum(np.maximum(x.view(np.int8)[:, :40], x.view(np.int8)[:, 64:104]),
                       np.tile(np.array([-5, 5], np.int8), 20))
        assert (m.memories.a[:, 128:168].view(np.int8) == y).all()
    (translation,) = fast.translations()
    assert isinstance(translation, Translation) and [s.kind for s in translation.steps] == ["max[40]", "max[40]"]


def test_an_instruction_with_parameters_computes_from_what_its_record_says(made):
    @instruction("VX", 0x3B)
    class CLP(VectorInstruction):
        """Clip."""

        x: int = operand(18, "A address", times=4)
        params: int = operand(18, "A address", times=4)
        block = Record("i8 low -100..0, i8 high 1..100, u16 0")
        by_element = True

        def beats(self, config):
            return 1

        def inputs(self, config):
            return (Integers(self.x, 8, 1),)

        outputs = inputs

        @staticmethod
        def compute(p, x):
            return (x.clip(p["low"], p["high"]),)

    assert "{i8 low -100..0, i8 high 1..100, u16 0}" in manual(name="CLP")
    assert list(CLP(params=8).reads(C)) == [("A", 0, 8), ("A", 8, 12)]
    for fast in (True, False):
        m = Machine([CLP(params=8), HALT()], C, fast=fast)
        m.memories.a[0, :12] = np.frombuffer(np.arange(-120, 120, 30, dtype=np.int8).tobytes() +
                                             CLP.block.pack(low=-60, high=50), np.uint8)
        m.run()
        assert m.memories.a[0, :8].view(np.int8).tolist() == [-60, -60, -60, -30, 0, 30, 50, 50]
        m.memories.a[0, 9] = 0
        with pytest.raises(DataError, match=r"high=0 is not in 1 … 100\n  at main\[0\]"):
            m.run()


def test_what_only_the_interpreter_can_do_is_interpreted_by_instruction(made):
    """... with everything around it that shares its accumulators, and nothing else."""
    @instruction("VX", 0x3C)
    class ODD(VectorInstruction):
        """Something of its own: looks at the batch."""

        def beats(self, config):
            return 1

        def execute(self, m):
            m.a[:, 0] = np.arange(m.batch)

    code = (FIL(dst=8, bytes=8, value=3), ODD(), CPY(src=0, dst=64, bytes=16), HALT())
    fast, slow = (Machine(Assembly({"main": code}), C, batch=3, fast=f) for f in (True, False))
    for _ in range(2):
        for m in (fast, slow):
            m.run()
        assert same(fast.memories, slow.memories) and fast.memories.a[:, 64].tolist() == [0, 1, 2]
    kinds = [type(t) for t in fast.translations()]
    assert kinds.count(Translation) == 2 and kinds.count(Interpreted) == 1
    assert "`batch`, which only the interpreter has" in next(t.reason for t in fast.translations() if t.reason)


def test_programs_with_stores_anywhere_agree_whether_translated_or_not():
    """STA cuts an entry wherever it stands, also between products and who reads them; LDA of what it wrote is
    interpreted too."""
    translated = interpreted = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        where = blocks(rng)
        dram = bytes([0]) + bytes(15) + rng.integers(0, 256, 8000, dtype=np.uint8).tobytes()
        code = random_code(rng, where)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(code)))
            code[at:at] = [STA(src=4 * int(rng.integers(900)), dram=SCRATCH[0], bytes=64)] + [LDA(dram=SCRATCH[0],
                dst=400, bytes=64)] * (seed % 2)
        made = image(Assembly({"main": code}, {}, (), ((0, dram),)), C)
        # no semaphores here
        made.entry("main").__dict__["timing"] = Timing(*[np.zeros(len(code), int)] * 6, (), 1, np.zeros(len(code)))
        pair = [Machine(made, batch=2, fast=fast) for fast in (True, False)]
        for m in pair:
            for at, data in where.values():
                m.memories.a[:, at: at + len(data)] = np.frombuffer(data, np.uint8)
        for _ in range(3):
            x = rng.integers(0, 256, (2, DATA), dtype=np.uint8)
            for m in pair:
                m.memories.a[:, :DATA] = x
                m.run()
            assert same(*(m.memories
                          for m in pair)) and (pair[0].memories.scratch == pair[1].memories.scratch).all(), seed
        kinds = [type(t) for t in pair[0].translations()]
        translated, interpreted = translated + kinds.count(Translation), interpreted + kinds.count(Interpreted)
    assert translated > 60 and interpreted > 60


# --------------------------------------------------------------------------------------------------- declared = touched

SPACES = ("A", "W", "ACC", "LUT", "TABLE", "DRAM")
SCRATCH = (1 << 13, (1 << 13) + 256)


def mask(ranges, space, size):
    out = np.zeros(size, bool)
    for s, first, end in ranges:
        if s == space:
            out[first:end] = True
    return out


def contents(m, space):
    """A memory as one row an address: [addresses, anything]."""
    if space == "A":
        return m.a.T.copy()
    if space == "W":
        return np.concatenate([m.w.view(np.uint8), m.index[:, None].view(np.uint8)], 1)
    if space == "ACC":
        return m.acc.transpose(1, 2, 0, 3).reshape(C.banks * C.columns, -1).copy()
    if space == "LUT":
        return m.luts.copy()
    if space == "TABLE":
        return np.array([[hash(h)] for h in m.headers])
    return np.concatenate([m.dram, m.scratch[0]])[:, None].copy()


def perturbed(m, kept, rng):
    """Another machine like ``m``, with everything else in the addresses that ``kept`` does not name."""
    free = {space: ~mask(kept, space, len(contents(m, space))) for space in SPACES}
    dram = np.where(free["DRAM"][: len(m.dram)], rng.integers(0, 256, len(m.dram), dtype=np.uint8), m.dram)
    out = Memories(C, dram, m.batch, m.scratch_range)
    saved = m.saved()
    out.restore(saved)
    out.host = lambda part, memories: None
    out.a[:, free["A"]] = rng.integers(0, 256, (m.batch, free["A"].sum()), dtype=np.uint8)
    out.w[free["W"]] = rng.integers(-128, 128, (free["W"].sum(), C.lanes))
    out.index[free["W"]] = rng.integers(0, 1 << 16, free["W"].sum())
    acc = out.acc.transpose(1, 2, 0, 3).reshape(C.banks * C.columns, m.batch, C.lanes)
    acc[free["ACC"]] = rng.integers(-1 << 47, 1 << 47, acc[free["ACC"]].shape)
    out.acc[:] = acc.reshape(C.banks, C.columns, m.batch, C.lanes).transpose(2, 0, 1, 3)
    out.luts[free["LUT"]] = rng.integers(-32768, 32768, out.luts[free["LUT"]].shape)
    out.headers = [b"\xff" if f else h for f, h in zip(free["TABLE"], out.headers, strict=True)]
    out.scratch[:, free["DRAM"][len(m.dram):]] = rng.integers(0, 256)
    return out


def disagreement(m, i, rng):
    """How ``i``, executed on ``m``, breaks its word: "" or which memory it reads or writes without saying so."""
    reads, writes = [*i.reads(C), *i.may_read(C)], list(i.writes(C))
    other = perturbed(m, reads, rng)
    before = {space: contents(other, space) for space in SPACES}
    m.execute(i)
    try:
        other.execute(i)
    except Exception as error:
        return f"reads what it does not declare: {error}"
    for space in SPACES:
        declared = mask(writes, space, len(before[space]))
        here, there = contents(m, space), contents(other, space)
        if (here[declared] != there[declared]).any():
            return f"what it writes to {space} depends on what it does not declare to read"
        if (there[~declared] != before[space][~declared]).any():
            return f"writes to {space} what it does not declare"
    return ""


def programs(count=60):
    """(memories, instruction) of random programs, one instruction after another."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        where = blocks(rng)
        dram = bytes([0]) + bytes(15) + rng.integers(0, 256, 8000, dtype=np.uint8).tobytes()
        code = [*random_code(rng, where)[:-1], STA(src=4 * int(rng.integers(900)), dram=SCRATCH[0], bytes=64),
                PROF(id=1), HOST(id=1), HALT()]
        e = image(Assembly({"main": code}, {}, (), ((0, dram),)), C).entry("main")
        m = Memories(C, np.frombuffer(dram, np.uint8), 2, SCRATCH)
        m.dram = np.concatenate([m.dram, np.zeros(SCRATCH[0] - len(m.dram), np.uint8)])
        m.streams.dram = m.dram
        m.host = lambda part, memories: None
        m.a[:, :DATA] = rng.integers(0, 256, (2, DATA), dtype=np.uint8)
        for at, data in where.values():
            m.a[:, at: at + len(data)] = np.frombuffer(data, np.uint8)
        for i in e.code:
            yield m, i, rng


def test_every_instruction_touches_what_it_declares_and_nothing_else():
    seen = dict.fromkeys(registry, 0)
    for m, i, rng in programs():
        assert not (wrong := disagreement(m, i, rng)), f"{i}: {wrong}"
        seen[type(i).__name__] += 1
    assert min(seen.values()) >= 10, seen


def test_an_undeclared_read_or_write_is_noticed(made):
    MAX = maximum()

    @instruction("VX", 0x3D)
    class PEEK(MAX):
        """Reads one byte more than it says."""

        def execute(self, m):
            a, b = (m.fetch(Integers(x, self.n + 1, 1)) for x in (self.a, self.b))
            m.store(Integers(self.dst, self.n, 1), np.maximum(a, b)[:, 1:])

    @instruction("VX", 0x3E)
    class POKE(MAX):
        """Writes one byte more than it says."""

        def execute(self, m):
            m.store(Integers(self.dst, self.n + 1, 1), m.fetch(Integers(self.a, self.n + 1, 1)) * 0)

    rng = np.random.default_rng(0)
    m = Memories(C, np.zeros(16, np.uint8))
    m.a[:] = rng.integers(0, 256, m.a.shape)
    operands = dict(a=0, b=64, dst=128, n=40)
    assert disagreement(m, MAX(**operands), rng) == ""
    assert disagreement(m, PEEK(**operands), rng) == "what it writes to A depends on what it does not declare to read"
    assert disagreement(m, POKE(**operands), rng) == "writes to A what it does not declare"


@pytest.mark.parametrize("kind", list(registry.values()), ids=list(registry))
def test_what_data_decide_is_written_by_the_same_unit_only(kind):
    """So program order is kept without semaphores, and the race detector need not know which slot or row it will be."""
    spaces = {space for space, _, _ in kind().may_read(C)}
    writers = {k.unit for k in registry.values()
               for space, first, end in k(**{f.name: f.greatest for f in k.fields if f.name == "live"}).writes(C)
               if space in spaces}
    if kind is isa.GTH:
        writers |= {STA.unit}
    assert writers <= {kind.unit}


def test_the_data_flow_is_a_memory_of_the_same_protocol():
    from nnac.isa.base import Memory

    words = {name for name in vars(Memory) if not name.startswith("_") and name != "config"}
    assert words <= set(dir(Memories))
    assert {"write_dram", "call_host"} == {name for name in words if name not in vars(Dataflow)}


# -------------------------------------------------------------------------------------------------------------- records

def test_records_hold_every_value_of_odd_widths():
    r = Record("i48 bias, u24 multiplier, u8 shift 0..62, u16 0, i64 wide")
    values = dict(bias=[-1 << 47, (1 << 47) - 1, -1], multiplier=[0, (1 << 24) - 1, 5], shift=[0, 62, 7],
                  wide=[-1 << 63, (1 << 63) - 1, 0])
    raw = r.pack(**values)
    assert len(raw) == 3 * r.bytes == 3 * 20
    assert {k: v.tolist() for k, v in r.columns(np.frombuffer(raw, np.uint8)).items()} == values
    plain, fits = Record("i16 a, u8 0, u8 shift 0..62, i64 b, u32 c"), dict(a=-5, shift=62, b=-1 << 63, c=(1 << 32) - 1)
    assert plain.read(np.frombuffer(plain.pack(**fits), np.uint8)) == fits
    assert str(r) == "{i48 bias, u24 multiplier, u8 shift 0..62, u16 0, i64 wide}"


@pytest.mark.parametrize("values, words", [
    (dict(a=128, b=0), "a=128 is not in -128 … 127"), (dict(a=0, b=63), "b=63 is not in 0 … 62"),
                                           (dict(a=[0, -129], b=1), "a=-129")])
def test_records_refuse_what_means_nothing(values, words):
    with pytest.raises(BadData, match=words):
        Record("i8 a, u8 b 0..62").pack(**values)
