"""MV: weight words times broadcast activations, one word a cycle, into the accumulators.

Stages, from the cycle in which a word is taken: 2 its address in W · 3 word and index are there, the index addresses A
· 4 multiply, add. An int16 activation takes two cycles, low byte first; an int16 weight is two words.  Every product is
of 9 signed bits.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory

from nnac.isa import MVM, MachineConfig
from nnac.isa.config import SEMAPHORES
from nnac.isa.matrix import ACCUMULATOR_BITS
from nnac.rtl.params import A_BITS, WORD, Fields, named, signal_mask
from nnac.rtl.tile import INDEX_BITS

ACC_BITS, W_BITS = ACCUMULATOR_BITS, 14
INT16_WEIGHTS = 1  # MVM's field ``weights``


class Matrix(Elaboratable):
    """``w_data``: index (low 16 bits) and L weights.   ``a_data``: the two bytes at each column's address, which may be
    odd.

    ``acc_*``: accumulators of V rows for VX: bank, column, group of rows -> V numbers, in the same cycle.
    """

    def __init__(self, config: MachineConfig) -> None:
        self.config = c = config
        self.head, self.start, self.ready, self.idle = Signal(WORD), Signal(), Signal(), Signal()
        self.done, self.signal = Signal(), Signal(SEMAPHORES)
        self.w_addr, self.w_data = Signal(W_BITS), Signal(INDEX_BITS + 8 * c.lanes)
        self.a_addr, self.a_data = (
            [Signal(A_BITS, name=f"a_addr_{k}") for k in range(c.columns)],
            Signal(16 * c.columns),
        )
        groups = c.lanes // c.vector
        self.acc_bank, self.acc_column, self.acc_group = (
            Signal(range(c.banks)),
            Signal(range(max(2, c.columns))),
            Signal(range(groups)),
        )
        self.acc_data = Signal(ACC_BITS * c.vector)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        head = Fields(MVM, self.head)

        # ---- issue: how long the unit is busy, and done when the last product is in
        busy = named(head.count("words") << head.code("act16"), "busy")
        left = named(busy, "left")
        m.d.comb += [busy.eq(head.count("words") << head.code("act16")), self.ready.eq(left == 0)]
        mask = Signal(SEMAPHORES)
        last, last_mask = Signal(), Signal(SEMAPHORES)
        m.d.comb += [
            last.eq(Mux(self.start, busy == 1, left == 1)),
            last_mask.eq(Mux(self.start, signal_mask(self.head), mask)),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(busy - 1), mask.eq(signal_mask(self.head))]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        drains: list[tuple[Signal, Signal]] = [(last, last_mask)]
        for k in range(c.mv_drain):
            drains.append((Signal(name=f"drain_{k}"), Signal(SEMAPHORES, name=f"drain_mask_{k}")))
            m.d.sync += [now.eq(before) for now, before in zip(drains[-1], drains[-2], strict=True)]
        m.d.comb += [
            self.done.eq(drains[-1][0]),
            self.signal.eq(drains[-1][1]),
            self.idle.eq((left == 0) & ~Cat(d for d, _ in drains[1:]).any()),
        ]

        # ---- stage 1: the instruction and the number of the word
        word, taken, number, half = Signal(WORD), Signal(), Signal(11), Signal()
        f = Fields(MVM, word)
        m.d.sync += taken.eq(self.start | (left != 0))
        with m.If(self.start):
            m.d.sync += [word.eq(self.head), number.eq(0), half.eq(0)]
        with m.Elif(left != 0):
            m.d.sync += half.eq(f.code("act16") & ~half)
            with m.If(half | ~f.code("act16")):
                m.d.sync += number.eq(number + 1)
        # ---- stage 2: W is addressed.  3: A is.  4: products.  What a stage needs of the instruction goes with it.
        carried = Cat(
            f.code("act"),
            f.count("stride"),
            f.count("columns"),
            f.code("bank"),
            f.code("weights"),
            f.code("act16"),
            half,
            f.code("clear") & (number == 0) & ~half,
        )
        stages = [(taken, carried)]
        for k in (2, 3, 4):
            stages.append((Signal(name=f"taken_{k}"), Signal(len(carried), name=f"carried_{k}")))
            m.d.sync += [now.eq(before) for now, before in zip(stages[-1], stages[-2], strict=True)]
        address = Signal(W_BITS)
        m.d.sync += address.eq(f.code("word") + number)
        m.d.comb += self.w_addr.eq(address)

        def parts(stage: Signal) -> list[Signal]:
            out, at = [], 0
            for width in map(
                len,
                (
                    f.code("act"),
                    f.count("stride"),
                    f.count("columns"),
                    f.code("bank"),
                    f.code("weights"),
                    f.code("act16"),
                    half,
                    half,
                ),
            ):
                out.append(stage[at : at + width])
                at += width
            return out

        act, stride, _, _, weights, act16, _, _ = parts(stages[2][1])
        index = Signal(INDEX_BITS)
        m.d.comb += index.eq(Mux(weights == INT16_WEIGHTS, self.w_data[:INDEX_BITS] >> 1, self.w_data[:INDEX_BITS]))
        offsets: list[Signal | Const] = [Const(0, 1)]
        for k in range(1, c.columns):
            # k * stride, by a running sum
            step = Signal(A_BITS, name=f"offset_{k}")
            m.d.comb += step.eq(offsets[-1] + (stride << 2))
            offsets.append(step)
        base = Signal(A_BITS)
        m.d.comb += base.eq(act + (index << act16))
        m.d.comb += [a.eq(base + o) for a, o in zip(self.a_addr, offsets, strict=True)]
        values, odd = Signal(8 * c.lanes), Signal()
        m.d.sync += [values.eq(self.w_data[INDEX_BITS:]), odd.eq(self.w_data[0])]

        _, _, columns, bank, weights, act16, half4, clear = parts(stages[3][1])
        int16 = Signal()
        low_weight = Signal()
        m.d.comb += [int16.eq(weights == INT16_WEIGHTS), low_weight.eq(int16 & ~odd)]
        scale = Signal(2)  # the product counts 2^(8 scale)
        m.d.comb += scale.eq((int16 & odd) + (act16 & half4))
        factors = []
        for lane in range(c.lanes):
            v = Signal(signed(9), name=f"weight_{lane}")
            byte = values[8 * lane : 8 * lane + 8]
            m.d.comb += v.eq(Cat(byte, byte[7] & ~low_weight))
            factors.append(v)
        row = ACC_BITS * c.lanes
        reads = []
        for k in range(c.columns):
            pair = self.a_data[16 * k : 16 * k + 16]
            x = Signal(signed(9), name=f"activation_{k}")
            low_act = act16 & ~half4
            byte = Mux(act16 & half4, pair[8:], pair[:8])
            m.d.comb += x.eq(Cat(byte, byte[7] & ~low_act))
            m.submodules[f"acc_{k}"] = memory = Memory(shape=row, depth=c.banks, init=[])
            write, now, out = memory.write_port(), memory.read_port(domain="comb"), memory.read_port(domain="comb")
            m.d.comb += [
                now.addr.eq(bank),
                write.addr.eq(bank),
                write.en.eq(stages[3][0] & (columns > k)),
                out.addr.eq(self.acc_bank),
            ]
            for lane, v in enumerate(factors):
                at = slice(ACC_BITS * lane, ACC_BITS * lane + ACC_BITS)
                product, total = (
                    Signal(signed(18), name=f"product_{k}_{lane}"),
                    Signal(signed(ACC_BITS), name=f"total_{k}_{lane}"),
                )
                m.d.comb += [
                    product.eq(v * x),
                    total.eq(Mux(clear, 0, now.data[at].as_signed()) + (product << (scale << 3))),
                    write.data[at].eq(total),
                ]
            reads.append(out.data)
        groups = c.lanes // c.vector
        wide = Signal(row)
        m.d.comb += wide.eq(Array(reads)[self.acc_column] if c.columns > 1 else reads[0])
        m.d.comb += self.acc_data.eq(
            Array(wide.word_select(g, ACC_BITS * c.vector) for g in range(groups))[self.acc_group]
        )
        return m
