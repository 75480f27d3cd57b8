"""DA: copies between DRAM and A, burst by burst, one instruction at a time.  Source: `nnac.isa.dma`,
`nnac.emulator.clocked`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed

from nnac.isa import GTH, LDA, STA, DmaInstruction, MachineConfig
from nnac.isa.config import SEMAPHORES
from nnac.rtl.params import A_BITS, DRAM_BITS, GRANULE, UNIT, WORD, Fields, opcode, power, sample, signal_mask

KINDS: tuple[type[DmaInstruction], ...] = (LDA, STA, GTH)


class Dma(Elaboratable):
    """A is written and read in words of 4 bytes from any of them: word k of the data at ``a_addr + k``, where its bit
    of the mask is set.
    """

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.head, self.start, self.ready, self.idle = Signal(WORD), Signal(), Signal(), Signal()
        self.done, self.signal = Signal(), Signal(SEMAPHORES)
        self.asks, self.last, self.moves, self.over, self.ended = Signal(), Signal(), Signal(), Signal(), Signal()
        self.burst, self.data = Signal(DRAM_BITS), Signal(8 * config.burst)
        words = config.burst // UNIT
        self.a_raddr, self.a_rdata = Signal(A_BITS - 2), Signal(8 * config.burst)
        self.a_waddr, self.a_wmask, self.a_wdata = Signal(A_BITS - 2), Signal(words), Signal(8 * config.burst)
        self.dram_mask, self.dram_wdata = Signal(words), Signal(8 * config.burst)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        word, busy = Signal(WORD), Signal()
        load, store, gather = Fields(LDA, word), Fields(STA, word), Fields(GTH, word)
        is_store, is_gather = Signal(), Signal()
        m.d.comb += [
            is_store.eq(opcode(word) == STA.opcode),
            is_gather.eq(opcode(word) == GTH.opcode),
            self.ready.eq(~busy),
            self.idle.eq(~busy),
        ]

        # ---- from start to the data phase
        longest = max(sample(cls).ready(c) for cls in KINDS)
        wait, age = Signal(range(longest + 1)), Signal(2)
        with m.If(self.start):
            m.d.sync += [busy.eq(1), word.eq(self.head), age.eq(0)]
            for cls in KINDS:
                with m.If(opcode(self.head) == cls.opcode):
                    m.d.sync += wait.eq(sample(cls).ready(c) - 1)
        with m.Else():
            with m.If(wait != 0):
                m.d.sync += wait.eq(wait - 1)
            with m.If(age != 3):
                m.d.sync += age.eq(age + 1)

        # ---- where the bytes lie; a row of GTH is known two cycles after the start
        per_burst = c.burst // GRANULE
        row = Signal(DRAM_BITS)
        with m.If(age == 1):
            m.d.sync += row.eq(gather.code("dram") + self.a_rdata[:32].as_signed() * gather.code("pitch"))
        dram, size, place = Signal(DRAM_BITS), Signal(18), Signal(A_BITS - 2)
        with m.If(is_gather):
            m.d.comb += [dram.eq(row), size.eq(gather.code("bytes")), place.eq(gather.code("dst"))]
        with m.Elif(is_store):
            m.d.comb += [dram.eq(store.code("dram")), size.eq(store.code("bytes")), place.eq(store.code("src"))]
        with m.Else():
            m.d.comb += [dram.eq(load.code("dram")), size.eq(load.code("bytes")), place.eq(load.code("dst"))]
        first, end, bursts, moved = Signal(DRAM_BITS), Signal(DRAM_BITS), Signal(16), Signal(16)
        some = Mux(size == 0, 1, size << power(UNIT))
        m.d.comb += [
            first.eq(dram >> power(per_burst)),
            end.eq(((dram << power(GRANULE)) + some - 1) >> power(c.burst)),
            bursts.eq(Mux(is_gather, (some + (c.burst - GRANULE) + (c.burst - 1)) >> power(c.burst), end - first + 1)),
        ]
        m.d.comb += [self.asks.eq(busy & (wait == 0)), self.last.eq(moved + 1 == bursts), self.burst.eq(first + moved)]
        with m.If(self.moves & self.over):
            m.d.sync += moved.eq(Mux(self.ended, 0, moved + 1))
        m.d.comb += [self.done.eq(self.moves & self.ended), self.signal.eq(signal_mask(word))]
        with m.If(self.done):
            m.d.sync += busy.eq(0)

        # ---- the data
        words = c.burst // UNIT
        offset = Signal(signed(DRAM_BITS + 4))  # of the burst's first word in the transfer
        m.d.comb += offset.eq(((self.burst << power(per_burst)) - dram).as_signed() << power(GRANULE // UNIT))
        inside = Signal(words)
        m.d.comb += inside.eq(Cat((offset + k >= 0) & (offset + k < size) for k in range(words)))
        address = Signal(A_BITS - 2)
        writes = Signal()
        m.d.comb += [
            address.eq(place + offset),
            self.a_waddr.eq(address),
            self.a_wdata.eq(self.data),
            writes.eq(self.moves & self.over),
            self.a_raddr.eq(Mux(is_gather, gather.code("index"), address)),
            self.dram_wdata.eq(self.a_rdata),
        ]
        with m.If(writes & is_store):
            m.d.comb += self.dram_mask.eq(inside)
        with m.If(writes & ~is_store):
            m.d.comb += self.a_wmask.eq(inside)
        return m
