"""DW, second half: weight streams to weight words, one step a cycle.  (Time only so far.)"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal

from nnac.isa import LDT, LDW, MachineConfig
from nnac.rtl.params import WORD, Fields, opcode

STATE_BITS = 13  # of the place of a state: decoder table, machine (weights or blocks), state


def window_bytes(config: MachineConfig) -> int:
    """Bytes of the ring that the decoder sees in a cycle: the most that a step takes, or a whole header of fixed-width codecs.

    A step of every lane takes at most 10 state bits and 7 extra bits, from any bit of a byte on.
    """
    return -(-max(-(-(17 * config.lanes + 7) // 8), 72) // 4) * 4


class Decoder(Elaboratable):
    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.whole, self.word, self.take, self.done = Signal(), Signal(WORD), Signal(), Signal()

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        steps = Signal(12)
        left = Signal(range((1 << 12) + c.decode_drain))
        m.d.comb += [
            steps.eq(
                Mux(
                    opcode(self.word) == LDT.opcode,
                    Fields(LDT, self.word).code("steps"),
                    Fields(LDW, self.word).code("steps"),
                )
            ),
            self.take.eq(self.whole & (left == 0)),
            self.done.eq(left == 1),
        ]
        with m.If(self.take):
            m.d.sync += left.eq(steps + c.decode_drain - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return m
