"""VX: requantisation, the fused LSTM and GRU steps, elementwise operations, tables, layer norm.  One instruction at a
time; V elements a cycle.

All operands lie in A; small constants come in a parameter block in A, so that one 128-bit word suffices.  Numbers:
`nnac.arith`. A result may lie in the place of an operand (the same address, and not longer), or apart from all
operands, but not partly over one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from nnac.isa import beats
from nnac.isa.base import Constants, Instruction, Memory, Rule, instruction, operand
from nnac.isa.config import LUT_ENTRIES, RSQRT_ENTRIES, MachineConfig
from nnac.isa.operands import Accumulators, Integers, Operand, Range
from nnac.isa.records import BadData, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUT_BYTES = 2 * LUT_ENTRIES
RSQRT_BYTES = 4 * -(-2 * RSQRT_ENTRIES // 4)           # of the table in A: filled up to a multiple of 4
RQ_HEAD = Record("i16 zero_point, u8 bits, u8 0, u32 0")
RQ_ROW = Record("i32 bias, u24 multiplier, u8 shift 0..62")
RQ_WIDE_ROW = Record("i48 bias, u32 multiplier 0..2147483647, u8 shift 0..62, u8 0")
# what multiplies more than 32 bits is below this: a product has 62 bits and its sign
WIDE_MULTIPLIER = 1 << 15


class VectorInstruction(Instruction):
    """Occupies VX from start to done.  ``block``: the parameters at A[params], if they are one record."""

    __slots__ = ()
    block: ClassVar[Record | None] = None
    params: int

    def beats(self, config: MachineConfig) -> int:
        """Cycles beyond the vx_fill cycles that fill the pipeline."""
        raise NotImplementedError

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        n = config.vx_fill + self.beats(config)
        return n, n

    def blocks(self) -> Iterator[tuple[int, int]]:
        if self.block is not None:
            yield self.params, self.block.bytes

    def constants(self, m: Memory) -> Constants:
        return {} if self.block is None else self.block.read(m.parameters(self.params, self.block.bytes))


def check_width(bits: int, wide: int) -> None:
    """BadData unless a result of ``bits`` bits fits int8 or, if ``wide``, int16."""
    if not 2 <= bits <= (16 if wide else 8):
        raise BadData(f"{bits} bits do not fit int{16 if wide else 8}")


def check_bits(values: NDArray, width: int) -> None:
    """BadData unless accumulators, or sums of them, fit ``width`` bits."""
    limit = 1 << width - 1
    if values.size and (values.max() >= limit or values.min() < -limit):
        worst = max(int(values.max()), -int(values.min()))
        raise BadData(f"an accumulator reaches {worst}, more than {width} bits")


def array(m: Memory, address: int, n: int, kind: str) -> NDArray:
    """``n`` integers of NumPy's ``kind`` in a parameter block: int64 [n]."""
    import numpy as np

    size = np.dtype(kind).itemsize
    return np.ascontiguousarray(m.parameters(address, n * size)).view(kind).astype(np.int64)


def _rsqrt(m: Memory, address: int) -> NDArray:
    """The table of 1/sqrt in A.  BadData: an entry below 1.0, which no mantissa below 1 has."""
    entries = array(m, address, RSQRT_ENTRIES, "<u2")
    if (least := int(entries.min())) < 32768:
        raise BadData(f"an entry of rsqrt is {least}, not in 32768 … 65535")
    return entries


def _rq_formats(i: RQ, config: MachineConfig) -> str:
    return f"out={i.out} with add={i.add} is undefined" if i.out > 2 or i.add > 2 or (i.out == 2 and i.add == 2) else ""


def _rq_columns(i: RQ, config: MachineConfig) -> str:
    if i.add and i.columns > 1:
        width, more = i.rows << i.out, i.rows * (4 if i.add == 1 else 2)
        for k in range(i.columns):
            for c in range(i.columns):
                first, addend = i.dst + k * i.stride, i.addend + c * i.stride
                if k != c and first < addend + more and addend < first + width:
                    return f"column {k} of the result lies over the addend of column {c}"
    return ""


ROWS = Rule("LDW, RQ: rows <= L", lambda i, c: f"{i.rows} rows; the machine has {c.lanes} lanes" if i.rows > c.lanes
            else "")
COLUMNS = Rule("MVM, RQ: columns <= C", lambda i, c: f"{i.columns} columns; the machine has {c.columns}"
               if i.columns > c.columns else "")


@instruction("VX", 0x20)
class RQ(VectorInstruction):
    """Bring accumulators to a format, row by row with its own bias, multiplier and shift:

        v = ACC[bank][c][r] + bias[r]                         ``add`` = 1: v += int32 at A[addend + c*stride + 4r]
        ``out`` = 2: int32 at A[dst + c*stride + 4r] = v
        otherwise  y = requantise(v, multiplier[r], shift[r], zero_point, bits)
                   ``add`` = 2: y = saturate(y + int16 at A[addend + c*stride + 2r], bits)
                   int8 (``out`` = 0) or int16 (1) at A[dst + c*stride + r or 2r] = y

    Parameters: {head}, then per row {row}; v must fit 32 bits.
    ``wide``: per row {wide_row};
    v must fit 48 bits in rows whose multiplier is below 32768, unless ``out`` = 2 or ``double``; 32 bits elsewhere.
    ``double``: requantise_double (TFLite's double rounding) in the place of requantise.   Columns are done in order.
    Cycles: vx_fill + columns * ceil(rows / V) * (2 if wide or double else 1).
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
    rules = (COLUMNS, ROWS, Rule("RQ: out <= 2, add <= 2, and not both 2", _rq_formats),
             Rule("RQ: no column of the result lies over the addend of another column", _rq_columns))
    records: ClassVar[dict[str, Record]] = dict(head=RQ_HEAD, row=RQ_ROW, wide_row=RQ_WIDE_ROW)
    by_element = True
    each = ("bias", "multiplier", "shift")

    def beats(self, config: MachineConfig) -> int:
        return beats.requantise(config, self.rows, self.columns, bool(self.wide or self.double))

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        sums = Accumulators(self.bank, self.columns, self.rows)
        return (sums, Integers(self.addend, self.rows, 4 if self.add == 1 else 2, self.columns,
                               self.stride)) if self.add else (sums,)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.rows, 1 << self.out, self.columns, self.stride),)

    @property
    def row(self) -> Record:
        """The record of one row's parameters."""
        return RQ_WIDE_ROW if self.wide else RQ_ROW

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield self.params, RQ_HEAD.bytes + self.rows * self.row.bytes

    def constants(self, m: Memory) -> Constants:
        head = RQ_HEAD.read(m.parameters(self.params, RQ_HEAD.bytes))
        rows = self.row.columns(m.parameters(self.params + RQ_HEAD.bytes, self.rows * self.row.bytes))
        if self.out != 2:
            check_width(head["bits"], self.out)
        wide = self.wide and not self.double and self.out != 2
        return dict(**head, **rows, out=self.out, add=self.add, double=self.double, wide=wide, bounded=False)

    @staticmethod
    def knowing(p: Constants, bound: int) -> Constants:
        width = 48 if p["wide"] and p["multiplier"].max() < WIDE_MULTIPLIER else 32
        return {**p, "bounded": p["add"] != 1 and bound + int(abs(p["bias"]).max()) < 1 << width - 1}

    @staticmethod
    def compute(p: Constants, sums: NDArray, addend: NDArray | None = None) -> tuple[NDArray, ...]:
        from nnac import arith

        v = sums + p["bias"]
        if p["add"] == 1:
            v = v + addend
        if not p["bounded"]:
            check_bits(v, 48 if p["wide"] else 32)
            if p["wide"]:
                check_bits(v[..., p["multiplier"] >= WIDE_MULTIPLIER], 32)
        if p["out"] == 2:
            return (v,)
        rule = arith.requantise_double if p["double"] else arith.requantise
        y = rule(v, p["multiplier"], p["shift"], p["zero_point"], p["bits"])
        return (arith.saturate(y + addend, p["bits"]) if p["add"] == 2 else y,)


@instruction("VX", 0x21)
class LSTM(VectorInstruction):
    """One LSTM step of ``units`` units after the products: pre-activations int16 Q3.12 in blocks i, f, g, o.

        hidden, cell = lstm_cell(pre, cell, LUT[sigmoid], LUT[tanh], LUT[tanh_cell], fraction, multiplier, shift, bits)

    The cell state (int16) is replaced in place; the hidden state goes to ``dst``, int8 or, if bits > 8, int16.
    sigmoid (complement), tanh and tanh_cell (odd) are LUT slots.
    Cycles: vx_fill + 5 * ceil(units / V), for five table reads a unit.
    """

    pre: int = operand(18, "A address of 4 x units pre-activations", times=4)
    cell: int = operand(18, "A address of the cell state", times=4)
    dst: int = operand(18, "A address of the hidden state", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    units: int = operand(10, "units", minus=1)
    out16: int = operand(1, "hidden state is int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 bits, u8 fraction 0..15, u8 sigmoid, u8 tanh, u8 "
                   "tanh_cell, u16 0")
    by_element = True

    def beats(self, config: MachineConfig) -> int:
        return beats.lstm(config, self.units)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return Integers(self.pre, self.units, 2, 4, 2 * self.units), Integers(self.cell, self.units, 2)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return Integers(self.cell, self.units, 2), Integers(self.dst, self.units, 1 << self.out16)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", 0, config.luts

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        return {**p, **{name: m.lut(p[name], symmetry)
                        for name, symmetry in (("sigmoid", "complement"), ("tanh", "odd"), ("tanh_cell", "odd"))}}

    @staticmethod
    def compute(p: Constants, pre: NDArray, cell: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        pre = pre.reshape(*pre.shape[:-2], -1)
        hidden, cell = arith.lstm_cell(pre, cell, p["sigmoid"], p["tanh"], p["tanh_cell"], p["fraction"],
                                       p["multiplier"], p["shift"], p["bits"])
        return cell, hidden


@instruction("VX", 0x33)
class GRU(VectorInstruction):
    """One GRU step of ``units`` units after the products: pre-activations int16 Q3.12 in blocks r, z, n, those of the
    input at ``pre``, those of the hidden state behind them, at pre + 4 * ceil(3 * units / 2).

        state = gru_cell(from_input, from_hidden, state, LUT[sigmoid], LUT[tanh])
        hidden = requantise(state, multiplier, shift, 0, bits)

    The state (int16 Q0.15) is replaced in place; the hidden state goes to ``dst``, int8 or, if bits > 8, int16.
    sigmoid (complement) and tanh (odd) are LUT slots.
    Cycles: vx_fill + 5 * ceil(units / V), for three table reads a unit and what is multiplied by them.
    """

    pre: int = operand(18, "A address of 3 x units pre-activations, and 3 x units more", times=4)
    state: int = operand(18, "A address of the state", times=4)
    dst: int = operand(18, "A address of the hidden state", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    units: int = operand(10, "units", minus=1)
    out16: int = operand(1, "hidden state is int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 bits, u8 sigmoid, u8 tanh")
    by_element = True

    def beats(self, config: MachineConfig) -> int:
        return beats.gru(config, self.units)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        behind = self.pre + 4 * -(-3 * self.units // 2)
        products = (Integers(at, self.units, 2, 3, 2 * self.units) for at in (self.pre, behind))
        return *products, Integers(self.state, self.units, 2)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return Integers(self.state, self.units, 2), Integers(self.dst, self.units, 1 << self.out16)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", 0, config.luts

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        return {**p, "sigmoid": m.lut(p["sigmoid"], "complement"), "tanh": m.lut(p["tanh"], "odd")}

    @staticmethod
    def compute(p: Constants, from_input: NDArray, from_hidden: NDArray, state: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        x, h = (pre.reshape(*pre.shape[:-2], -1) for pre in (from_input, from_hidden))
        state = arith.gru_cell(x, h, state, p["sigmoid"], p["tanh"])
        return state, arith.requantise(state, p["multiplier"], p["shift"], 0, p["bits"])


class _Binary(VectorInstruction):
    """Two vectors in, one out."""

    __slots__ = ()
    by_element = True
    a: int
    b: int
    dst: int
    n: int
    a16: int
    b16: int
    out16: int
    block: ClassVar[Record]

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return Integers(self.a, self.n, 1 << self.a16), Integers(self.b, self.n, 1 << self.b16)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.n, 1 << self.out16),)

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        return p


@instruction("VX", 0x22)
class ADD(_Binary):
    """``saturate(requantise(a, m0, s0, 0, bits) + requantise(b, m1, s1, 0, bits), bits)``, element by element: each
    term is saturated, then the sum.

    Cycles: vx_fill + 2 * ceil(n / V).
    """

    a: int = operand(18, "A address", times=4)
    b: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "a is int16")
    b16: int = operand(1, "b is int16")
    out16: int = operand(1, "the result is int16")
    block = Record("u32 m0 0..2147483647, u32 m1 0..2147483647, u8 s0 0..62, u8 s1 0..62, u8 bits, u8 0")

    def beats(self, config: MachineConfig) -> int:
        return beats.add(config, self.n)

    @staticmethod
    def compute(p: Constants, a: NDArray, b: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        return (arith.add(a, b, (p["m0"], p["m1"]), (p["s0"], p["s1"]), p["bits"]),)


@instruction("VX", 0x23)
class MUL(_Binary):
    """``requantise(a * b, multiplier, shift, zero_point, bits)``, element by element.

    Cycles: vx_fill + ceil(n / V).
    """

    a: int = operand(18, "A address", times=4)
    b: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "a is int16")
    b16: int = operand(1, "b is int16")
    out16: int = operand(1, "the result is int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 bits, i16 zero_point")

    def beats(self, config: MachineConfig) -> int:
        return beats.elementwise(config, self.n)

    @staticmethod
    def compute(p: Constants, a: NDArray, b: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        return (arith.requantise(a * b, p["multiplier"], p["shift"], p["zero_point"], p["bits"]),)


class _Unary(VectorInstruction):
    """One vector in, one out."""

    __slots__ = ()
    src: int
    dst: int
    n: int
    a16: int
    out16: int
    block: ClassVar[Record]

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.src, self.n, 1 << self.a16),)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.n, 1 << self.out16),)


@instruction("VX", 0x24)
class LUT(_Unary):
    """A tabulated function of int16s, then requantised from Q0.15:

        ``y = requantise(lookup(LUT[slot], symmetry, x), multiplier, shift, zero_point, bits)``

    symmetry: 0 odd, 1 complement.   Cycles: vx_fill + ceil(n / V).
    """

    src: int = operand(18, "A address of int16", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    out16: int = operand(1, "the result is int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 bits, i16 zero_point, u8 slot, u8 symmetry 0..1, "
                   "u16 0")
    by_element = True
    a16 = 1

    def beats(self, config: MachineConfig) -> int:
        return beats.elementwise(config, self.n)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", 0, config.luts

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        symmetry = ("odd", "complement")[p["symmetry"]]
        return {**p, "symmetry": symmetry, "table": m.lut(p["slot"], symmetry)}

    @staticmethod
    def compute(p: Constants, x: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        y = arith.lookup(p["table"], p["symmetry"], x)
        return (arith.requantise(y, p["multiplier"], p["shift"], p["zero_point"], p["bits"]),)


def _ln_domain(i: LN, config: MachineConfig) -> str:
    bits = 16 if i.a16 else 8
    return (f"{i.n} elements of int{bits}; the sum of their squared differences may leave 62 bits"
            if i.n**3 << 2 * bits - 2 >= 1 << 61 else "")


@instruction("VX", 0x25)
class LN(_Unary):
    """Layer norm of one vector:

        y = layer_norm(x, gain, bias, epsilon, root_width, rsqrt, multiplier, shift, zero_point, bits, rms)

    Parameters: {block},
    then i16 gain[n] filled up to a multiple of 4 bytes, i32 bias[n].
    rsqrt: u16 [385] at A[roots], then 2 bytes of nothing; parameters of many instructions share it.
    Cycles: vx_fill + 24 + 3 * ceil(n / V), for three passes over the vector and 24 for the square root.
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    roots: int = operand(18, "A address of the table of 1/sqrt", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")
    out16: int = operand(1, "the result is int16")
    rms: int = operand(1, "the mean is not taken off")
    block = Record("i64 epsilon 1..2305843009213693951, u32 root_width 0..65535, u32 multiplier 0..2147483647, u8 "
                   "shift 0..62, u8 bits, "
                   "i16 zero_point, u32 0")
    rules = (Rule("LN: n^3 * 4^(w-1) < 2^61 for elements of w bits (int16: n <= 1290): sum d^2 + epsilon stays below "
                  "2^62", _ln_domain),)

    def beats(self, config: MachineConfig) -> int:
        return beats.normalise(config, self.n)

    def layout(self) -> tuple[int, int, int]:
        """Offsets of gain and bias in the parameters, and their length."""
        gain = self.block.bytes
        bias = gain + 4 * -(-self.n // 2)
        return gain, bias, bias + 4 * self.n

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield self.params, self.layout()[2]
        yield self.roots, RSQRT_BYTES

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        gain, bias, _ = (self.params + at for at in self.layout())
        return {**p, "rsqrt": _rsqrt(m, self.roots), "gain": array(m, gain, self.n, "<i2"),
                "bias": array(m, bias, self.n, "<i4"), "rms": self.rms}

    @staticmethod
    def compute(p: Constants, x: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        return (arith.layer_norm(x, p["gain"], p["bias"], p["epsilon"], p["root_width"], p["rsqrt"], p["multiplier"],
                                 p["shift"], p["zero_point"], p["bits"], p["rms"]),)


def _smax_place(i: SMAX, config: MachineConfig) -> str:
    operands, results = i.groups * i.n << i.a16, i.groups * i.n << i.out16
    apart = i.dst + results <= i.src or i.src + operands <= i.dst
    return "" if apart or i.dst == i.src else "the results lie over vectors that are still to be read"


@instruction("VX", 0x26)
class SMAX(_Unary):
    """Softmax of each of ``groups`` vectors that lie end to end:

        y = softmax(x, LUT[slot], rsqrt, multiplier, shift, out_multiplier, out_shift, zero_point, bits)

    Parameters: {block}.  slot: a LUT with exp, odd, without an entry below 0.
    rsqrt: u16 [385] at A[roots], then 2 bytes of nothing, as LN has it.
    Cycles: vx_fill + groups * (24 + 3 * ceil(n / V)), for three passes (maximum; exponentials and sum; quotients) and
    24 for the reciprocal.
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    roots: int = operand(18, "A address of the table of 1/sqrt", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")
    out16: int = operand(1, "the result is int16")
    groups: int = operand(6, "vectors", minus=1)
    block = Record("u32 multiplier 0..2147483647, u32 out_multiplier 0..2147483647, u8 shift 0..62, u8 out_shift "
                   "0..62, u8 bits, u8 slot, "
                   "i16 zero_point, u16 0")

    rules = (Rule("SMAX: the results begin where the vectors begin, or lie apart from all of them", _smax_place),)

    def beats(self, config: MachineConfig) -> int:
        return self.groups * beats.normalise(config, self.n)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.src, self.n, 1 << self.a16, self.groups, self.n << self.a16),)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.n, 1 << self.out16, self.groups, self.n << self.out16),)

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield self.params, self.block.bytes
        yield self.roots, RSQRT_BYTES

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", 0, config.luts

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        return {**p, "rsqrt": _rsqrt(m, self.roots), "exp": m.lut(p["slot"], "exp")}

    @staticmethod
    def compute(p: Constants, x: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        return (arith.softmax(x, p["exp"], p["rsqrt"], p["multiplier"], p["shift"], p["out_multiplier"], p["out_shift"],
                              p["zero_point"],
                              p["bits"]),)


@instruction("VX", 0x2C)
class GATE(VectorInstruction):
    """A value times a tabulated function of another, element by element: swish where both are one, GLU where they are
    halves of a vector.

        ``y = gate(a, b, LUT[slot], symmetry, multiplier, shift, zero_point, bits)``

    symmetry: 0 odd, 1 complement.   Cycles: vx_fill + 2 * ceil(n / V), for a table read and a product.
    """

    a: int = operand(18, "A address of the factor", times=4)
    b: int = operand(18, "A address of int16, which the table is read with", times=4)
    dst: int = operand(18, "A address", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "the factor is int16")
    out16: int = operand(1, "the result is int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 bits, i16 zero_point, u8 slot, u8 symmetry 0..1, "
                   "u16 0")
    by_element = True

    def beats(self, config: MachineConfig) -> int:
        return 2 * beats.elementwise(config, self.n)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return Integers(self.a, self.n, 1 << self.a16), Integers(self.b, self.n, 2)

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Integers(self.dst, self.n, 1 << self.out16),)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", 0, config.luts

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        symmetry = ("odd", "complement")[p["symmetry"]]
        return {**p, "table": m.lut(p["slot"], symmetry), "symmetry": symmetry}

    @staticmethod
    def compute(p: Constants, a: NDArray, b: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        return (arith.gate(a, b, p["table"], p["symmetry"], p["multiplier"], p["shift"], p["zero_point"], p["bits"]),)


@instruction("VX", 0x27)
class LSM(_Unary):
    """Logarithm of the softmax of one vector, int16 Q4.11:

        y = log_softmax(x, LUT[exp], LUT[log], multiplier, shift)

    exp: a LUT with exp, odd, without an entry below 0; log: a LUT with ln(1 + k / 512), of which the entries are read
    as they are. Cycles: vx_fill + 24 + 3 * ceil(n / V), for three passes (maximum; exponentials and sum; differences)
    and 24 for the logarithm.
    """

    src: int = operand(18, "A address", times=4)
    dst: int = operand(18, "A address of int16", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "elements", minus=1)
    a16: int = operand(1, "elements are int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 exp, u8 log, u8 0")
    out16 = 1

    def beats(self, config: MachineConfig) -> int:
        return beats.normalise(config, self.n)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        yield "LUT", 0, config.luts

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        return {**p, "exp": m.lut(p["exp"], "exp"), "log": m.lut(p["log"], "entries")}

    @staticmethod
    def compute(p: Constants, x: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        return (arith.log_softmax(x, p["exp"], p["log"], p["multiplier"], p["shift"]),)
