"""DW: the weight stream.  Compressed tiles come from DRAM into the ring, the decoder turns them into words of W."""

from __future__ import annotations

from collections.abc import Iterator

from nnac.isa.base import Instruction, Memory, Range, Rule, instruction, operand
from nnac.isa.config import MachineConfig
from nnac.isa.vector import ROWS

RING = Rule("LDW, LDT: bytes <= bytes of RING",
            lambda i, c: f"a stream of {i.bytes} bytes does not fit the ring of {c.ring_bytes}"
            if i.bytes > c.ring_bytes else "")


class StreamInstruction(Instruction):
    """What LDW and LDT share: both are read from DRAM by the same path and decoded in the same order."""

    __slots__ = ()
    dram: int
    bytes: int
    steps: int

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        """(1, 0): the next may start in the next cycle; when it is done, the DRAM bus and the decoder say (see the
        manual)."""
        return 1, 0

    def decode_cycles(self, config: MachineConfig) -> int:
        return self.steps * config.decode_factor + config.decode_drain

    def ring(self) -> int:
        """Ring bytes held from start to done."""
        return -(-self.bytes // 16) * 16


@instruction("DW", 0x01)
class LDW(StreamInstruction):
    """Load one weight tile: read ``bytes`` bytes at ``dram``, decode them with decoder table ``table``, write the live
    words.

    The stream is a tile of rows x cols weights, see *Weight streams*.  Word k of W[word .. word+live) gets the L
    weights of the k-th live input, and that input's number (0 .. cols-1) as its 16-bit index.  Lanes from ``rows`` up
    are zero.  Dead words (codecs with a block bitmap, and zero_run, find them) are not written and take no place, and
    MVM does not see them. ``live`` and ``steps`` are what the decoder will find; a stream that gives other numbers is
    an error. Time: see *DRAM*, *Decoder*.
    """

    dram: int = operand(25, "DRAM address", times=16)
    bytes: int = operand(16, "length of the stream")
    word: int = operand(14, "first word of W")
    rows: int = operand(8, "outputs of the tile", minus=1)
    cols: int = operand(10, "inputs of the tile", minus=1)
    live: int = operand(11, "words written")
    steps: int = operand(12, "decoder steps")
    table: int = operand(2, "decoder table")
    rules = (RING, ROWS)

    def reads(self, config: MachineConfig) -> Iterator[Range]:
        yield "DRAM", self.dram, self.dram + self.bytes
        yield "TABLE", self.table, self.table + 1

    def writes(self, config: MachineConfig) -> Iterator[Range]:
        yield "W", self.word, self.word + self.live

    def execute(self, m: Memory) -> None:
        m.load_tile(self)


@instruction("DW", 0x02)
class LDT(StreamInstruction):
    """Load a decoder table: ``bytes`` bytes at ``dram`` are a stream header, see *Weight streams*.

    Takes its turn in the decoder for ``steps`` steps (2^n with entropy, else 0; of F cycles each, as of a tile), so
    tiles before it still use the old table and tiles after it the new one.   Time: see *DRAM*, *Decoder*.
    """

    dram: int = operand(25, "DRAM address", times=16)
    bytes: int = operand(16, "length of the header")
    steps: int = operand(12, "decoder steps to fill the table")
    table: int = operand(2, "decoder table")
    rules = (RING,)

    def reads(self, config: MachineConfig) -> Iterator[Range]:
        yield "DRAM", self.dram, self.dram + self.bytes

    def writes(self, config: MachineConfig) -> Iterator[Range]:
        yield "TABLE", self.table, self.table + 1

    def execute(self, m: Memory) -> None:
        m.load_decoder_table(self)
