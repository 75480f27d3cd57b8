"""VX: one instruction at a time, V elements a cycle.  (Time only so far.)"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal

from nnac.isa import ADD, AMAX, CPY, FIL, LN, LSTM, LUT, MUL, RQ, SMAX, TAB, Instruction, MachineConfig
from nnac.isa.config import SEMAPHORES
from nnac.rtl.params import WORD, Fields, ceil_div, opcode, sample, signal_mask

LENGTH = dict(LSTM="units", ADD="n", MUL="n", LUT="n", LN="n", SMAX="n", AMAX="n")     # the field that counts elements

LUT_BITS = 13                  # of the place of a table entry: slot, number


def linear(cls: type[Instruction], config: MachineConfig) -> tuple[int, int]:
    """(cycles of one group of V elements, cycles of each more), asked of the instruction itself."""
    name = LENGTH[cls.__name__]
    one, two, three = (sample(cls, **{name: k * config.vector}).cycles(config)[0] for k in (1, 2, 3))
    assert two - one == three - two, f"{cls.__name__} is not linear in its elements"
    return one, two - one


class Vector(Elaboratable):
    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.head, self.start, self.ready, self.idle = Signal(WORD), Signal(), Signal(), Signal()
        self.done, self.signal = Signal(), Signal(SEMAPHORES)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        left, cycles = Signal(24), Signal(24)
        for cls in (LSTM, ADD, MUL, LUT, LN, SMAX, AMAX):
            one, more = linear(cls, c)
            with m.If(opcode(self.head) == cls.opcode):
                m.d.comb += cycles.eq(one + more * (ceil_div(Fields(cls, self.head).count(LENGTH[cls.__name__]), c.vector) - 1))
        rq, copy, fill = Fields(RQ, self.head), Fields(CPY, self.head), Fields(FIL, self.head)
        groups = rq.count("columns") * ceil_div(rq.count("rows"), c.vector)
        twice = sample(RQ, rows=c.vector, wide=1).cycles(c)[0] - c.vx_fill == 2
        assert twice and sample(RQ, rows=c.vector).cycles(c)[0] == c.vx_fill + 1
        with m.If(opcode(self.head) == RQ.opcode):
            m.d.comb += cycles.eq(c.vx_fill + (groups << (rq.code("wide") | rq.code("double"))))
        with m.If(opcode(self.head) == CPY.opcode):
            m.d.comb += cycles.eq(c.vx_fill + copy.count("count") * ceil_div(copy.bytes("bytes"), c.lanes))
        with m.If(opcode(self.head) == FIL.opcode):
            m.d.comb += cycles.eq(c.vx_fill + ceil_div(fill.bytes("bytes"), c.lanes))
        with m.If(opcode(self.head) == TAB.opcode):
            m.d.comb += cycles.eq(sample(TAB).cycles(c)[0])
        m.d.comb += [self.ready.eq(left == 0), self.idle.eq(left == 0), self.done.eq(left == 1)]
        with m.If(self.start):
            m.d.sync += [left.eq(cycles - 1), self.signal.eq(signal_mask(self.head))]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return m
