"""1/sqrt of a 62-bit number, one step a cycle, with one multiplier: `nnac.arith.rsqrt`, and what layer norm and softmax
make of it.

Cycles from ``go``: 0 the number's length, mantissa z · 1 the table is addressed · 2 interpolation · 3 r r · 4 z r r · 5
the Newton step · 6 ``q = r root_width`` (layer norm) or ``r r`` (softmax); the result stands from cycle 7 on.
"""

from __future__ import annotations

from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal, signed

from nnac.arith import RSQRT_SEGMENTS

U_BITS = 62


class Root(Elaboratable):
    """``u`` at ``go``.   ``address``: offset of the entry in words of two, ``data`` two of these, a cycle later.

    ``square``  1: result ``r r >> 32``; 0: ``r width`` rounded, 16 bits less      ``exponent``  e, even
    """

    def __init__(self) -> None:
        self.go, self.u, self.width, self.square = Signal(), Signal(U_BITS), Signal(32), Signal()
        self.address, self.data = Signal(8), Signal(64)
        self.result, self.exponent = Signal(32), Signal(signed(7))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        length = Signal(6)
        for k in range(U_BITS):
            with m.If(self.u[k]):
                m.d.comb += length.eq(k + 1)
        e = Signal(signed(8))
        m.d.comb += e.eq(length - 30 + length[0])  # 30 is even: e is odd where the length is
        z = Signal(30)
        with m.If(self.go):
            m.d.sync += [self.exponent.eq(e), z.eq(Mux(e < 0, self.u << (-e)[:5], self.u >> e[:6]))]
        steps = [self.go]
        for k in range(1, 7):
            steps.append(Signal(name=f"step_{k}"))
            m.d.sync += steps[k].eq(steps[k - 1])
        assert (1 << 30) - (1 << 28) == RSQRT_SEGMENTS << 21, "the table covers mantissas from 2^28 to 2^30"
        place, odd = Signal(9), Signal()
        m.d.comb += [place.eq(z[21:] - (1 << 7)), self.address.eq(place[1:])]
        m.d.sync += odd.eq(place[0])
        entries = Array(self.data.word_select(k, 16) for k in range(4))
        low, high = Signal(16), Signal(16)
        m.d.comb += [low.eq(entries[odd]), high.eq(entries[odd + 1])]
        r, rr, newton, root = Signal(17), Signal(32), Signal(signed(33)), Signal(33)
        a, b, product = Signal(signed(34)), Signal(signed(34)), Signal(signed(68))
        m.d.comb += product.eq(a * b)
        with m.If(steps[2]):
            m.d.comb += [a.eq(high.as_unsigned() - low), b.eq(z[:21])]
            m.d.sync += r.eq(low + ((product + (1 << 20)) >> 21))
        with m.If(steps[3]):
            m.d.comb += [a.eq(r), b.eq(r)]
            m.d.sync += rr.eq(product)
        with m.If(steps[4]):
            m.d.comb += [a.eq(z), b.eq(rr)]
            m.d.sync += newton.eq((3 << 30) - (product >> 30))
        with m.If(steps[5]):
            m.d.comb += [a.eq(r), b.eq(newton)]
            m.d.sync += root.eq(product >> 16)
        with m.If(steps[6]):
            m.d.comb += [a.eq(root), b.eq(Mux(self.square, root, self.width))]
            m.d.sync += self.result.eq(Mux(self.square, product >> 32, (product + (1 << 15)) >> 16))
        return m
