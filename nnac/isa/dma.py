"""DA: the DMA of activations, parameters, tables and embedding rows.  One instruction at a time."""

from __future__ import annotations

from nnac.isa.base import Instruction, instruction, operand
from nnac.isa.config import MachineConfig


class DmaInstruction(Instruction):
    """Occupies DA from start to done; when that is, the DRAM bus says."""

    __slots__ = ()
    dram: int
    bytes: int

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        """(0, 0): given by the bus (see the manual, *DRAM*)."""
        return 0, 0

    def bursts(self, config: MachineConfig) -> int:
        """Bursts that the addressed bytes touch, at least one."""
        first, last = self.dram // config.burst, (self.dram + max(self.bytes, 1) - 1) // config.burst
        return last - first + 1

    def ready(self, config: MachineConfig) -> int:
        """Cycles from start to the first cycle in which the data phase may begin."""
        return 1 + config.latency


@instruction("DA", 0x08)
class LDA(DmaInstruction):
    """Copy ``bytes`` bytes from DRAM to A: parameters, tables, saved state.   The data phase may begin 1 + latency cycles after the start."""

    dram: int = operand(25, "DRAM address", times=16)
    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(16, "length", times=4)

    def reads(self, config):
        yield "DRAM", self.dram, self.dram + self.bytes

    def writes(self, config):
        yield "A", self.dst, self.dst + self.bytes

    def execute(self, m):
        m.write_bytes(self.dst, m.dram_bytes(self.dram, self.bytes))


@instruction("DA", 0x09)
class STA(DmaInstruction):
    """Copy ``bytes`` bytes from A to DRAM (its writable part).   No latency: the data phase may begin one cycle after the start."""

    src: int = operand(18, "A address", times=4)
    dram: int = operand(25, "DRAM address", times=16)
    bytes: int = operand(16, "length", times=4)

    def ready(self, config):
        return 1

    def reads(self, config):
        yield "A", self.src, self.src + self.bytes

    def writes(self, config):
        yield "DRAM", self.dram, self.dram + self.bytes

    def execute(self, m):
        m.write_dram(self.dram, m.read_bytes(self.src, self.bytes))


@instruction("DA", 0x0A)
class GTH(DmaInstruction):
    """Copy one row of a table in DRAM to A: the row whose number is the int32 at A[index] (a label embedding).

    Row r begins at ``dram + r * pitch``.  The data phase may begin 3 + latency cycles
    after the start.  Time must not depend on r: the bus is held for as many bursts as the worst placed row touches.
    """

    index: int = operand(18, "A address of the row number", times=4)
    dram: int = operand(25, "DRAM address of row 0", times=16)
    pitch: int = operand(10, "bytes from row to row", times=16)
    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(12, "length", times=4)

    def ready(self, config):
        return 3 + config.latency

    def bursts(self, config):
        return -(-(max(self.bytes, 1) + config.burst - 16) // config.burst)

    def reads(self, config):
        yield "A", self.index, self.index + 4

    def writes(self, config):
        yield "A", self.dst, self.dst + self.bytes

    def execute(self, m):
        import numpy as np

        rows = m.read(self.index, 1, "<i4")[:, 0]
        m.write_bytes(self.dst, np.stack([m.dram_bytes(self.dram + int(r) * self.pitch, self.bytes, b) for b, r in enumerate(rows)]))
