"""Sizes and rates of one machine: what the instruction set leaves open, as integers and exact fractions.

A `MachineConfig` is derived from a `Target`; nothing else in the emulator reads a target.  Every number that a cycle
count depends on is here or in an instruction's own formula.
"""

from __future__ import annotations

import math
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


def number(default: Any, doc: str, least: Any = None) -> Any:
    """A number of a machine: what it is, as the manual says it; ``least`` it can be."""
    return field(default=default, validator=[] if least is None else ge(least), metadata=dict(doc=doc))


@frozen
class MachineConfig:
    """One machine.  Bytes, cycles, words; ``burst_cycles`` and ``rates`` are exact fractions."""

    name: str = "edge"
    lanes: int = number(64, "L: outputs of a weight word", 1)
    columns: int = number(4, "C: activation vectors that meet a weight word", 1)
    vector: int = number(16, "V: elements a cycle in VX", 1)
    stream_words: int = number(512, "words of W, from 0, that carry the stream", 1)
    pinned_words: int = number(2048, "words of W after those, for pinned weights", 0)
    ring_bytes: int = number(32768, "bytes of RING", 16)
    a_bytes: int = number(311296, "bytes of A", 4)
    latency: int = number(250, "cycles from a read's request to its first byte", 0)
    burst: int = number(128, "bytes of a DRAM burst", 16)
    burst_cycles: Fraction = number(Fraction(256, 15),
        "cycles of a burst: the delivered bandwidth of a read or write that goes on", Fraction(1))
    turnaround: int = number(0, "bursts that the bus needs to turn from read to write and back", 0)
    decode_factor: int = number(1, "F: cycles of a decoder step, ceil(L / weights that the decoder takes in a cycle)",
                                1)
    queue: int = number(8, "entries of each instruction queue", 1)
    a_banks: int = number(0, "banks of A that MV's columns share, a word of 4 bytes each; 0: a port for each column", 0)
    semaphores: int = number(SEMAPHORES, "semaphores s0, s1, ...", 1)
    rates: tuple[Fraction, ...] = number((Fraction(1),) * 5, "words a cycle in MV, by MVM's ``weights``")
    act16_factor: int = number(2, "times as long an MVM takes with int16 activations", 1)
    clock: int = number(500_000_000, "Hz", 1)
    banks: int = number(BANKS, "banks of accumulators")
    luts: int = number(8, "look-up tables")
    decoder_tables: int = number(4, "decoder tables")
    outstanding: int = number(8, "streams (LDW, LDT) started and not done, at most")
    mv_drain: int = number(MV_DRAIN, "cycles from the last word's issue to the accumulator's last write")
    vx_fill: int = number(VX_FILL, "cycles of every VX instruction on top of its elements")
    decode_drain: int = number(DECODE_DRAIN, "cycles of every stream in the decoder on top of its steps")

    @property
    def words(self) -> int:
        """Words of W."""
        return self.stream_words + self.pinned_words

    @property
    def page(self) -> int:
        """Bytes of parameters that a program loads at once, at most (the compiler's choice)."""
        return max(1024, self.a_bytes // 72)

    @property
    def page_ring(self) -> int:
        """Bytes of A that a program takes for the parameters that do not stay there: a page in use, and the next."""
        return 2 * self.page

    @classmethod
    def of(cls, target: Any) -> MachineConfig:
        """The machine of a `nnac.target.Target`.  ValueError if its parts do not fit its SRAM or the instruction
        fields."""
        lanes = target.lanes
        stream = target.stream_buffers * TILE_WORDS
        ring = stream * lanes
        rest = target.sram - target.pinned - 2 * ring - (target.sram >> 5)
        if rest < 4096:
            raise ValueError(f"target `{target.name}`: {target.sram} bytes of SRAM leave {rest} for activations after "
                             f"{target.pinned} pinned and {2 * ring} of stream buffers")
        if lanes > MOST["lanes"] or target.columns > MOST["columns"]:
            raise ValueError(f"target `{target.name}`: the instruction set has {MOST['lanes']} lanes and "
                             f"{MOST['columns']} columns at most, "
                             f"not {lanes} x {target.columns}")
        rates = tuple(_rate(target, name) for name in FORMATS)
        act16 = target.multiply.get("int16")
        burst_cycles = max(Fraction(1), target.dram.burst * target.clock / Fraction(target.dram.delivered))
        return cls(
            name=target.name, lanes=lanes, columns=target.columns, vector=max(1, lanes // 4), stream_words=stream,
            pinned_words=min(target.pinned // lanes, (1 << 14) - stream), ring_bytes=ring,
                   a_bytes=min(1 << 20, rest & ~63),
            latency=target.dram.latency, burst=target.dram.burst, burst_cycles=burst_cycles,
            decode_factor=-(-lanes // target.decoder), queue=target.queue, rates=rates,
            turnaround=math.ceil(target.dram.turnaround / burst_cycles),
            act16_factor=-(-act16.denominator // act16.numerator) if act16 else 2, clock=target.clock,
            a_banks=target.banks,
            # programs and plans of before say 16 or 32, of which the instruction words always had 12
            semaphores=min(target.semaphores, SEMAPHORES))


def _rate(target: Any, name: str) -> Fraction:
    """Weight words of a format that MV takes in a cycle: the target's rate, or that of the next wider format it has, at
    least int8's 1.

    A pair of words makes one int16 weight, so the pair's two cycles already halve the rate.
    """
    if name == "int16":
        return Fraction(1)
    width = int(name[3:])
    wider = sorted((int(w[3:]), r) for w, r in target.multiply.items() if w.startswith("int")
                   and width <= int(w[3:]) <= 8)
    return max(Fraction(1), Fraction(wider[0][1])) if wider else Fraction(1)
