"""VX: requantisation, the fused LSTM step, elementwise operations, tables, layer norm.  One instruction at a time; V elements a cycle.

All operands lie in A; small constants come in a parameter block in A, so that one 128-bit word suffices.  Numbers: `nnac.arith`.
A result may lie in the place of an operand (the same address, and not longer), or apart from all operands, but not partly over one.
"""

from __future__ import annotations

from nnac.isa.base import Instruction, instruction, operand
from nnac.isa.config import LUT_ENTRIES, RSQRT_ENTRIES, MachineConfig

RQ_HEADER, RQ_NARROW, RQ_WIDE = 8, 8, 12               # bytes: header, one row, one row with ``wide``
LSTM_BYTES, ADD_BYTES, MUL_BYTES, LUT_PARAMETER_BYTES, LN_BYTES, SMAX_BYTES = 12, 12, 8, 12, 24, 16
LUT_BYTES = 2 * LUT_ENTRIES
LN_RSQRT = 4 * -(-2 * RSQRT_ENTRIES // 4)


class VectorInstruction(Instruction):
    """Occupies VX from start to done."""

    __slots__ = ()

    def beats(self, config: MachineConfig) -> int:
        raise NotImplementedError

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        n = config.vx_fill + self.beats(config)
        return n, n


def _int(wide: int) -> str:
    return "<i2" if wide else "i1"


@instruction("VX", 0x20)
class RQ(VectorInstruction):
    """Bring accumulators to a format, row by row with its own bias, multiplier and shift:

        v = ACC[bank][c][r] + bias[r]                         ``add`` = 1: v += int32 at A[addend + c*stride + 4r]
        ``out`` = 2: int32 at A[dst + c*stride + 4r] = v
        otherwise  y = requantise(v, m[r], s[r], zero_point, bits)         ``add`` = 2: y = sat(y + int16 at A[addend + c*stride + 2r], bits)
                   int8 (``out`` = 0) or int16 (1) at A[dst + c*stride + r or 2r] = y

    Parameters: {i16 zero_point, u8 bits, u8 0, u32 0}, then per row {i32 bias, u24 m, u8 s}; v must fit 32 bits.
    ``wide``: per row {i48 bias, u32 m, u8 s, u8 0}; v has 48 bits.  ``double``: TFLite's double rounding (m is Q31, s the shift after it).
    Cycles: vx_fill + columns * ceil(rows / V), the second term twice that if ``wide`` or ``double``.
    """

    dst: int = operand(18, "A address of row 0, column 0", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    addend: int = operand(18, "A address of the addend", times=4)
    rows: int = operand(8, "rows", minus=1)
    bank: int = operand(2, "accumulator bank")
    columns: int = operand(4, "columns", minus=1)
    stride: int = operand(12, "bytes from column to column, of result and addend", times=4)
    out: int = operand(2, "0 int8, 1 int16, 2 int32 without requantisation")
    add: int = operand(2, "0 nothing, 1 int32 before, 2 int16 after")
    wide: int = operand(1, "48-bit accumulators")
    double: int = operand(1, "double rounding")

    def beats(self, config):
        return self.columns * -(-self.rows // config.vector) * (2 if self.wide or self.double else 1)

    def reads(self, config):
        yield "ACC", self.bank * config.columns, self.bank * config.columns + self.columns
        yield "A", self.params, self.params + RQ_HEADER + self.rows * (RQ_WIDE if self.wide else RQ_NARROW)
        if self.add:
            for c in range(self.columns):
                first = self.addend + c * self.stride
                yield "A", first, first + self.rows * (4 if self.add == 1 else 2)

    def writes(self, config):
        for c in range(self.columns):
            first = self.dst + c * self.stride
            yield "A", first, first + (self.rows << self.out)

    def parameters(self, m):
        """(zero_point, bits, bias, multiplier, shift) from A."""
        from nnac.isa.dtypes import RQ_DTYPE, RQ_HEADER_DTYPE, RQ_WIDE_DTYPE

        head = m.record(self.params, RQ_HEADER_DTYPE)
        rows = m.table(self.params + RQ_HEADER, self.rows, RQ_WIDE_DTYPE if self.wide else RQ_DTYPE)
        if self.wide:
            bias = rows["low"].astype("int64") + (rows["high"].astype("int64") << 32)
            multiplier, shift = rows["m0"].astype("int64") + (rows["m1"].astype("int64") << 16), rows["shift"].astype("int64")
        else:
            bias, both = rows["bias"].astype("int64"), rows["multiplier"].astype("int64")
            multiplier, shift = both & 0xFFFFFF, both >> 24
        return int(head["zero_point"]), int(head["bits"]), bias, multiplier, shift

    def execute(self, m):
        from nnac import arith

        m.check_rq(self)
        zero_point, bits, bias, multiplier, shift = self.parameters(m)
        if self.out != 2:
            m.check_width(bits, 16 if self.out == 1 else 8)
        for c in range(self.columns):
            v = m.accumulator(self.bank, c)[:, : self.rows] + bias
            if self.add == 1:
                v = v + m.read(self.addend + c * self.stride, self.rows, "<i4")
            m.check_accumulator(v, 48 if self.wide else 32)
            if self.out == 2:
                m.write(self.dst + c * self.stride, v, "<i4")
                continue
            rule = arith.requantise_double if self.double else arith.requantise
            y = rule(v, multiplier, shift, zero_point, bits)
            if self.add == 2:
                y = arith.saturate(y + m.read(self.addend + c * self.stride, self.rows, "<i2"), bits)
            m.write(self.dst + c * self.stride, y, _int(self.out))


@instruction("VX", 0x21)
class LSTM(VectorInstruction):
    """One LSTM step of ``units`` units after the products, `arith.lstm_cell`: pre-activations int16 Q3.12 in blocks i, f, g, o.

    The cell state (int16) is replaced in place; the hidden state goes to ``dst``, int8 or, if bits > 8, int16.
    Parameters: {u32 m, u8 s, u8 bits, u8 fraction, u8 sigmoid, u8 tanh, u8 tanh_cell (LUT slots), u16 0}.
    Five table reads a unit: vx_fill + 5 * ceil(units / V) cycles.
    """

    pre: int = operand(18, "A address of 4 x units pre-activations", times=4)
    cell: int = operand(18, "A address of the cell state", times=4)
    dst: int = operand(18, "A address of the hidden state", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    units: int = operand(10, "units", minus=1)
    out16: int = operand(1, "hidden state is int16")

    def beats(self, config):
        return 5 * -(-self.units // config.vector)

    def reads(self, config):
        yield "A", self.pre, self.pre + 8 * self.units
        yield "A", self.cell, self.cell + 2 * self.units
        yield "A", self.params, self.params + LSTM_BYTES

    def writes(self, config):
        yield "A", self.cell, self.cell + 2 * self.units
        yield "A", self.dst, self.dst + (self.units << self.out16)

    def execute(self, m):
        from nnac import arith
        from nnac.isa.dtypes import LSTM_DTYPE

        p = m.record(self.params, LSTM_DTYPE)
        m.check_width(int(p["bits"]), 16 if self.out16 else 8)
        pre, cell = m.read(self.pre, 4 * self.units, "<i2"), m.read(self.cell, self.units, "<i2")
        hidden, cell = arith.lstm_cell(pre, cell, m.lut(int(p["sigmoid"])), m.lut(int(p["tanh"])), m.lut(int(p["tanh_cell"])),
                                       int(p["fraction"]), int(p["multiplier"]), int(p["shift"]), int(p["bits"]))
        m.write(self.cell, cell, "<i2")
        m.write(self.dst, hidden, _int(self.out16))


class _Binary(VectorInstruction):
    """Two vectors in, one out."""

    __slots__ = ()
    parameter_bytes = 0
    a: int
    b: int
    dst: int
    params: int
    n: int
    a16: int
    b16: int
    out16: int

    def reads(self, config):
        yield "A", self.a, self.a + (self.n << self.a16)
        yield "A", self.b, self.b + (self.n << self.b16)
        yield "A", self.params, self.params + self.parameter_bytes

    def writes(self, config):
        yield "A", self.dst, self.dst + (self.n << self.out16)


@instruction("VX", 0x22)
class ADD(_Binary):
    """``sat(requantise(a, m0, s0) + requantise(b, m1, s1))``, element by element.

    Parameters: {u32 m0, u32 m1, u8 s0, u8 s1, u8 bits, u8 0}.   Cycles: vx_fill + 2 * ceil(n / V).
    """

    a: int = operand(18, "A address", times=4)
    b: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "a is int16")
    b16: int = operand(1, "b is int16")
    out16: int = operand(1, "the result is int16")
    parameter_bytes = ADD_BYTES

    def beats(self, config):
        return 2 * -(-self.n // config.vector)

    def execute(self, m):
        from nnac import arith
        from nnac.isa.dtypes import ADD_DTYPE

        p = m.record(self.params, ADD_DTYPE)
        bits = m.check_width(int(p["bits"]), 16 if self.out16 else 8)
        a, b = m.read(self.a, self.n, _int(self.a16)), m.read(self.b, self.n, _int(self.b16))
        y = arith.add(a, b, (int(p["m0"]), int(p["m1"])), (int(p["s0"]), int(p["s1"])), bits)
        m.write(self.dst, y, _int(self.out16))


@instruction("VX", 0x23)
class MUL(_Binary):
    """``requantise(a * b, m, s, zero_point, bits)``, element by element.

    Parameters: {u32 m, u8 s, u8 bits, i16 zero_point}.   Cycles: vx_fill + ceil(n / V).
    """

    a: int = operand(18, "A address", times=4)
    b: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "a is int16")
    b16: int = operand(1, "b is int16")
    out16: int = operand(1, "the result is int16")
    parameter_bytes = MUL_BYTES

    def beats(self, config):
        return -(-self.n // config.vector)

    def execute(self, m):
        from nnac import arith
        from nnac.isa.dtypes import MUL_DTYPE

        p = m.record(self.params, MUL_DTYPE)
        bits = m.check_width(int(p["bits"]), 16 if self.out16 else 8)
        product = m.read(self.a, self.n, _int(self.a16)) * m.read(self.b, self.n, _int(self.b16))
        m.write(self.dst, arith.requantise(product, int(p["multiplier"]), int(p["shift"]), int(p["zero_point"]), bits), _int(self.out16))


@instruction("VX", 0x24)
class LUT(VectorInstruction):
    """A tabulated function of int16s, `arith.lookup`, then requantised from Q0.15.

    Parameters: {u32 m, u8 s, u8 bits, i16 zero_point, u8 slot, u8 symmetry (0 odd, 1 complement), u16 0}.
    Cycles: vx_fill + ceil(n / V).
    """

    src: int = operand(18, "A address of int16", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    out16: int = operand(1, "the result is int16")

    def beats(self, config):
        return -(-self.n // config.vector)

    def reads(self, config):
        yield "A", self.src, self.src + 2 * self.n
        yield "A", self.params, self.params + LUT_PARAMETER_BYTES

    def writes(self, config):
        yield "A", self.dst, self.dst + (self.n << self.out16)

    def execute(self, m):
        from nnac import arith
        from nnac.isa.dtypes import LUT_DTYPE

        p = m.record(self.params, LUT_DTYPE)
        bits = m.check_width(int(p["bits"]), 16 if self.out16 else 8)
        y = arith.lookup(m.lut(int(p["slot"])), "complement" if p["symmetry"] else "odd", m.read(self.src, self.n, "<i2"))
        m.write(self.dst, arith.requantise(y, int(p["multiplier"]), int(p["shift"]), int(p["zero_point"]), bits), _int(self.out16))


@instruction("VX", 0x25)
class LN(VectorInstruction):
    """Layer norm of one vector, `arith.layer_norm`.

    Parameters: {i64 epsilon, u32 root_width, u32 m, u8 s, u8 bits, i16 zero_point, u32 0}, then u16 rsqrt[385] and 2 bytes of nothing,
    i16 gain[n] filled up to a multiple of 4 bytes, i32 bias[n].
    Three passes over the vector and 24 cycles for the square root: vx_fill + 24 + 3 * ceil(n / V).
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")
    out16: int = operand(1, "the result is int16")

    def beats(self, config):
        return 24 + 3 * -(-self.n // config.vector)

    def layout(self) -> tuple[int, int, int, int]:
        """Offsets of rsqrt, gain, bias in the parameters, and their length."""
        gain = LN_BYTES + LN_RSQRT
        bias = gain + 4 * -(-self.n // 2)
        return LN_BYTES, gain, bias, bias + 4 * self.n

    def reads(self, config):
        yield "A", self.src, self.src + (self.n << self.a16)
        yield "A", self.params, self.params + self.layout()[3]

    def writes(self, config):
        yield "A", self.dst, self.dst + (self.n << self.out16)

    def execute(self, m):
        from nnac import arith
        from nnac.isa.dtypes import LN_DTYPE

        p = m.record(self.params, LN_DTYPE)
        bits = m.check_width(int(p["bits"]), 16 if self.out16 else 8)
        rsqrt, gain, bias, _ = (self.params + at for at in self.layout())
        y = arith.layer_norm(m.read(self.src, self.n, _int(self.a16)), m.table(gain, self.n, "<i2").astype("int64"),
                             m.table(bias, self.n, "<i4").astype("int64"), int(p["epsilon"]), int(p["root_width"]),
                             m.table(rsqrt, RSQRT_ENTRIES, "<u2").astype("int64"), int(p["multiplier"]),
                             int(p["shift"]), int(p["zero_point"]), bits)
        m.write(self.dst, y, _int(self.out16))


@instruction("VX", 0x26)
class SMAX(VectorInstruction):
    """Softmax of one vector, `arith.softmax`.

    Parameters: {u32 m, u32 m_out, u8 s, u8 s_out, u8 bits, u8 slot (LUT with exp), i16 zero_point, u16 0}, then u16 rsqrt[385] and 2 bytes
    of nothing.   Three passes (maximum; exponentials and sum; quotients) and 24 cycles for the reciprocal: vx_fill + 24 + 3 * ceil(n / V).
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")
    out16: int = operand(1, "the result is int16")

    def beats(self, config):
        return 24 + 3 * -(-self.n // config.vector)

    def reads(self, config):
        yield "A", self.src, self.src + (self.n << self.a16)
        yield "A", self.params, self.params + SMAX_BYTES + LN_RSQRT

    def writes(self, config):
        yield "A", self.dst, self.dst + (self.n << self.out16)

    def execute(self, m):
        from nnac.isa.dtypes import SMAX_DTYPE

        p = m.record(self.params, SMAX_DTYPE)
        rsqrt = m.table(self.params + SMAX_BYTES, RSQRT_ENTRIES, "<u2").astype("int64")
        m.check_width(int(p["bits"]), 16 if self.out16 else 8)
        m.write(self.dst, self.apply(p, m.lut(int(p["slot"])), rsqrt, m.read(self.src, self.n, _int(self.a16))), _int(self.out16))

    @staticmethod
    def apply(p, exp, rsqrt, x):
        """The softmax of ``x`` with the parameters ``p``."""
        from nnac import arith

        return arith.softmax(x, exp, rsqrt, int(p["multiplier"]), int(p["shift"]), int(p["out_multiplier"]), int(p["out_shift"]),
                             int(p["zero_point"]), int(p["bits"]))
