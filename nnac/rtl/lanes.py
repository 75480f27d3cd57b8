"""One lane of VX: a multiplier of 18 x 33 bits, one of 48 x 33, one of 34 x 33, two that round and saturate, two that
interpolate.

The controller (`vector`) says by ``select`` signals, the same for all lanes, what each register takes.  Numbers:
`nnac.arith`.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, signed

from nnac.arith import UNIT_FRACTION
from nnac.rtl.params import named

PRODUCT = 64


def clipped(value: Value, limit: Value | int) -> Value:
    """``value`` limited to -limit … limit - 1."""
    return Mux(value >= limit, limit - 1, Mux(value < -limit, -limit, value))


def product(m: Module, name: str, a: Signal, b: Signal) -> Signal:
    """The low 64 bits of a signed product of at most 48 x 33 bits, by two multipliers of 25 x 33."""
    parts = a[:24] * b, a[24:].as_signed() * b
    # as wide as they are: bits that only repeat a sign look like a loop to a simulator that sees whole signals
    low, high, out = named(parts[0], f"{name}_low"), named(parts[1], f"{name}_high"), Signal(signed(PRODUCT), name=name)
    m.d.comb += [low.eq(parts[0]), high.eq(parts[1]), out.eq((high << 24) + low)]
    return out


class Round(Elaboratable):
    """``sat(zero_point + round(x / 2^shift), bits)``: `arith.requantise` after its product, or with ``double``
    `arith.requantise_double`.
    """

    def __init__(self, double: bool) -> None:
        self.has_double = double
        self.x, self.shift, self.double = Signal(signed(PRODUCT)), Signal(6), Signal()
        self.zero_point, self.limit, self.y = Signal(signed(16)), Signal(signed(18)), Signal(signed(17))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        half = Signal(63)
        m.d.comb += half.eq((1 << self.shift) >> 1)
        summed, shifted, more = Signal(signed(PRODUCT)), Signal(signed(PRODUCT)), Signal()
        m.d.comb += summed.eq(self.x + half)
        if self.has_double:
            nudged, moved = Signal(signed(PRODUCT)), Signal(signed(PRODUCT))
            high, mask, rest, threshold = Signal(signed(33)), Signal(62), Signal(62), Signal(62)
            m.d.comb += [
                nudged.eq(self.x + Mux(self.x < 0, 1 - (1 << 30), 1 << 30)),
                moved.eq(nudged + Mux(nudged < 0, (1 << 31) - 1, 0)),
                high.eq(moved >> 31),
                mask.eq((1 << self.shift) - 1),
                rest.eq(high & mask),
                threshold.eq((mask >> 1) + (high < 0)),
            ]
            with m.If(self.double):
                m.d.comb += [summed.eq(high), more.eq(rest > threshold)]
        value = Signal(signed(PRODUCT))
        m.d.comb += [
            shifted.eq(summed >> self.shift),
            value.eq(shifted + more + self.zero_point),
            self.y.eq(clipped(value, self.limit)),
        ]
        return m


class Lookup(Elaboratable):
    """Interpolation between two entries; ``x`` comes a cycle before ``entries`` (low, then high).  `arith.lookup`.

    ``even``: f(-x) = f(x), for those who would give -x
    """

    def __init__(self) -> None:
        self.x, self.complement, self.even = Signal(signed(16)), Signal(), Signal()
        self.segment, self.entries, self.y = Signal(10), Signal(32), Signal(signed(18))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        magnitude, rest, negative, complement = Signal(15), Signal(6), Signal(), Signal()
        absolute = Signal(17)
        m.d.comb += [
            absolute.eq(Mux(self.x < 0, -self.x, self.x)),
            magnitude.eq(Mux(absolute > 32767, 32767, absolute)),
            self.segment.eq(magnitude >> 6),
        ]
        m.d.sync += [rest.eq(magnitude[:6]), negative.eq((self.x < 0) & ~self.even), complement.eq(self.complement)]
        low, high, y = self.entries[:16].as_signed(), self.entries[16:].as_signed(), Signal(signed(17))
        m.d.comb += [
            y.eq(low + (((high - low) * rest + 32) >> 6)),
            self.y.eq(Mux(negative, Mux(complement, 32768 - y, -y), y)),
        ]
        return m


class Lane(Elaboratable):
    """See the module.  Inputs of a cycle: ``x``, ``b`` elements, ``acc``, ``bias``, ``addend``, parameters; the rest
    are shared selects.
    """

    def __init__(self) -> None:
        # operands of this lane
        self.x, self.b = Signal(signed(16)), Signal(signed(16))
        self.acc, self.bias, self.addend = Signal(signed(48)), Signal(signed(48)), Signal(signed(32))
        self.m_row, self.s_row = Signal(32), Signal(6)
        self.gain, self.gain_bias = Signal(signed(16)), Signal(signed(32))
        # registers that the controller reads
        self.y, self.prod, self.sum16 = Signal(signed(18)), Signal(signed(PRODUCT)), Signal(signed(16))
        self.small = Signal(signed(51))
        # results: of most instructions, and LSTM's new cell
        self.out, self.cell = Signal(signed(17)), Signal(signed(17))
        # look-up ports
        self.segment, self.entries, self.complement = Signal(10), Signal(32), Signal()
        self.cell_segment, self.cell_entries = Signal(10), Signal(32)
        # shared selects and numbers
        self.s = Shared()

    def elaborate(self, platform: object) -> Module:
        m, s = Module(), self.s
        m.submodules.table, m.submodules.cell_table = table, cell_table = Lookup(), Lookup()
        m.submodules.round, m.submodules.round2 = rounds, rounds2 = Round(True), Round(False)

        # ---- the small multiplier
        xa, xb, small, small_reg = Signal(signed(18)), Signal(signed(33)), Signal(signed(51)), self.small
        m.d.comb += small.eq(xa * xb)
        m.d.sync += small_reg.eq(small)
        # ---- sums of products, one after another
        run = Signal(signed(33))
        kept_run = Signal(signed(32))
        m.d.comb += run.eq(Mux(s.afresh, 0, kept_run) + small_reg[:32].as_signed())
        with m.If(s.runs):
            m.d.sync += kept_run.eq(run)
        gate, forget, output, tanh_cell = Signal(signed(18)), Signal(signed(20)), Signal(signed(18)), Signal(signed(18))
        m.d.comb += [xa.eq(self.x), xb.eq(self.b)]
        with m.If(s.width_times_x):
            m.d.comb += xb.eq(s.width)
        with m.Elif(s.y_times_cell):
            m.d.comb += [xa.eq(self.y), xb.eq(self.b)]
        with m.Elif(s.y_times_gate):
            m.d.comb += [xa.eq(self.y), xb.eq(gate)]
        with m.Elif(s.y_times_rest):
            m.d.comb += [xa.eq(self.y), xb.eq((1 << UNIT_FRACTION) - output)]
        with m.Elif(s.y_times_root):
            m.d.comb += [xa.eq(self.y), xb.eq(s.root)]

        # ---- look-up; of GRU's sums
        new_half, new = Signal(31), Signal(signed(37))
        pre = Signal(signed(38))
        m.d.comb += pre.eq(self.x + Mux(s.plus_new, new, self.b))
        rounded = Mux((self.sum16 < 0) & ~s.even, 0, self.sum16)
        m.d.comb += [
            table.x.eq(Mux(s.table_takes_rounded, rounded, Mux(s.table_takes_sum, clipped(pre, 1 << 15), self.x))),
            table.complement.eq(s.complement),
            table.even.eq(s.even),
            self.segment.eq(table.segment),
            table.entries.eq(self.entries),
        ]
        m.d.sync += self.y.eq(table.y)

        # ---- LSTM: c' = sat16(rs(f c, 15) + rs(i g, 30 - fraction))
        m.d.comb += [
            new_half.eq((1 << s.new_shift) >> 1),
            new.eq((small_reg[:36].as_signed() + new_half) >> s.new_shift),
        ]
        with m.If(s.keep_forget):
            m.d.sync += [forget.eq((small_reg[:36].as_signed() + (1 << 14)) >> 15), gate.eq(self.y)]
        with m.If(s.keep_output):
            m.d.sync += output.eq(self.y)
        total = named(forget + new, "total")
        blend = Signal(signed(19))
        m.d.comb += [
            total.eq(forget + new),
            blend.eq((run + (1 << UNIT_FRACTION - 1)) >> UNIT_FRACTION),  # GRU: rs(z s + (1 - z) n, 15)
            self.cell.eq(clipped(Mux(s.blends, blend, total), 1 << 15)),
            cell_table.x.eq(self.cell),
            self.cell_segment.eq(cell_table.segment),
            cell_table.entries.eq(self.cell_entries),
        ]
        m.d.sync += tanh_cell.eq(cell_table.y)

        # ---- the large multiplier
        v, mult, shift_v, shift_p, held_b = Signal(signed(48)), Signal(32), Signal(6), Signal(6), Signal(signed(16))
        m.d.sync += [held_b.eq(self.b), mult.eq(self.m_row), shift_v.eq(self.s_row), shift_p.eq(shift_v)]
        with m.If(s.v_takes_acc):
            m.d.sync += v.eq(self.acc + self.bias + Mux(s.plus_addend, 0, self.addend))
        with m.Elif(s.v_takes_run):
            m.d.sync += v.eq(run + Mux(s.plus_bias, self.bias, 0))
        with m.Elif(s.blends):
            m.d.sync += v.eq(self.cell)
        with m.Elif(s.v_takes_x):
            m.d.sync += v.eq(self.x)
        with m.Elif(s.v_takes_b):
            m.d.sync += v.eq(held_b)
        with m.Elif(s.v_takes_small):
            m.d.sync += v.eq(small - s.total)
        with m.Elif(s.v_takes_table):
            m.d.sync += v.eq(table.y)
        with m.Elif(s.v_takes_below):
            m.d.sync += v.eq(s.best - self.x)
        with m.Elif(s.v_takes_above):
            m.d.sync += v.eq(self.x - s.best)
        a, b = Signal(signed(48)), Signal(signed(33))
        m.d.comb += [a.eq(v), b.eq(s.multiplier)]
        with m.If(s.times_row):
            m.d.comb += b.eq(mult)
        with m.Elif(s.times_one):
            m.d.comb += b.eq(1)
        with m.Elif(s.times_itself):
            m.d.comb += b.eq(v)
        with m.Elif(s.times_root):
            m.d.comb += b.eq(s.root)
        with m.Elif(s.output_times_tanh):
            m.d.comb += [a.eq(output), b.eq(tanh_cell)]
        with m.If(s.product_again):
            m.d.comb += a.eq(self.prod)
        m.d.sync += self.prod.eq(product(m, "large", a, b))

        # ---- round and saturate; ADD keeps the first of two
        first = Signal(signed(17))
        m.d.comb += [
            rounds.x.eq(self.prod),
            rounds.shift.eq(Mux(s.times_row_p, shift_p, s.shift)),
            rounds.double.eq(s.double),
            rounds.zero_point.eq(s.zero_point),
            rounds.limit.eq(s.limit),
            self.out.eq(rounds.y),
        ]
        m.d.sync += [first.eq(rounds.y), self.sum16.eq(rounds.y)]
        both = Signal(signed(19))
        with m.If(s.plus_first):
            m.d.comb += [both.eq(rounds.y + first), self.out.eq(clipped(both, s.limit))]
        with m.Elif(s.plus_addend):
            m.d.comb += [both.eq(rounds.y + self.addend[:16].as_signed()), self.out.eq(clipped(both, s.limit))]

        # ---- the second multiplier: layer norm's last, softmax's last
        p_half, v2, prod2 = Signal(63), Signal(signed(34)), Signal(signed(PRODUCT))
        m.d.comb += p_half.eq((1 << s.p_shift) >> 1)
        with m.If(s.norm):
            m.d.sync += v2.eq(self.sum16 * self.gain + self.gain_bias)
        with m.Else():
            m.d.sync += v2.eq((small_reg + p_half) >> s.p_shift)
        m.d.sync += prod2.eq(product(m, "second", v2, s.multiplier2))
        m.d.comb += [
            rounds2.x.eq(prod2),
            rounds2.shift.eq(s.shift2),
            rounds2.zero_point.eq(s.zero_point2),
            rounds2.limit.eq(s.limit2),
        ]
        with m.If(s.second):
            m.d.comb += self.out.eq(rounds2.y)
        return m


class Shared:
    """What the controller tells all lanes: selects, one bit each, and numbers."""

    def __init__(self) -> None:
        def select(name: str) -> Signal:
            return Signal(name=name)

        self.width_times_x, self.y_times_cell, self.y_times_gate, self.y_times_root = map(
            select, ("width_times_x", "y_times_cell", "y_times_gate", "y_times_root")
        )
        self.y_times_rest, self.plus_new, self.table_takes_sum, self.blends = map(
            select, ("y_times_rest", "plus_new", "table_takes_sum", "blends")
        )
        self.table_takes_rounded, self.complement, self.keep_forget, self.keep_output = map(
            select, ("table_takes_rounded", "complement", "keep_forget", "keep_output")
        )
        self.even, self.runs, self.afresh, self.v_takes_run, self.plus_bias = map(
            select, ("even", "runs", "afresh", "v_takes_run", "plus_bias")
        )
        self.v_takes_acc, self.v_takes_x, self.v_takes_b, self.v_takes_small = map(
            select, ("v_takes_acc", "v_takes_x", "v_takes_b", "v_takes_small")
        )
        self.v_takes_table, self.v_takes_below, self.v_takes_above = map(
            select, ("v_takes_table", "v_takes_below", "v_takes_above")
        )
        self.times_row, self.times_row_p, self.times_one, self.times_itself, self.times_root = map(
            select, ("times_row", "times_row_p", "times_one", "times_itself", "times_root")
        )
        self.output_times_tanh, self.product_again, self.double = map(
            select, ("output_times_tanh", "product_again", "double")
        )
        self.plus_first, self.plus_addend, self.norm, self.second = map(
            select, ("plus_first", "plus_addend", "norm", "second")
        )
        self.width = Signal(13)
        self.root, self.total, self.best = Signal(32), Signal(signed(33)), Signal(signed(17))
        self.multiplier, self.shift, self.zero_point, self.limit = (
            Signal(32),
            Signal(6),
            Signal(signed(16)),
            Signal(signed(18)),
        )
        self.multiplier2, self.shift2, self.zero_point2, self.limit2 = (
            Signal(32),
            Signal(6),
            Signal(signed(16)),
            Signal(signed(18)),
        )
        self.new_shift, self.p_shift = Signal(5), Signal(6)

    @property
    def signals(self) -> list[Signal]:
        return list(vars(self).values())
