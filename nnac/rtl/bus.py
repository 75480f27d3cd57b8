"""The DRAM bus: who has it, and when a burst is over.

A burst takes ``burst_cycles`` exactly: a credit grows by the denominator each cycle, and a burst is over when it
reaches the numerator, which is then subtracted.  Between bursts DA comes before DW; a transfer of DA is not broken, and
a stream that was broken goes on with a credit of zero. Source: `nnac.emulator.clocked`, rule 1.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal

from nnac.isa import MachineConfig

NOBODY, DW, DA = 0, 1, 2


class Bus(Elaboratable):
    """``dw_asks``, ``da_asks``: a request whose data phase may begin.  ``dw_last``, ``da_last``: the burst that is
    moved now is its last.

    ``dw``, ``da``  has the bus in this cycle      ``over``  a burst ends in this cycle      ``ended``  and with it the
    transfer
    """

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.dw_asks, self.da_asks, self.dw_last, self.da_last = Signal(), Signal(), Signal(), Signal()
        self.dw, self.da, self.over, self.ended = Signal(), Signal(), Signal(), Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        num, den = self.config.burst_cycles.numerator, self.config.burst_cycles.denominator
        granted, between, credit = Signal(2), Signal(init=1), Signal(range(num + den))
        owner, before, total = Signal(2), Signal(range(num + den)), Signal(range(num + den + 1))
        m.d.comb += [owner.eq(granted), before.eq(credit)]
        with m.If(between):
            with m.If(self.da_asks):
                m.d.comb += [owner.eq(DA), before.eq(0)]
            with m.Elif((granted == NOBODY) & self.dw_asks):
                m.d.comb += [owner.eq(DW), before.eq(0)]
        m.d.comb += [
            self.dw.eq(owner == DW),
            self.da.eq(owner == DA),
            total.eq(before + den),
            self.over.eq((owner != NOBODY) & (total >= num)),
            self.ended.eq(self.over & Mux(self.dw, self.dw_last, self.da_last)),
        ]
        m.d.sync += granted.eq(Mux(self.ended, NOBODY, owner))
        with m.If(owner == NOBODY):
            m.d.sync += between.eq(1)
        with m.Else():
            m.d.sync += [between.eq(self.over & (self.dw | self.ended)), credit.eq(Mux(self.over, total - num, total))]
        return m
