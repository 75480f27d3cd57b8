"""VX, continued: moving, filling, searching, loading look-up tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnac.isa import beats
from nnac.isa.base import Constants, Memory, Range, instruction, operand
from nnac.isa.config import MachineConfig
from nnac.isa.operands import Integers, Operand
from nnac.isa.vector import LUT_BYTES, VectorInstruction

if TYPE_CHECKING:
    from numpy.typing import NDArray


@instruction("VX", 0x28)
class CPY(VectorInstruction):
    """Copy ``count`` blocks of ``bytes`` bytes inside A, block i from src + i*sstride to dst + i*dstride.

    Source and destination do not overlap, not even in place.   Cycles: vx_fill + count * ceil(bytes / L).
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(14, "length of a block")
    count: int = operand(8, "blocks", minus=1)
    sstride: int = operand(12, "bytes from block to block of the source", times=4)
    dstride: int = operand(12, "bytes from block to block of the destination", times=4)
    moves = True
    in_place = False

    def beats(self, config: MachineConfig) -> int:
        return self.count * -(-self.bytes // config.lanes)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.src, self.bytes, 1, self.count, self.sstride),)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.bytes, 1, self.count, self.dstride),)

    @staticmethod
    def compute(p: Constants, x: NDArray) -> tuple[NDArray, ...]:
        return (x,)


@instruction("VX", 0x29)
class FIL(VectorInstruction):
    """Fill ``bytes`` bytes of A with the 32-bit pattern ``value``.   Cycles: vx_fill + ceil(bytes / L)."""

    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(16, "length", times=4)
    value: int = operand(32, "the pattern, as an unsigned number")

    def beats(self, config: MachineConfig) -> int:
        return -(-self.bytes // config.lanes)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.bytes // 4, 4),)

    def constants(self, m: Memory) -> Constants:
        return dict(value=self.value, n=self.bytes // 4)

    @staticmethod
    def compute(p: Constants) -> tuple[NDArray, ...]:
        import numpy as np

        return (np.full(p["n"], p["value"], np.int64),)


@instruction("VX", 0x2A)
class TAB(VectorInstruction):
    """Load look-up table ``slot`` with the 513 int16 at A[src].   Cycles: vx_fill + ceil(1026 / L)."""

    src: int = operand(18, "A address", times=4)
    slot: int = operand(3, "LUT slot")

    def beats(self, config: MachineConfig) -> int:
        return -(-LUT_BYTES // config.lanes)

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield self.src, LUT_BYTES

    def writes(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", self.slot, self.slot + 1

    def execute(self, m: Memory) -> None:
        m.load_lut(self.slot, m.parameters(self.src, LUT_BYTES).copy().view("<i2").astype("int64"))


@instruction("VX", 0x2B)
class AMAX(VectorInstruction):
    """The greatest element and its place (the first, if there are several): int32 place at A[dst], int32 value at
    A[dst+4].

    Cycles: vx_fill + ceil(n / V).
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")

    def beats(self, config: MachineConfig) -> int:
        return beats.elementwise(config, self.n)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.src, self.n, 1 << self.a16),)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, 2, 4),)

    @staticmethod
    def compute(p: Constants, x: NDArray) -> tuple[NDArray, ...]:
        import numpy as np

        place = x.argmax(-1)
        return (np.stack([place, np.take_along_axis(x, place[..., None], -1)[..., 0]], -1),)
