"""1/sqrt of a 62-bit number, one step a cycle, with one multiplier: `nnac.arith.rsqrt`, and what layer norm and softmax
make of it.  And a sum's logarithm, as `nnac.arith.log_softmax` takes it off.

Cycles from ``go``: 0 the number's length, mantissa z · 1 the table is addressed · 2 interpolation · 3 r r · 4 z r r · 5
the Newton step · 6 ``q = r root_width`` (layer norm) or ``r r`` (softmax); the result stands from cycle 7 on.
Logarithm: 0 length, mantissa · 1, 2 its table · 3 the length times ln 2; the result stands from cycle 4 on.
"""

from __future__ import annotations

from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal, signed

from nnac.arith import LN2, LOG_FRACTION, RSQRT_SEGMENTS, SEGMENTS, UNIT_FRACTION

U_BITS = 62


class Root(Elaboratable):
    """``u`` at ``go``.   ``address``: offset of the entry in words of two, ``data`` two of these, a cycle later.

    ``square``  1: result ``r r >> 32``; 0: ``r width`` rounded, 16 bits less      ``exponent``  e, even
    ``log``     the result is a logarithm in Q4.11, less than nothing: ``place`` of its table, ``entries`` the two there
                a cycle later
    """

    def __init__(self) -> None:
        self.go, self.u, self.width, self.square = Signal(), Signal(U_BITS), Signal(32), Signal()
        self.address, self.data = Signal(8), Signal(64)
        self.log, self.place, self.entries = Signal(), Signal(9), Signal(32)
        self.result, self.exponent = Signal(32), Signal(signed(7))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        length = Signal(6)
        for k in range(U_BITS):
            with m.If(self.u[k]):
                m.d.comb += length.eq(k + 1)
        e = Signal(signed(8))
        # 30 is even: e is odd where the length is.  A logarithm's mantissa has 31 bits, the first is always one
        m.d.comb += e.eq(length - 30 + Mux(self.log, -1, length[0]))
        z = Signal(30)
        with m.If(self.go):
            m.d.sync += [self.exponent.eq(e), z.eq(Mux(e < 0, self.u << (-e)[:5], self.u >> e[:6]))]
        steps = [self.go]
        for k in range(1, 7):
            steps.append(Signal(name=f"step_{k}"))
            m.d.sync += steps[k].eq(steps[k - 1])
        assert (1 << 30) - (1 << 28) == RSQRT_SEGMENTS << 21, "the table covers mantissas from 2^28 to 2^30"
        assert 1 << 30 == SEGMENTS << 21, "the table of logarithms covers mantissas from 1 to 2"
        odd = Signal()
        m.d.comb += [self.place.eq(z[21:] - Mux(self.log, 0, 1 << 7)), self.address.eq(self.place[1:])]
        m.d.sync += odd.eq(self.place[0])
        entries = Array(self.data.word_select(k, 16) for k in range(4))
        low, high = Signal(signed(17)), Signal(signed(17))
        with m.If(self.log):
            m.d.comb += [low.eq(self.entries[:16].as_signed()), high.eq(self.entries[16:].as_signed())]
        with m.Else():
            m.d.comb += [low.eq(entries[odd]), high.eq(entries[odd + 1])]
        r, rr, newton, root = Signal(signed(17)), Signal(32), Signal(signed(33)), Signal(33)
        a, b, product = Signal(signed(34)), Signal(signed(34)), Signal(signed(68))
        m.d.comb += product.eq(a * b)
        with m.If(steps[2]):
            m.d.comb += [a.eq(high - low), b.eq(z[:21])]
            m.d.sync += r.eq(low + ((product + (1 << 20)) >> 21))
        less = UNIT_FRACTION - LOG_FRACTION
        logarithm = Signal(signed(16))
        m.d.comb += logarithm.eq((product + r + (1 << less >> 1)) >> less)
        with m.If(steps[3] & self.log):
            m.d.comb += [a.eq(self.exponent + (30 - UNIT_FRACTION)), b.eq(LN2)]
            m.d.sync += self.result.eq(-logarithm)
        with m.Elif(steps[3]):
            m.d.comb += [a.eq(r), b.eq(r)]
            m.d.sync += rr.eq(product)
        with m.If(steps[4]):
            m.d.comb += [a.eq(z), b.eq(rr)]
            m.d.sync += newton.eq((3 << 30) - (product >> 30))
        with m.If(steps[5]):
            m.d.comb += [a.eq(r), b.eq(newton)]
            m.d.sync += root.eq(product >> 16)
        with m.If(steps[6] & ~self.log):
            m.d.comb += [a.eq(root), b.eq(Mux(self.square, root, self.width))]
            m.d.sync += self.result.eq(Mux(self.square, product >> 32, (product + (1 << 15)) >> 16))
        return m
