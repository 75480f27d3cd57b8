"""VX, continued: moving, filling, searching, loading look-up tables."""

from __future__ import annotations

from nnac.isa.base import instruction, operand
from nnac.isa.vector import LUT_BYTES, VectorInstruction, _int


@instruction("VX", 0x28)
class CPY(VectorInstruction):
    """Copy ``count`` blocks of ``bytes`` bytes inside A, block i from src + i*sstride to dst + i*dstride, one after the other.

    Source and destination do not overlap.   Cycles: vx_fill + count * ceil(bytes / L).
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(14, "length of a block")
    count: int = operand(8, "blocks", minus=1)
    sstride: int = operand(12, "bytes from block to block of the source", times=4)
    dstride: int = operand(12, "bytes from block to block of the destination", times=4)

    def beats(self, config):
        return self.count * -(-self.bytes // config.lanes)

    def reads(self, config):
        for i in range(self.count):
            yield "A", self.src + i * self.sstride, self.src + i * self.sstride + self.bytes

    def writes(self, config):
        for i in range(self.count):
            yield "A", self.dst + i * self.dstride, self.dst + i * self.dstride + self.bytes

    def execute(self, m):
        for i in range(self.count):
            m.write_bytes(self.dst + i * self.dstride, m.read_bytes(self.src + i * self.sstride, self.bytes))


@instruction("VX", 0x29)
class FIL(VectorInstruction):
    """Fill ``bytes`` bytes of A with the 32-bit pattern ``value``.   Cycles: vx_fill + ceil(bytes / L)."""

    dst: int = operand(18, "A address", times=4)
    bytes: int = operand(16, "length", times=4)
    value: int = operand(32, "the pattern, as an unsigned number")

    def beats(self, config):
        return -(-self.bytes // config.lanes)

    def writes(self, config):
        yield "A", self.dst, self.dst + self.bytes

    def execute(self, m):
        import numpy as np

        pattern = np.full(self.bytes // 4, self.value, "<u4").view(np.uint8)
        m.write_bytes(self.dst, np.broadcast_to(pattern, (m.batch, self.bytes)))


@instruction("VX", 0x2A)
class TAB(VectorInstruction):
    """Load look-up table ``slot`` with the 513 int16 at A[src].   Cycles: vx_fill + ceil(1026 / L)."""

    src: int = operand(18, "A address", times=4)
    slot: int = operand(3, "LUT slot")

    def beats(self, config):
        return -(-LUT_BYTES // config.lanes)

    def reads(self, config):
        yield "A", self.src, self.src + LUT_BYTES

    def writes(self, config):
        yield "LUT", self.slot, self.slot + 1

    def execute(self, m):
        m.load_lut(self.slot, m.table(self.src, LUT_BYTES // 2, "<i2"))


@instruction("VX", 0x2B)
class AMAX(VectorInstruction):
    """The greatest element and its place (the first, if there are several): int32 place at A[dst], int32 value at A[dst+4].

    Cycles: vx_fill + ceil(n / V).
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")

    def beats(self, config):
        return -(-self.n // config.vector)

    def reads(self, config):
        yield "A", self.src, self.src + (self.n << self.a16)

    def writes(self, config):
        yield "A", self.dst, self.dst + 8

    def execute(self, m):
        import numpy as np

        x = m.read(self.src, self.n, _int(self.a16))
        at = x.argmax(1)
        m.write(self.dst, np.stack([at, x[np.arange(len(x)), at]], 1), "<i4")
