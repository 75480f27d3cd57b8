"""DA: the DMA of activations, parameters, tables and embedding rows.  One instruction at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnac.isa.base import Constants, Instruction, Memory, Range, instruction, operand
from nnac.isa.config import MachineConfig
from nnac.isa.operands import Integers, Operand

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    """Copy ``bytes`` bytes from DRAM to A: parameters, tables, saved state.
    The data phase may begin 1 + latency cycles after the start."""

    dram: int = operand(25, "DRAM address", times=16)
    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(16, "length", times=4)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.bytes, 1),)

    def reads(self, config: MachineConfig) -> Iterator[Range]:
        yield "DRAM", self.dram, self.dram + self.bytes

    def constants(self, m: Memory) -> Constants:
        return dict(bytes=m.dram_bytes(self.dram, self.bytes))

    @staticmethod
    def compute(p: Constants) -> tuple[NDArray, ...]:
        return (p["bytes"],)


@instruction("DA", 0x09)
class STA(DmaInstruction):
    """Copy ``bytes`` bytes from A to DRAM (its writable part).
    No latency: the data phase may begin one cycle after the start.  It lasts `turnaround` bursts longer than its bytes
    take: the bus turns round before it and after it."""

    src: int = operand(18, "A address", times=4)
    dram: int = operand(25, "DRAM address", times=16)
    bytes: int = operand(16, "length", times=4)

    def ready(self, config: MachineConfig) -> int:
        return 1

    def bursts(self, config: MachineConfig) -> int:
        return super().bursts(config) + config.turnaround

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.src, self.bytes, 1),)

    def writes(self, config: MachineConfig) -> Iterator[Range]:
        yield "DRAM", self.dram, self.dram + self.bytes

    def execute(self, m: Memory) -> None:
        m.write_dram(self.dram, m.fetch(Integers(self.src, self.bytes, 1)))


@instruction("DA", 0x0A)
class GTH(DmaInstruction):
    """Copy one row of a table in DRAM to A: the row whose number is the int32 at A[index] (a label embedding).

    Row r begins at ``dram + r * pitch``.  The data phase may begin 3 + latency cycles after the start.  Time must not
    depend on r: the bus is held for as many bursts as a row touches that begins at the worst multiple of 16, whether a
    row begins there or not: ceil((bytes + burst - 16) / burst), with 1 for bytes where it is 0.
    """

    index: int = operand(18, "A address of the row number", times=4)
    dram: int = operand(25, "DRAM address of row 0", times=16)
    pitch: int = operand(10, "bytes from row to row", times=16)
    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(12, "length", times=4)

    def ready(self, config: MachineConfig) -> int:
        return 3 + config.latency

    def bursts(self, config: MachineConfig) -> int:
        return -(-(max(self.bytes, 1) + config.burst - 16) // config.burst)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.index, 1, 4),)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.bytes, 1),)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "DRAM", 0, 1 << 29

    def constants(self, m: Memory) -> Constants:
        return dict(dram=self.dram, pitch=self.pitch, bytes=self.bytes, rows=m.dram_rows)

    @staticmethod
    def compute(p: Constants, index: NDArray) -> tuple[NDArray, ...]:
        return (p["rows"](p["dram"] + index * p["pitch"], p["bytes"]),)
