"""Sizes and rates of one machine: what the instruction set leaves open, as integers and exact fractions.

A `MachineConfig` is derived from a `Target`; nothing else in the emulator reads a target.  Every number that a cycle count depends on
is here or in an instruction's own formula.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from attrs import field, frozen
from attrs.validators import ge

from nnac.limits import MOST

UNITS = ("DW", "DA", "MV", "VX", "CT")
SEMAPHORES = MOST["semaphores"]
SEMAPHORE_MAX = 255
BANKS = 4                      # of accumulators
MV_DRAIN = 4                   # cycles from the last word's issue to the accumulator's last write
VX_FILL = 8                    # cycles of every VX instruction on top of its elements
DECODE_DRAIN = 2               # cycles of every tile on top of its steps
TILE_WORDS = 256               # words of one stream buffer: the unit in which W and RING are sized
LUT_ENTRIES = 513              # of a look-up table: |x| in 512 segments, both ends (`nnac.arith.SEGMENTS`)
RSQRT_ENTRIES = 385            # of the table of 1/sqrt (`nnac.arith.RSQRT_SEGMENTS`)
FORMATS = ("int8", "int16", "int4", "int2", "int1")          # by the code in MVM's field ``weights``


@frozen
class MachineConfig:
    """One machine.  Bytes, cycles, words; ``burst_cycles`` exact.

    lanes, columns    outputs of a weight word; activation vectors that meet it       vector   elements a cycle in VX
    stream_words, pinned_words    the two parts of W                ring_bytes  compressed bytes between DRAM and decoder
    a_bytes           activation SRAM                               latency     cycles from a read's request to its first byte
    burst_cycles      cycles of one DRAM burst (a fraction)         decode_factor   cycles of one decoder step
    rates             weights of each format that a lane takes in a cycle (format -> fraction)
    """

    name: str = "edge"
    lanes: int = field(default=64, validator=ge(1))
    columns: int = field(default=4, validator=ge(1))
    vector: int = field(default=16, validator=ge(1))
    stream_words: int = field(default=512, validator=ge(1))
    pinned_words: int = field(default=2048, validator=ge(0))
    ring_bytes: int = field(default=32768, validator=ge(16))
    a_bytes: int = field(default=311296, validator=ge(4))
    latency: int = field(default=250, validator=ge(0))
    burst: int = field(default=128, validator=ge(16))
    burst_cycles: Fraction = field(default=Fraction(256, 15), validator=ge(Fraction(1)))
    decode_factor: int = field(default=1, validator=ge(1))
    queue: int = field(default=8, validator=ge(1))
    semaphores: int = SEMAPHORES
    rates: tuple[Fraction, ...] = field(default=(Fraction(1),) * 5)
    act16_factor: int = 2
    clock: int = 500_000_000
    banks: int = BANKS
    luts: int = 8
    decoder_tables: int = 4
    outstanding: int = 8           # LDW/LDT started and not done
    mv_drain: int = MV_DRAIN
    vx_fill: int = VX_FILL
    decode_drain: int = DECODE_DRAIN

    @property
    def words(self) -> int:
        """Words of W."""
        return self.stream_words + self.pinned_words

    @classmethod
    def of(cls, target: Any) -> MachineConfig:
        """The machine of a `nnac.target.Target`.  ValueError if its parts do not fit its SRAM or the instruction fields."""
        lanes = target.lanes
        stream = target.stream_buffers * TILE_WORDS
        ring = stream * lanes
        rest = target.sram - target.pinned - 2 * ring - (target.sram >> 5)
        if rest < 4096:
            raise ValueError(f"target `{target.name}`: {target.sram} bytes of SRAM leave {rest} for activations after "
                             f"{target.pinned} pinned and {2 * ring} of stream buffers")
        if lanes > MOST["lanes"] or target.columns > MOST["columns"]:
            raise ValueError(f"target `{target.name}`: the instruction set has {MOST['lanes']} lanes and {MOST['columns']} columns at most, "
                             f"not {lanes} x {target.columns}")
        rates = tuple(_rate(target, name) for name in FORMATS)
        act16 = target.multiply.get("int16")
        burst_cycles = max(Fraction(1), Fraction(target.dram.burst * target.clock, target.dram.bandwidth))
        return cls(
            name=target.name, lanes=lanes, columns=target.columns, vector=max(1, lanes // 4), stream_words=stream,
            pinned_words=min(target.pinned // lanes, (1 << 14) - stream), ring_bytes=ring, a_bytes=min(1 << 20, rest & ~63),
            latency=target.dram.latency, burst=target.dram.burst, burst_cycles=burst_cycles,
            decode_factor=-(-lanes // target.decoder), queue=target.queue, rates=rates,
            act16_factor=-(-act16.denominator // act16.numerator) if act16 else 2, clock=target.clock,
            # programs and plans of before say 16 or 32, of which the instruction words always had 12
            semaphores=min(target.semaphores, SEMAPHORES))


def _rate(target: Any, name: str) -> Fraction:
    """Weight words of a format that MV takes in a cycle: the target's rate, or that of the next wider format it has, at least int8's 1.

    A pair of words makes one int16 weight, so the pair's two cycles already halve the rate.
    """
    if name == "int16":
        return Fraction(1)
    width = int(name[3:])
    wider = sorted((int(w[3:]), r) for w, r in target.multiply.items() if w.startswith("int") and width <= int(w[3:]) <= 8)
    return max(Fraction(1), Fraction(wider[0][1])) if wider else Fraction(1)
