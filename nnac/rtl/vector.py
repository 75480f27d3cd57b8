"""VX: one instruction at a time, V elements a cycle.  When it is done is counted from its operands; here is also what
happens inside.

In the cycle after the start the parameters are addressed, and from the next on a group of V elements is *issued* at a
time: its operands are addressed.  The group then moves down the stages as a `Token`, one a cycle: at stage 1 the
operands are there.  What happens at which stage:

    RQ    1 sums (wide: 2) · 2 product · 3 out
    ADD   1, 2 the operands · 2, 3 products · 3, 4 rounded · 4 out
    MUL   1 product · 2 product · 3 out
    LUT   1 table · 2 between two entries · 3 product · 4 out
    LSTM  0..3 f, g, i, o addressed, 1..4 table · 3 f c · 5 i g · 6 new cell out, table · 8 o tanh c'
          9 product · 10 out
    GRU   0, 1 r, z addressed, 1, 2 table · 2 the hidden state's n · 3 r times it; n, the state addressed · 4 table, z s
          6 (1 - z) n · 7 new state out · 9 product, out
    LN    pass 1: 1 sum      pass 2: 1 d · 2 d d · 3 sum
          pass 3: 1 d · 2 d q · 3 n · 4 n gain + bias · 5 product · 6 out
    GATE  1 table · 2 the factor addressed · 3 their product · 4 product · 5 out
    SMAX  pass 1: 1 maximum      pass 2: 1 max - x · 2 product · 3 t · 4 table · 6 sum
          pass 3: as pass 2, then 6 e / sum · 8 product · 9 out      of several vectors one after another
    LSM   as SMAX, but x - max      pass 3: 3 t - logarithm, out
    DOT   1 products · 2, 3 sums, bias addressed · 4 product · 5 out
    MIX   1 products · 2 sums · 3 product · 4 out
    DWC   so, but the last group of a sum holds parameters: 1 the sum · 2 product · 3 out
    AMAX  1 maximum · at the end out      CPY, FIL, TAB, KEEP  1 out
"""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed

from nnac.arith import SCORE_BITS, UNIT_FRACTION
from nnac.isa import (
    ADD,
    AMAX,
    CPY,
    DOT,
    DWC,
    FIL,
    GATE,
    GRU,
    KEEP,
    LN,
    LSM,
    LSTM,
    LUT,
    MIX,
    MUL,
    RQ,
    SMAX,
    TAB,
    MachineConfig,
    VectorInstruction,
)
from nnac.isa.config import LUT_ENTRIES, SEMAPHORES
from nnac.isa.vector import RQ_HEAD, RQ_ROW, RQ_WIDE_ROW
from nnac.rtl.blocks import field
from nnac.rtl.lanes import Lane, Shared
from nnac.rtl.matrix import ACC_BITS
from nnac.rtl.params import A_BITS, UNIT, WORD, Fields, cases, ceil_div, of_unit, opcode, power, sample, signal_mask
from nnac.rtl.rings import Rings, aligned, check_times
from nnac.rtl.root import Root

LUT_BITS = 13  # of the place of a table entry: slot, number
SLOT = 10  # the number's bits
# the field that counts elements
LENGTH = dict(LSTM="units", GRU="units", ADD="n", MUL="n", LUT="n", GATE="n", LN="n", SMAX="n", LSM="n", AMAX="n")
STAGES = 11
THREE: tuple[type[VectorInstruction], ...] = (LN, SMAX, LSM)  # passes over a vector
RINGED: tuple[type[VectorInstruction], ...] = (DOT, MIX, DWC)  # of sums over a ring
# cycles from a pass's last group to the next pass's first: its sum is known; its root is; another vector begins
AFTER_SUM, AFTER_ROOT, AFTER_VECTOR = 2, 10, 15


def linear(cls: type[VectorInstruction], config: MachineConfig) -> tuple[int, int]:
    """(cycles of one group of V elements, cycles of each more), asked of the instruction itself."""
    name = LENGTH[cls.__name__]
    one, two, three = (sample(cls, **{name: k * config.vector}).cycles(config)[0] for k in (1, 2, 3))
    assert two - one == three - two, f"{cls.__name__} is not linear in its elements"
    return one, two - one


class Token:
    """A group on its way: number, elements in it, pass, the offset of its column or block, whether it is its pass's
    last.  Of a ring: whether it is the first and the last of a sum, the last of a vector, of a key that is not there.
    """

    def __init__(self, name: str, config: MachineConfig) -> None:
        self.valid, self.last = Signal(name=f"{name}_valid"), Signal(name=f"{name}_last")
        self.group, self.elements = (
            Signal(12, name=f"{name}_group"),
            Signal(range(config.lanes + 1), name=f"{name}_elements"),
        )
        self.turn, self.column, self.offset = (
            Signal(2, name=f"{name}_turn"),
            Signal(4, name=f"{name}_column"),
            Signal(A_BITS - 2, name=f"{name}_offset"),
        )
        self.fresh, self.end, self.hidden = (Signal(name=f"{name}_{what}") for what in ("fresh", "end", "hidden"))

    @property
    def signals(self) -> list[Signal]:
        return list(vars(self).values())


class Vector(Elaboratable):
    """Three read ports of A and one write port of L bytes each, from any word of 4 bytes; ports of look-up tables;
    accumulators.
    """

    def __init__(self, config: MachineConfig) -> None:
        self.config = c = config
        self.head, self.start, self.ready, self.idle = Signal(WORD), Signal(), Signal(), Signal()
        self.done, self.signal = Signal(), Signal(SEMAPHORES)
        self.holds = Signal()
        self.raddr = [Signal(A_BITS - 2, name=f"raddr{k}") for k in range(3)]
        self.rdata = [Signal(8 * c.lanes, name=f"rdata{k}") for k in range(3)]
        self.waddr, self.mask, self.wdata = Signal(A_BITS - 2), Signal(c.lanes), Signal(8 * c.lanes)
        self.lut_addr, self.lut_data = Signal(2 * c.vector * LUT_BITS), Signal(64 * c.vector)
        self.lut_waddr, self.lut_mask, self.lut_wdata = Signal(LUT_BITS), Signal(2 * c.vector), Signal(32 * c.vector)
        self.acc_bank, self.acc_column = Signal(range(c.banks)), Signal(range(max(2, c.columns)))
        self.acc_group, self.acc_data = Signal(range(c.lanes // c.vector)), Signal(ACC_BITS * c.vector)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        word = Signal(WORD)
        self._time(m, word)
        v, lanes = c.vector, c.lanes
        op = {cls: Signal(name=f"is_{cls.__name__}") for cls in of_unit("VX") if issubclass(cls, VectorInstruction)}
        f = {cls: Fields(cls, word) for cls in op}
        m.d.comb += [is_it.eq(opcode(word) == cls.opcode) for cls, is_it in op.items()]
        first = Signal()  # the cycle after the start: parameters are addressed
        m.d.sync += first.eq(self.start)
        second = Signal()  # ... and there
        m.d.sync += second.eq(first)

        def of(name: str, *classes: type[VectorInstruction], otherwise: Value | int = 0) -> Value:
            """The field of whichever of these instructions it is."""
            out: Value = Const(otherwise) if isinstance(otherwise, int) else otherwise
            for cls in classes:
                out = Mux(op[cls], f[cls].count(name), out)
            return out

        # ---- parameters: of whichever record it is, one field a register
        block = Cat(self.rdata[1], self.rdata[2])
        multiplier, multiplier2, shift, shift2 = Signal(32), Signal(32), Signal(6), Signal(6)
        zero_point, bits, fraction = Signal(signed(16)), Signal(8), Signal(5)
        slots, symmetry, epsilon, width = (
            [Signal(3, name=f"slot_{k}") for k in range(3)],
            Signal(),
            Signal(61),
            Signal(32),
        )
        registers: dict[type[VectorInstruction], dict[str, Signal]] = {
            RQ: dict(zero_point=zero_point, bits=bits),
            LSTM: dict(
                multiplier=multiplier,
                shift=shift,
                bits=bits,
                fraction=fraction,
                sigmoid=slots[0],
                tanh=slots[1],
                tanh_cell=slots[2],
            ),
            GRU: dict(multiplier=multiplier, shift=shift, bits=bits, sigmoid=slots[0], tanh=slots[1]),
            ADD: dict(m0=multiplier, m1=multiplier2, s0=shift, s1=shift2, bits=bits),
            MUL: dict(multiplier=multiplier, shift=shift, bits=bits, zero_point=zero_point),
            **{
                cls: dict(
                    **dict(multiplier=multiplier, shift=shift, bits=bits, zero_point=zero_point),
                    **dict(slot=slots[0], symmetry=symmetry),
                )
                for cls in (LUT, GATE)
            },
            DOT: dict(multiplier=multiplier, shift=shift),
            MIX: dict(multiplier=multiplier, shift=shift, bits=bits),
            DWC: dict(zero_point=zero_point, bits=bits),
            LN: dict(
                epsilon=epsilon,
                root_width=width,
                multiplier=multiplier2,
                shift=shift2,
                bits=bits,
                zero_point=zero_point,
            ),
            SMAX: dict(
                multiplier=multiplier,
                out_multiplier=multiplier2,
                shift=shift,
                out_shift=shift2,
                bits=bits,
                slot=slots[0],
                zero_point=zero_point,
            ),
            LSM: dict(multiplier=multiplier, shift=shift, exp=slots[0], log=slots[1]),
        }
        with m.If(second):
            for cls, taken in registers.items():
                with m.If(op[cls]):
                    m.d.sync += [
                        register.eq(field(cls.block or RQ_HEAD, name, block)) for name, register in taken.items()
                    ]
                    for register, names in ((zero_point, "zero_point"), (symmetry, "symmetry")):
                        if names not in taken:
                            m.d.sync += register.eq(0)
        limit = Signal(signed(18))
        m.d.comb += limit.eq(1 << (bits[:5] - 1)[:4])
        params = of("params", RQ, LSTM, GRU, ADD, MUL, LUT, GATE, LN, SMAX, LSM, DOT, MIX, DWC)
        passes, softmax, ringed = Signal(), Signal(), Signal()
        m.d.comb += [passes.eq(Cat(op[cls] for cls in THREE).any()), softmax.eq(op[SMAX] | op[LSM])]
        m.d.comb += ringed.eq(Cat(op[cls] for cls in RINGED).any())
        m.submodules.rings = rings = Rings(c)
        check_times(c)
        m.d.comb += [
            rings.head.eq(self.head),
            rings.word.eq(word),
            rings.start.eq(self.start),
            rings.first.eq(first),
            rings.second.eq(second),
            rings.count.eq(self.rdata[0][:7]),
            self.holds.eq(rings.holds),
        ]

        # ---- issue: groups of V elements (moving: of L bytes), in columns, blocks or passes
        elements, turns, every = Signal(17), Signal(9), Signal(3)
        twice = op[ADD] | op[GATE] | (op[RQ] & (f[RQ].code("wide") | f[RQ].code("double")))
        m.d.comb += [
            elements.eq(
                cases(
                    (op[CPY], f[CPY].count("bytes")),
                    (op[FIL], f[FIL].bytes("bytes")),
                    (op[TAB], 2 * LUT_ENTRIES),
                    (op[RQ], f[RQ].count("rows")),
                    (op[LSTM] | op[GRU], of("units", LSTM, GRU)),
                    (op[KEEP], f[KEEP].bytes("bytes")),
                    otherwise=of("n", ADD, MUL, LUT, GATE, LN, SMAX, LSM, AMAX),
                )
            ),
            turns.eq(
                cases(
                    (passes, 3 * of("groups", SMAX, otherwise=1)),
                    (op[CPY], f[CPY].count("count")),
                    (op[KEEP], f[KEEP].count("chunk")),
                    otherwise=of("columns", RQ, otherwise=1),
                )
            ),
            every.eq(Mux(op[LSTM] | op[GRU], 5, Mux(twice, 2, 1))),
        ]
        moving = op[CPY] | op[FIL] | op[TAB] | op[KEEP]
        issuing, pause, rest, turns_left = Signal(), Signal(4), Signal(17), Signal(9)
        tokens = [Token(f"t{k}", c) for k in range(STAGES)]
        t = tokens[0]
        group, turn, column, offset, source = Signal(12), Signal(2), Signal(4), Signal(A_BITS - 2), Signal(A_BITS)
        size, ends = Signal(17), Signal()
        step = cases(
            (op[CPY], f[CPY].count("dstride")),
            (op[KEEP], f[KEEP].count("bytes")),
            otherwise=of("stride", RQ),
        )
        m.d.comb += [
            t.valid.eq(Mux(ringed, rings.valid, issuing & (pause == 0))),
            size.eq(Mux(moving, lanes, v)),
            ends.eq(rest <= size),
            t.last.eq(Mux(ringed, rings.last, ends & ((turns_left == 1) | passes))),
            t.group.eq(group),
            t.turn.eq(turn),
            t.column.eq(column),
            t.offset.eq(offset),
            t.elements.eq(Mux(ringed, rings.elements, Mux(ends, rest, size))),
            t.fresh.eq(rings.fresh),
            t.end.eq(rings.end),
            t.hidden.eq(rings.hidden),
        ]
        for before, after in pairwise(tokens):
            m.d.sync += [a.eq(b) for b, a in zip(before.signals, after.signals, strict=True)]
            with m.If(self.start):
                m.d.sync += after.valid.eq(0)  # what the last instruction has done with mean nothing to this one
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.If(first):
            m.d.sync += [
                issuing.eq(elements != 0),
                pause.eq(op[KEEP]),  # for the count
                rest.eq(elements),
                turns_left.eq(turns),
                group.eq(0),
                turn.eq(1),
                column.eq(0),
                offset.eq(0),
                source.eq(0),
            ]
        with m.Elif(t.valid):
            m.d.sync += [pause.eq(every - 1), group.eq(group + 1), rest.eq(rest - size)]
            with m.If(ends):
                m.d.sync += [
                    group.eq(0),
                    rest.eq(elements),
                    turns_left.eq(turns_left - 1),
                    turn.eq(turn + 1),
                    column.eq(column + 1),
                    offset.eq(offset + step),
                    source.eq(source + Mux(op[KEEP], f[KEEP].bytes("bytes"), f[CPY].bytes("sstride"))),
                ]
                with m.If(passes):
                    m.d.sync += [
                        pause.eq(Mux(turn == 1, AFTER_SUM, Mux(turn == 2, AFTER_ROOT, AFTER_VECTOR)) - 1),
                        turn.eq(Mux(turn == 3, 1, turn + 1)),
                        source.eq(Mux(turn == 3, source + (f[SMAX].count("n") << f[SMAX].code("a16")), source)),
                    ]
                with m.If(turns_left == 1):
                    m.d.sync += issuing.eq(0)

        # ---- where operands lie, in words of 4 bytes
        def scaled(token: Token, wide: Value) -> Value:
            """The offset of a group of elements of 1 byte or, if ``wide``, 2."""
            return Mux(wide, token.group << power(v // 2), token.group << power(v // UNIT))

        a16 = Signal()
        m.d.comb += a16.eq(op[LUT] | op[GATE] | of("a16", ADD, MUL, LN, SMAX, LSM, AMAX))
        b16 = Mux(op[GATE], f[GATE].code("a16"), of("b16", ADD, MUL))
        wide, add = op[RQ] & f[RQ].code("wide"), f[RQ].code("add")
        row_words = Mux(wide, RQ_WIDE_ROW.bytes // UNIT, RQ_ROW.bytes // UNIT)
        row_at = Signal(A_BITS - 2)
        m.d.comb += row_at.eq(f[RQ].count("params") + RQ_HEAD.bytes // UNIT + (t.group << power(v)) * row_words)
        rest_of_row = Signal(A_BITS - 2)
        m.d.sync += rest_of_row.eq(row_at + 2 * v)
        # LSTM's blocks of pre-activations may begin in the middle of a word, vectors of softmax anywhere
        half_words, skipped, skipped_row = Signal(A_BITS), Signal(2), Signal(2)
        lstm_block = Mux(tokens[1].valid, 2, Mux(tokens[2].valid, 0, Mux(tokens[3].valid, 3, 1)))
        lstm_group = Mux(
            tokens[1].valid,
            tokens[1].group,
            Mux(tokens[2].valid, tokens[2].group, Mux(tokens[3].valid, tokens[3].group, t.group)),
        )
        gru_block = Mux(t.valid, 0, Mux(tokens[1].valid, 1, 2))
        gru_group = Mux(t.valid, t.group, Mux(tokens[1].valid, tokens[1].group, tokens[3].group))
        units, pre = of("units", LSTM, GRU), of("pre", LSTM, GRU) << 1
        m.d.comb += half_words.eq(
            pre + units * Mux(op[GRU], gru_block, lstm_block) + (Mux(op[GRU], gru_group, lstm_group) << power(v))
        )
        # GRU's other blocks lie behind the first three; and in a cycle of its own, its state is addressed
        behind, gru_other = Signal(A_BITS), Mux(tokens[2].valid, tokens[2].group, gru_group)
        m.d.comb += behind.eq(
            pre + (((3 * f[GRU].count("units") + 1) >> 1) << 1) + units * gru_block + (gru_other << power(v))
        )
        softly = Mux(op[SMAX], source[:2], Mux(ringed, rings.other[:2], 0))
        m.d.sync += skipped.eq(Mux(op[LSTM] | op[GRU], Cat(Const(0, 1), half_words[0]), softly))
        of_hidden = Mux(op[GRU] & ~tokens[3].valid, Cat(Const(0, 1), behind[0]), 0)
        m.d.sync += skipped_row.eq(Mux(ringed, rings.row[:2], of_hidden))
        m.submodules.root = root = Root()
        root_step = Signal()
        m.d.sync += root_step.eq(root.go)
        start = of("src", LUT, LN, SMAX, LSM, AMAX, otherwise=Mux(op[GATE], f[GATE].count("b"), of("a", ADD, MUL)))
        m.d.comb += self.raddr[0].eq(start + Mux(op[SMAX], source[2:], 0) + scaled(t, a16))
        with m.If(first & (ringed | op[KEEP])):
            m.d.comb += self.raddr[0].eq(rings.ring)
        with m.Elif(ringed):
            m.d.comb += self.raddr[0].eq(rings.other >> power(UNIT))
        with m.Elif(op[RQ]):
            m.d.comb += self.raddr[0].eq(Mux(wide & ~t.valid, rest_of_row, row_at))
        with m.Elif(op[LSTM] | op[GRU]):
            m.d.comb += self.raddr[0].eq(half_words >> 1)
        with m.Elif(moving):
            m.d.comb += self.raddr[0].eq(of("src", CPY, TAB, KEEP) + source[2:] + (t.group << power(lanes // UNIT)))
        with m.Elif(root_step):
            m.d.comb += self.raddr[0].eq(of("roots", LN, SMAX) + root.address)
        gain = Signal(A_BITS - 2)
        m.d.comb += gain.eq(params + LN.block.bytes // UNIT)
        addend = Signal(A_BITS - 2)

        def at_addend(token: Token, shift: int) -> Value:
            return f[RQ].count("addend") + token.offset + (token.group << shift)

        m.d.comb += addend.eq(
            Mux(
                add == 1,
                Mux(wide, at_addend(tokens[1], power(v)), at_addend(t, power(v))),
                Mux(wide, at_addend(tokens[3], power(v // 2)), at_addend(tokens[2], power(v // 2))),
            )
        )
        with m.If(first):
            m.d.comb += [self.raddr[1].eq(params), self.raddr[2].eq(params + lanes // UNIT)]
        with m.Elif(op[RQ]):
            m.d.comb += [self.raddr[1].eq(row_at + v), self.raddr[2].eq(addend)]
        with m.Elif(op[LSTM]):
            m.d.comb += self.raddr[1].eq(f[LSTM].count("cell") + (tokens[2].group << power(v // 2)))
        with m.Elif(op[GRU]):
            state = f[GRU].count("state") + (tokens[3].group << power(v // 2))
            m.d.comb += self.raddr[1].eq(Mux(tokens[3].valid, state, behind >> 1))
        with m.Elif(op[LN]):
            m.d.comb += [
                self.raddr[1].eq(gain + (tokens[3].group << power(v // 2))),
                self.raddr[2].eq(gain + ((f[LN].count("n") + 1) >> 1) + (tokens[3].group << power(v))),
            ]
        with m.Elif(ringed):
            bias_at = [rings.bias, Signal(A_BITS - 2), Signal(A_BITS - 2)]
            m.d.sync += [after.eq(before) for before, after in pairwise(bias_at)]
            m.d.comb += [self.raddr[1].eq(rings.row >> power(UNIT)), self.raddr[2].eq(bias_at[2])]
        with m.Elif(op[GATE]):
            m.d.comb += self.raddr[1].eq(f[GATE].count("a") + scaled(tokens[2], b16))
        with m.Else():
            m.d.comb += self.raddr[1].eq(of("b", ADD, MUL) + scaled(t, b16))

        # ---- accumulators and what RQ adds to them
        rq_token = tokens[1]
        acc_token_group, acc_token_column = (
            Mux(wide, tokens[2].group, rq_token.group),
            Mux(wide, tokens[2].column, rq_token.column),
        )
        m.d.comb += [
            self.acc_bank.eq(f[RQ].code("bank")),
            self.acc_group.eq(acc_token_group),
            self.acc_column.eq(acc_token_column),
        ]
        held = Signal(16 * lanes)
        m.d.sync += held.eq(Cat(self.rdata[0], self.rdata[1]))
        narrow_rows, wide_rows = Cat(self.rdata[0], self.rdata[1]), Cat(held, self.rdata[0])

        # ---- the lanes
        s = Shared()
        x_data = Signal(16 * v)
        m.d.comb += x_data.eq(Array(self.rdata[0][8 * k : 8 * k + 16 * v] for k in range(UNIT))[skipped])
        b_data = Signal(16 * v)
        m.d.comb += b_data.eq(Array(self.rdata[1][8 * k : 8 * k + 16 * v] for k in range(UNIT))[skipped_row])
        probability = Signal(signed(16))
        dot = Signal(signed(25))
        m.d.comb += probability.eq(Mux(f[MIX].code("p16"), x_data[:16].as_signed(), x_data[:8].as_signed()))
        made: list[Lane] = []
        reads_bytes = ~(a16 | op[LSTM] | op[GRU])
        cell_or_b16 = b16 | op[LSTM] | op[GRU]
        for k in range(v):
            m.submodules[f"lane_{k}"] = lane = Lane()
            made.append(lane)
            m.d.comb += [mine.eq(shared) for mine, shared in zip(lane.s.signals, s.signals, strict=True)]
            narrow, row = narrow_rows[64 * k : 64 * k + 64], wide_rows[96 * k : 96 * k + 96]
            m.d.comb += [
                lane.x.eq(
                    Mux(
                        op[MIX],
                        probability,
                        Mux(
                            reads_bytes,
                            x_data[8 * k : 8 * k + 8].as_signed(),
                            x_data[16 * k : 16 * k + 16].as_signed(),
                        ),
                    )
                ),
                lane.b.eq(
                    Mux(
                        cell_or_b16,
                        b_data[16 * k : 16 * k + 16].as_signed(),
                        b_data[8 * k : 8 * k + 8].as_signed(),
                    )
                ),
                lane.acc.eq(self.acc_data[ACC_BITS * k : ACC_BITS * k + ACC_BITS]),
                lane.bias.eq(Mux(wide, field(RQ_WIDE_ROW, "bias", row), field(RQ_ROW, "bias", narrow))),
                lane.m_row.eq(Mux(wide, field(RQ_WIDE_ROW, "multiplier", row), field(RQ_ROW, "multiplier", narrow))),
                lane.s_row.eq(Mux(wide, field(RQ_WIDE_ROW, "shift", row), field(RQ_ROW, "shift", narrow))),
                lane.gain.eq(self.rdata[1][16 * k : 16 * k + 16]),
                lane.gain_bias.eq(self.rdata[2][32 * k : 32 * k + 32]),
            ]
            if k == 0:
                with m.If(op[DOT]):
                    m.d.comb += [lane.acc.eq(dot), lane.bias.eq(self.rdata[2][:32].as_signed())]
            with m.If(add == 1):
                m.d.comb += lane.addend.eq(self.rdata[2][32 * k : 32 * k + 32])
            with m.Elif(add == 2):
                m.d.comb += lane.addend.eq(self.rdata[2][16 * k : 16 * k + 16].as_signed())
            with m.If(op[LSM]):
                m.d.comb += lane.addend.eq(root.result)
            with m.Elif(~op[RQ]):
                m.d.comb += lane.addend.eq(0)
            port, cell_port = slice(32 * k, 32 * k + 32), slice(32 * (v + k), 32 * (v + k) + 32)
            m.d.comb += [lane.entries.eq(self.lut_data[port]), lane.cell_entries.eq(self.lut_data[cell_port])]
        slot = Mux((op[LSTM] & tokens[2].valid) | (op[GRU] & tokens[4].valid), slots[1], slots[0])
        m.d.comb += self.lut_addr.eq(
            Cat(*(Cat(lane.segment, slot) for lane in made), *(Cat(lane.cell_segment, slots[2]) for lane in made))
        )
        with m.If(root_step & op[LSM]):
            m.d.comb += self.lut_addr[:LUT_BITS].eq(Cat(root.place, Const(0, SLOT - len(root.place)), slots[1]))

        # ---- sums and maxima of a group
        t1, t2, t3, t6 = tokens[1], tokens[2], tokens[3], tokens[6]
        pass_of = {k: tokens[k].turn for k in (1, 2, 3, 4, 5, 6, 7, 8)}
        terms = []
        for k, lane in enumerate(made):
            term = Signal(signed(64), name=f"term_{k}")
            with m.If(softmax):
                m.d.comb += term.eq(Mux(t6.elements > k, lane.y, 0))
            with m.Elif(op[DOT]):
                m.d.comb += term.eq(Mux(t2.elements > k, lane.small, 0))
            with m.Elif(t1.valid & (pass_of[1] == 1)):
                m.d.comb += term.eq(Mux(t1.elements > k, lane.x, 0))
            with m.Else():
                m.d.comb += term.eq(Mux(t3.elements > k, lane.prod, 0))
            terms.append(term)
        partial = Signal(signed(64))
        m.d.sync += partial.eq(sum(terms[1:], start=terms[0]))
        kept_dot = Signal(signed(24))
        m.d.comb += dot.eq(Mux(t3.fresh, 0, kept_dot) + partial[:24].as_signed())
        with m.If(t3.valid):
            m.d.sync += kept_dot.eq(dot)
        sums, squares = Signal(signed(33)), Signal(62)
        with m.If(first):
            m.d.sync += [sums.eq(0), squares.eq(0)]
        with m.Elif(second & op[LN]):
            m.d.sync += squares.eq(field(LN.block, "epsilon", block))
        with m.Elif(op[LN] & t2.valid & (pass_of[2] == 1)):
            m.d.sync += sums.eq(sums + partial)
        with m.Elif((op[LN] & tokens[4].valid & (pass_of[4] == 2)) | (softmax & tokens[7].valid & (pass_of[7] == 2))):
            m.d.sync += squares.eq(squares + partial)
        with m.Elif(op[SMAX] & t2.valid & (pass_of[2] == 1)):  # of the next vector
            m.d.sync += squares.eq(0)
        best, place = Signal(signed(17)), Signal(12)
        candidates: list[tuple[Value, Value]] = []
        for k, lane in enumerate(made):
            value = Signal(signed(17), name=f"value_{k}")
            m.d.comb += value.eq(Mux(t1.elements > k, lane.x, -(1 << 16)))
            candidates.append((value, Const(k, power(v))))
        while len(candidates) > 1:
            paired: list[tuple[Value, Value]] = []
            for (a, at_a), (b, at_b) in zip(candidates[::2], candidates[1::2], strict=True):
                most, where = (
                    Signal(signed(17), name=f"most_{len(candidates)}_{len(paired)}"),
                    Signal(power(v), name=f"where_{len(candidates)}_{len(paired)}"),
                )
                m.d.comb += [most.eq(Mux(b > a, b, a)), where.eq(Mux(b > a, at_b, at_a))]  # the first of equals
                paired.append((most, where))
            candidates = paired
        most, where = Signal(signed(17)), Signal(power(v))
        m.d.sync += [most.eq(candidates[0][0]), where.eq(candidates[0][1])]
        with m.If(t2.valid & (pass_of[2] == 1) & ((t2.group == 0) | (most > best))):
            m.d.sync += [best.eq(most), place.eq(Cat(where, t2.group))]

        # ---- the root
        m.d.comb += [
            root.go.eq(
                (op[LN] & tokens[5].valid & tokens[5].last & (pass_of[5] == 2))
                | (softmax & tokens[8].valid & tokens[8].last & (pass_of[8] == 2))
            ),
            root.u.eq(squares),
            root.width.eq(width),
            root.square.eq(op[SMAX]),
            root.log.eq(op[LSM]),
            root.entries.eq(self.lut_data[:32]),
            root.data.eq(self.rdata[0][:64]),
        ]

        # ---- what the lanes do
        norm = Signal(6)
        m.d.comb += norm.eq(25 + (root.exponent >> 1))
        last_pass = pass_of[2] == 3
        out32 = f[RQ].code("out") == 2
        m.d.comb += [
            s.width_times_x.eq(op[LN]),
            s.width.eq(f[LN].count("n")),
            s.y_times_cell.eq((op[LSTM] & t3.valid) | (op[GRU] & ~t6.valid) | op[GATE]),
            s.y_times_rest.eq(op[GRU] & t6.valid),
            s.plus_new.eq(tokens[4].valid),
            s.table_takes_sum.eq(op[GRU]),
            s.blends.eq(op[GRU]),
            s.y_times_gate.eq(op[LSTM] & tokens[5].valid),
            s.y_times_root.eq(op[SMAX]),
            s.table_takes_rounded.eq(softmax),
            s.even.eq(op[LSM]),
            s.runs.eq(Mux(op[GRU], tokens[5].valid, t2.valid & ~(op[DWC] & t2.last))),
            s.afresh.eq(Mux(op[GRU], tokens[5].valid, t2.fresh)),
            s.v_takes_run.eq(op[MIX] | op[DWC]),
            s.plus_bias.eq(op[DWC]),
            s.complement.eq(Mux(op[LUT] | op[GATE], symmetry, Mux(op[GRU], ~tokens[4].valid, op[LSTM] & ~t2.valid))),
            s.keep_forget.eq(tokens[4].valid),
            s.keep_output.eq(Mux(op[GRU], tokens[4].valid, t6.valid)),
            s.new_shift.eq(Mux(op[GRU], UNIT_FRACTION, 2 * UNIT_FRACTION - fraction)),
            s.v_takes_acc.eq(op[RQ] | op[DOT]),
            s.v_takes_x.eq(op[ADD] & t1.valid),
            s.v_takes_b.eq(op[ADD] & ~t1.valid),
            s.v_takes_small.eq(op[MUL] | op[GATE] | op[LN]),
            s.v_takes_table.eq(op[LUT]),
            s.v_takes_below.eq(op[SMAX]),
            s.v_takes_above.eq(op[LSM]),
            s.total.eq(Mux(op[LN] & ~f[LN].code("rms"), sums, 0)),
            s.best.eq(best),
            s.root.eq(root.result),
            s.times_row.eq((op[RQ] & ~out32) | op[DWC]),
            s.times_row_p.eq(op[RQ] | op[DWC]),
            s.times_one.eq(op[RQ] & out32),
            s.times_itself.eq(op[LN] & ~last_pass),
            s.times_root.eq(op[LN] & last_pass),
            s.output_times_tanh.eq(op[LSTM] & tokens[8].valid),
            s.product_again.eq(op[LSTM] & tokens[9].valid),
            s.double.eq(op[RQ] & f[RQ].code("double")),
            s.plus_first.eq(op[ADD]),
            s.plus_addend.eq((op[RQ] & (add == 2)) | op[LSM]),
            s.norm.eq(op[LN]),
            s.second.eq(op[LN] | op[SMAX]),
            s.p_shift.eq(43 + root.exponent),
            s.multiplier.eq(Mux(op[ADD] & ~t2.valid, multiplier2, multiplier)),
            s.multiplier2.eq(multiplier2),
            s.shift.eq(Mux(op[LN], norm, Mux(op[ADD] & ~t3.valid, shift2, shift))),
            s.shift2.eq(shift2),
            s.zero_point.eq(Mux(passes, 0, zero_point)),
            s.zero_point2.eq(zero_point),
            s.limit.eq(Mux(passes, 1 << 15, Mux(op[DOT], 1 << SCORE_BITS - 1, limit))),
            s.limit2.eq(limit),
        ]

        # ---- results
        out16 = of("out16", LSTM, GRU, ADD, MUL, LUT, GATE, LN, SMAX, MIX, DWC)
        out16 = out16 | (op[RQ] & (f[RQ].code("out") == 1)) | op[LSM] | op[DOT]
        at: dict[type[VectorInstruction], int | None] = {
            RQ: None,
            **dict.fromkeys((MUL, LSM, DWC), 3),
            **dict.fromkeys((ADD, LUT, MIX), 4),
            **dict.fromkeys((GATE, DOT), 5),
            LN: 6,
            GRU: 9,
            SMAX: 9,
            LSTM: 10,
        }
        vector_ends = Signal()
        writes, group_out, elements_out, offset_out = Signal(), Signal(12), Signal(range(lanes + 1)), Signal(A_BITS - 2)
        for cls, stage in at.items():
            with m.If(op[cls]):
                chosen = [tokens[stage]] if stage is not None else []
                if cls is RQ:
                    for now, wanted in ((tokens[3], ~wide), (tokens[4], wide)):
                        with m.If(wanted):
                            m.d.comb += [
                                writes.eq(now.valid),
                                group_out.eq(now.group),
                                elements_out.eq(now.elements),
                                offset_out.eq(now.offset),
                            ]
                for now in chosen:
                    m.d.comb += [
                        writes.eq(now.valid & (now.turn == 3 if cls in THREE else now.last if cls in RINGED else 1)),
                        group_out.eq(now.group),
                        elements_out.eq(1 if cls is DOT else now.elements),
                        offset_out.eq(now.offset),
                        vector_ends.eq(now.end),
                    ]
        dst = of("dst", RQ, LSTM, GRU, ADD, MUL, LUT, GATE, LN, SMAX, LSM, DOT, MIX, DWC)
        is32 = op[RQ] & out32
        ones = Signal(lanes)  # as many as there are bytes
        byte_count = Signal(range(4 * lanes))
        m.d.comb += ones.eq((1 << byte_count) - 1)
        out = [lane.out for lane in made]
        out[0] = Mux(op[DOT] & tokens[5].hidden, -1 << SCORE_BITS, out[0])
        bytes8, bytes16 = Cat(value[:8] for value in out), Cat(value[:16] for value in out)
        bytes32, cells = Cat(lane.prod[:32] for lane in made), Cat(lane.cell[:16] for lane in made)
        m.d.comb += [
            self.waddr.eq(
                dst
                + offset_out
                + Mux(
                    is32, group_out << power(v), Mux(out16, group_out << power(v // 2), group_out << power(v // UNIT))
                )
            ),
            byte_count.eq(Mux(is32, elements_out << 2, Mux(out16, elements_out << 1, elements_out))),
            self.wdata.eq(Mux(is32, bytes32, Mux(out16, bytes16, bytes8))),
        ]
        with m.If(writes):
            m.d.comb += self.mask.eq(ones)
        # results that follow each other at any byte
        end_to_end, result_at = Signal(), Signal(A_BITS)
        m.d.comb += end_to_end.eq(op[SMAX] | ringed)
        with m.If(first):
            m.d.sync += result_at.eq(dst << 2)
        with m.Elif(writes):
            after_it = result_at + byte_count
            m.d.sync += result_at.eq(Mux(ringed & vector_ends, aligned(after_it), after_it))
        with m.If(end_to_end):
            m.d.comb += [
                self.waddr.eq(result_at[2:]),
                self.wdata.eq(Array(Mux(out16, bytes16, bytes8) << 8 * k for k in range(UNIT))[result_at[:2]]),
            ]
        with m.If(end_to_end & writes):
            m.d.comb += self.mask.eq(Array(ones << k for k in range(UNIT))[result_at[:2]])
        with m.If(op[LSTM] & t6.valid):
            m.d.comb += [
                self.waddr.eq(f[LSTM].count("cell") + (t6.group << power(v // 2))),
                byte_count.eq(t6.elements << 1),
                self.wdata.eq(cells),
                self.mask.eq(ones),
            ]
        with m.If(op[GRU] & tokens[7].valid):
            m.d.comb += [
                self.waddr.eq(f[GRU].count("state") + (tokens[7].group << power(v // 2))),
                byte_count.eq(tokens[7].elements << 1),
                self.wdata.eq(cells),
                self.mask.eq(ones),
            ]
        with m.If((op[CPY] | op[FIL] | op[KEEP]) & t1.valid):
            m.d.comb += [
                self.waddr.eq(
                    Mux(op[KEEP], rings.kept, of("dst", CPY, FIL)) + t1.offset + (t1.group << power(lanes // UNIT))
                ),
                byte_count.eq(t1.elements),
                self.wdata.eq(Mux(op[FIL], Cat(f[FIL].code("value") for _ in range(lanes // UNIT)), self.rdata[0])),
                self.mask.eq(ones),
            ]
        with m.If(op[KEEP] & rings.third):
            m.d.comb += [
                self.waddr.eq(rings.ring),
                byte_count.eq(UNIT),
                self.wdata.eq(rings.counted),
                self.mask.eq(ones),
            ]
        with m.If(op[AMAX] & t3.valid & t3.last):
            m.d.comb += [
                self.waddr.eq(f[AMAX].count("dst")),
                byte_count.eq(8),
                self.mask.eq(ones),
                self.wdata.eq(Cat(Cat(place, Const(0, 20)), best.as_signed()[:17], Cat(best[-1] for _ in range(15)))),
            ]
        with m.If(op[TAB] & t1.valid):
            m.d.comb += [byte_count.eq(t1.elements), self.lut_mask.eq(Cat(ones[2 * k] for k in range(2 * v)))]
        m.d.comb += [
            self.lut_waddr.eq(Cat((t1.group << power(2 * v))[:SLOT], f[TAB].code("slot"))),
            self.lut_wdata.eq(self.rdata[0]),
        ]
        return m

    def _time(self, m: Module, word: Signal) -> None:
        """How long each instruction takes; start and done."""
        c = self.config
        left, cycles = Signal(24), Signal(24)
        for cls in (LSTM, GRU, ADD, MUL, LUT, GATE, LN, SMAX, LSM, AMAX):
            one, more = linear(cls, c)
            fields = Fields(cls, self.head)
            vectors = fields.count("groups") if cls is SMAX else 1
            with m.If(opcode(self.head) == cls.opcode):
                beats = (one - c.vx_fill) + more * (ceil_div(fields.count(LENGTH[cls.__name__]), c.vector) - 1)
                m.d.comb += cycles.eq(c.vx_fill + vectors * beats)
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
        for ring in RINGED:
            with m.If(opcode(self.head) == ring.opcode):
                m.d.comb += cycles.eq(c.vx_fill)  # and its beats, during which nothing is counted
        keep = Fields(KEEP, self.head)
        with m.If(opcode(self.head) == KEEP.opcode):
            groups = ceil_div(keep.bytes("bytes"), c.lanes)
            m.d.comb += cycles.eq(c.vx_fill + 1 + keep.count("chunk") * groups)
        with m.If(opcode(self.head) == TAB.opcode):
            m.d.comb += cycles.eq(sample(TAB).cycles(c)[0])
        m.d.comb += [self.ready.eq(left == 0), self.idle.eq(left == 0), self.done.eq(left == 1)]
        with m.If(self.start):
            m.d.sync += [left.eq(cycles - 1), self.signal.eq(signal_mask(self.head)), word.eq(self.head)]
        with m.Elif((left != 0) & ~self.holds):
            m.d.sync += left.eq(left - 1)
