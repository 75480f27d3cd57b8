"""Integers that are yet to come: a carrier of `nnac.arith` that writes ONNX nodes.

Every symbol knows between which integers its elements lie.  That decides its type (int32 where it is enough, int64
else), and lets a shift of a signed number, which ONNX does not have, be a shift of an unsigned one.

The products are ``MatMulInteger``.  On x86 without VNNI its kernels for uint8 x int8 add pairs of products in 16
saturating bits: sums are exact there only while ``255 * |w| * 2`` fits, that is for weights of at most 64; others are
multiplied as uint8 x uint8, which is exact everywhere.
Source: our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nnac import arith

OPSET = 18
INT32, INT64, UINT8, UINT64 = TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT64
_TYPES: dict[int, Any] = {INT32: np.int32, INT64: np.int64, UINT8: np.uint8, UINT64: np.uint64}
_MOST = (1 << 63) - 1
_MOST_SHIFT = 62               # of `arith.round_shift`
_EXACT_WEIGHT = 64             # of uint8 x int8, see above


class _Any(int):
    """Not -1 of a `reshape`, which is to be found out."""


ANY = _Any(-1)                 # the length of an axis that is known only when the model runs: the batch


class NotTraceable(TypeError):
    """Something was done with a symbol that ONNX integers cannot do; the message says what."""


@define(eq=False)
class Tape:
    """The nodes written so far, in order.  The same node is written once."""

    nodes: list[NodeProto] = field(factory=list)
    initializers: list[TensorProto] = field(factory=list)
    _written: dict[Any, str] = field(factory=dict)
    _constants: dict[Any, str] = field(factory=dict)
    _tables: dict[Any, NDArray] = field(factory=dict)
    sums: dict[str, tuple[Symbol, Symbol]] = field(factory=dict)

    def write(self, op: str, inputs: Sequence[str], name: str | None = None, outputs: int = 1,
              **attributes: Any) -> str:
        """The name of the last of the outputs of ``op`` on ``inputs``."""
        key = (op, tuple(inputs), tuple(sorted((k, str(v)) for k, v in attributes.items())))
        if name is None and key in self._written:
            return self._written[key]
        out = name or f"{op}_{len(self.nodes)}"
        names = [f"{out}.{i}" for i in range(outputs - 1)] + [out]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=out, **attributes))
        self._written[key] = out
        return out

    @contextmanager
    def before(self) -> Iterator[None]:
        """What is written within stands before all that was written: it makes what was read by its name."""
        at = len(self.nodes)
        yield
        self.nodes[:] = self.nodes[at:] + self.nodes[:at]

    def constant(self, value: NDArray) -> str:
        """The name of an initializer."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), self._constants[key]))
        return self._constants[key]

    def table(self, entries: NDArray, symmetry: str) -> NDArray:
        """All 65,536 values of a table, those of negative arguments last, as negative indices find them."""
        key = (entries.tobytes(), symmetry)
        if key not in self._tables:
            at = np.concatenate([np.arange(1 << 15), np.arange(-1 << 15, 0)])
            self._tables[key] = arith.lookup(entries.astype(np.int64), symmetry, at)
        return self._tables[key]

    def input(self, name: str, shape: tuple[int, ...], low: int, high: int) -> Symbol:
        """A symbol that is given from outside."""
        return Symbol(self, name, shape, _type(low, high), low, high)


def _type(low: int, high: int) -> int:
    return INT32 if -(1 << 31) <= low and high < 1 << 31 else INT64


def _inside(value: int) -> int:
    # the rules of `nnac.verify` keep every integer within 64 bits, also where the ends of its parts do not show it
    return max(-_MOST - 1, min(_MOST, value))


def _shapes(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what is made of two, element by element."""
    n = max(len(a), len(b))
    pairs = zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b, strict=True)
    return tuple(y if x == 1 else x for x, y in pairs)


@frozen(eq=False)
class Symbol:
    """Integers between ``low`` and ``high`` of a shape, which a tape will compute; or known ones, ``value``."""

    tape: Tape
    name: str
    shape: tuple[int, ...]
    type: int
    low: int
    high: int
    value: NDArray | None = None

    __array_ufunc__ = None     # NumPy's arrays leave operators between them and symbols to the symbols

    # ------------------------------------------------------------------------------------------- writing

    def _lift(self, other: Any) -> Symbol:
        return other if isinstance(other, Symbol) else known(self.tape, other)

    def as_type(self, type: int) -> str:
        """The name of these integers in another type."""
        if self.value is not None:
            return self.tape.constant(self.value.astype(_TYPES[type]))
        return self.name if self.type == type else self.tape.write("Cast", [self.name], to=type)

    def _made(self, op: str, inputs: Sequence[str], shape: tuple[int, ...], low: int, high: int, type: int,
              **attributes: Any) -> Symbol:
        return Symbol(self.tape, self.tape.write(op, inputs, **attributes), shape, type, low, high)

    def _pair(self, op: str, other: Any, function: Callable[[Any, Any], Any], ends: Sequence[int]) -> Symbol:
        """``op`` of two, element by element; the result's ends are among ``ends``."""
        b = self._lift(other)
        if self.value is not None and b.value is not None:
            return known(self.tape, function(self.value, b.value))
        low, high = _inside(min(ends)), _inside(max(ends))
        type = _wider(_type(low, high), self, b)
        return self._made(op, [self.as_type(type), b.as_type(type)], _shapes(self.shape, b.shape), low, high, type)

    # ------------------------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Symbol:
        b = self._lift(other)
        if b.value is not None and not b.value.any() and b.value.ndim == 0:
            return self
        if b.value is None or self.value is not None:
            return self._pair("Add", b, lambda x, y: x + y, (self.low + b.low, self.high + b.high))
        # constants that are added one after another are one
        start, more = self.tape.sums.get(self.name, (self, known(self.tape, 0)))
        total = more + b
        made = start._pair("Add", total, lambda x, y: x + y, (self.low + b.low, self.high + b.high))
        self.tape.sums[made.name] = start, total
        return made

    def __radd__(self, other: Any) -> Symbol:
        return self + other

    def __sub__(self, other: Any) -> Symbol:
        b = self._lift(other)
        if b.value is not None:
            return self + known(self.tape, -b.value)
        return self._pair("Sub", b, lambda x, y: x - y, (self.low - b.high, self.high - b.low))

    def __rsub__(self, other: Any) -> Symbol:
        return self._lift(other) - self

    def __mul__(self, other: Any) -> Symbol:
        b = self._lift(other)
        if b.value is not None and b.value.ndim == 0 and b.value == 1:
            return self
        ends = [x * y for x in (self.low, self.high) for y in (b.low, b.high)]
        if b is self:
            ends = [0 if self.low <= 0 <= self.high else min(ends), max(ends)]
        return self._pair("Mul", b, lambda x, y: x * y, ends)

    def __rmul__(self, other: Any) -> Symbol:
        return self * other

    def __neg__(self) -> Symbol:
        return 0 - self

    def __abs__(self) -> Symbol:
        if self.value is not None:
            return known(self.tape, abs(self.value))
        return self._made("Abs", [self.as_type(self.type)], self.shape, 0, max(-self.low, self.high), self.type)

    def clip(self, low: int, high: int) -> Symbol:
        """Limited to ``low`` … ``high``."""
        if self.value is not None:
            return known(self.tape, self.value.clip(low, high))
        if low <= self.low and self.high <= high:
            return self
        of_type = np.iinfo(_TYPES[self.type])
        ends = [self.tape.constant(np.array(min(max(v, of_type.min), of_type.max), _TYPES[self.type]))
                for v in (low, high)]
        low, high = (min(max(end, low), high) for end in (self.low, self.high))
        return self._made("Clip", [self.name, *ends], self.shape, low, high, self.type)

    def sum(self, axis: int) -> Symbol:
        """Over an axis counted from the last, -1, which goes."""
        return self._reduced("ReduceSum", axis, self.low * self.shape[axis], self.high * self.shape[axis])

    def amax(self, axis: int) -> Symbol:
        """The greatest of an axis counted from the last, -1, which goes."""
        return self._reduced("ReduceMax", axis, self.low, self.high)

    def _reduced(self, op: str, axis: int, low: int, high: int) -> Symbol:
        if axis >= 0 or self.shape[axis] == ANY:
            raise NotTraceable("an axis is reduced that is not known from the end")
        low, high = _inside(low), _inside(high)
        type = _wider(_type(low, high), self)
        shape = list(self.shape)
        del shape[axis]
        axes = self.tape.constant(np.array([axis]))
        return self._made(op, [self.as_type(type), axes], tuple(shape), low, high, type, keepdims=0)

    def __mod__(self, n: int) -> Symbol:
        """The rest, not below zero; n > 0."""
        if self.value is not None:
            return known(self.tape, self.value % n)
        of = self.tape.constant(np.array(n, _TYPES[self.type]))
        return self._made("Mod", [self.name, of], self.shape, 0, n - 1, self.type)

    def __floordiv__(self, n: int) -> Symbol:
        """Towards minus infinity; n > 0."""
        whole = self - self % n
        of = self.tape.constant(np.array(n, _TYPES[whole.type]))
        if whole.value is not None:
            return known(self.tape, whole.value // n)
        return self._made("Div", [whole.name, of], self.shape, self.low // n, self.high // n, whole.type)

    # ------------------------------------------------------------------------------------------- bits

    def __lshift__(self, n: Any) -> Symbol:
        return self * _power(self.tape, self._lift(n))

    def __rlshift__(self, other: Any) -> Symbol:
        return self._lift(other) << self

    def __and__(self, mask: int) -> Symbol:
        if not isinstance(mask, int) or mask < 0:
            raise NotTraceable("a mask of bits is a known number, not below zero")
        if self.value is not None:
            return known(self.tape, self.value & mask)
        type = _wider(_type(0, mask), self)
        bits = self.tape.constant(np.array(mask, _TYPES[type]))
        return self._made("BitwiseAnd", [self.as_type(type), bits], self.shape, 0, mask, type)

    def __rshift__(self, n: Any) -> Symbol:
        return self._shifted(self._lift(n), False)

    def round_shift(self, n: Any) -> Symbol:
        """`arith.round_shift`."""
        return self._shifted(self._lift(n), True)

    def _shifted(self, n: Symbol, rounded: bool) -> Symbol:
        """``floor(x / 2^n)``, of ``x + 2^(n-1)`` where it is rounded (and n above zero)."""
        power = _power(self.tape, n)
        half = (power >> 1) if rounded else known(self.tape, 0)
        if self.value is not None and n.value is not None:
            return known(self.tape, (self.value + half.value) >> n.value)
        low, high = self.low + half.low, self.high + half.high
        least, most = (max(0, min(s, _MOST_SHIFT)) for s in (n.low, n.high))
        ends = [_inside(e) >> s for e in (low, high) for s in (least, most)]
        low, high = _inside(low), _inside(high)
        shape = _shapes(self.shape, n.shape)
        # a multiple of every power, which lifts the least to zero; known halves and lifts are one addition
        lift = 0 if low >= 0 else 1 << max((-low - 1).bit_length(), most)
        if high + lift > _MOST:
            return (self + half)._floored(power, shape, min(ends), max(ends))
        x, greatest = self + (half + lift), max(ends) + (lift >> least)
        if shape[-1:] in ((1,), (ANY,)):               # a few numbers: dividing them costs less than two more nodes
            type = _wider(_type(0, max(high + lift, power.high)), x, power)
            quotient = self._made("Div", [x.as_type(type), power.as_type(type)], shape, 0, greatest, type)
        else:
            name = self.tape.write("BitShift", [x.as_type(UINT64), n.as_type(UINT64)], direction="RIGHT")
            type = _type(0, greatest)
            name = Symbol(self.tape, name, shape, UINT64, 0, greatest).as_type(type)
            quotient = Symbol(self.tape, name, shape, type, 0, greatest)
        made = quotient - (known(self.tape, lift) >> n) if lift else quotient
        return Symbol(self.tape, made.name, shape, made.type, min(ends), max(ends))

    def within(self, low: int, high: int) -> Symbol:
        """`arith.within`."""
        return Symbol(self.tape, self.name, self.shape, self.type, max(low, self.low), min(high, self.high), self.value)

    def bit_length(self) -> Symbol:
        """`arith.bit_length`: how many powers of two are not greater."""
        if self.value is not None:
            return known(self.tape, arith.bit_length(self.value))
        most = min(63, self.high.bit_length())
        made = (self[..., None] >= known(self.tape, np.int64(1) << np.arange(max(1, most)))).sum(-1)
        return Symbol(self.tape, made.name, made.shape, made.type, self.low.bit_length(), most)

    def _floored(self, power: Symbol, shape: tuple[int, ...], low: int, high: int) -> Symbol:
        """``floor(x / power)`` of any x: a division towards zero, and one less where the rest is below zero."""
        names = [self.as_type(INT64), power.as_type(INT64)]
        whole = self._made("Div", names, shape, -_MOST - 1, _MOST, INT64)
        product = self._made("Mul", [whole.name, names[1]], shape, -_MOST - 1, _MOST, INT64)
        rest = self._made("Sub", [names[0], product.name], shape, -_MOST - 1, _MOST, INT64)
        made = whole - (rest < 0)
        return Symbol(self.tape, made.name, shape, INT64, low, high)

    # ------------------------------------------------------------------------------------------- questions

    def _asked(self, op: str, other: Any, function: Callable[[Any, Any], Any]) -> Symbol:
        b = self._lift(other)
        if self.value is not None and b.value is not None:
            return known(self.tape, function(self.value, b.value) * 1)
        type = _wider(INT32, self, b)
        name = self.tape.write(op, [self.as_type(type), b.as_type(type)])
        shape = _shapes(self.shape, b.shape)
        return self._made("Cast", [name], shape, 0, 1, INT32, to=INT32)

    def __lt__(self, other: Any) -> Symbol:
        return self._asked("Less", other, lambda x, y: x < y)

    def __gt__(self, other: Any) -> Symbol:
        return self._asked("Greater", other, lambda x, y: x > y)

    def __ge__(self, other: Any) -> Symbol:
        return self._asked("GreaterOrEqual", other, lambda x, y: x >= y)

    def __le__(self, other: Any) -> Symbol:
        return self._asked("LessOrEqual", other, lambda x, y: x <= y)

    def __bool__(self) -> bool:
        raise NotTraceable("what is computed depends on integers that are not there yet")

    # ------------------------------------------------------------------------------------------- places

    def products(self, other: Any) -> Symbol:
        """`arith.inner`."""
        return _products(self, self._lift(other))

    def lookup(self, entries: Any, symmetry: str) -> Symbol:
        """`arith.lookup`: one ``Gather`` in all values of the table."""
        entries = self._lift(entries)
        if entries.value is None:
            raise NotTraceable("a table is known")
        values = self.tape.table(entries.value, symmetry).astype(np.int32)
        name = self.tape.write("Gather", [self.tape.constant(values), self.name], axis=0)
        return Symbol(self.tape, name, self.shape, INT32, int(values.min()), int(values.max()))

    def __getitem__(self, at: Any) -> Symbol:
        if isinstance(at, Symbol):
            name = self.tape.write("Gather", [self.as_type(self.type), at.name], axis=0)
            return Symbol(self.tape, name, at.shape + self.shape[1:], self.type, self.low, self.high)
        if self.value is not None:
            return known(self.tape, self.value[at])
        at = at if isinstance(at, tuple) else (at,)
        axis = 0
        if at[0] is Ellipsis:
            at = at[1:]
            axis = len(self.shape) - sum(a is not None for a in at)
        made = self
        for part in at:
            made = made._at(axis, part)
            axis += not isinstance(part, int)
        return made

    def _at(self, axis: int, part: Any) -> Symbol:
        """One axis taken, cut, or put in."""
        if part is None:
            shape = (*self.shape[:axis], 1, *self.shape[axis:])
            return self._moved("Unsqueeze", [self.tape.constant(np.array([axis]))], shape)
        length = self.shape[axis]
        if isinstance(part, int):
            shape = self.shape[:axis] + self.shape[axis + 1:]
            if length == 1:
                return self._moved("Squeeze", [self.tape.constant(np.array([axis]))], shape)
            return self._moved("Gather", [self.tape.constant(np.array(part % length))], shape, axis=axis)
        if part == slice(None):
            return self
        if not isinstance(part, slice) or length == ANY:
            raise NotTraceable(f"a symbol taken at {part!r}")
        start, stop, step = part.indices(length)
        cut = len(range(start, stop, step))
        if cut == length and step == 1:
            return self
        bounds = (start, stop if stop >= 0 else -length - 1, axis, step)
        shape = (*self.shape[:axis], cut, *self.shape[axis + 1:])
        return self._moved("Slice", [self.tape.constant(np.array([v])) for v in bounds], shape)

    def _moved(self, op: str, more: Sequence[str], shape: tuple[int, ...], **attributes: Any) -> Symbol:
        """The same integers in other places."""
        return self._made(op, [self.as_type(self.type), *more], shape, self.low, self.high, self.type, **attributes)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Symbol]:
        if self.shape[0] == ANY:
            raise NotTraceable("steps whose number is not known")
        return (self[i] for i in range(self.shape[0]))

    def flip(self, axis: int) -> Symbol:
        """Backwards along an axis whose length is known."""
        return self._at(axis, slice(None, None, -1))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def reshape(self, *shape: int) -> Symbol:
        """With the batch as an axis of its own, or within the one that is -1."""
        if self.value is not None:
            return known(self.tape, self.value.reshape(shape))
        sizes = list(shape)
        open = [i for i, n in enumerate(sizes) if n == -1 and not isinstance(n, _Any)]
        if open:
            alone = (ANY in sizes) or ANY not in self.shape     # then the rest is known
            rest = math.prod(n for n in self.shape if n != ANY) // math.prod(n for n in sizes if n != -1)
            sizes[open[0]] = rest if alone else ANY
        return self._moved("Reshape", [self.tape.constant(np.array(sizes, np.int64))], tuple(sizes))

    def swapaxes(self, a: int, b: int) -> Symbol:
        order = list(range(len(self.shape)))
        if self.value is not None:
            return known(self.tape, self.value.swapaxes(a, b))
        order[a], order[b] = order[b], order[a]
        return self._moved("Transpose", [], tuple(self.shape[i] for i in order), perm=order)

    @property
    def T(self) -> Symbol:
        return self.swapaxes(0, 1)

    def argsort(self, axis: int) -> Symbol:
        """Where the least of the last axis is, and so on; none stands there twice."""
        if axis != -1 or self.shape[-1] == ANY:
            raise NotTraceable("only a last axis of known length is sorted")
        name = self.tape.write("TopK", [self.name, self.tape.constant(np.array([self.shape[-1]]))], outputs=2, axis=-1,
                               largest=0)
        return Symbol(self.tape, name, self.shape, INT64, 0, self.shape[-1] - 1)

    def taken(self, order: Symbol, axis: int) -> Symbol:
        """``np.take_along_axis`` of an order of as many axes, 1 long where all are taken alike."""
        long = [n if m == 1 else 1 for n, m in zip(self.shape, order.shape, strict=True)]
        at = self.tape.write("Expand", [order.as_type(INT64), self.tape.constant(np.array(long, np.int64))])
        shape = _shapes(tuple(long), order.shape)
        return self._moved("GatherElements", [at], shape, axis=axis)

    def windows(self, width: int) -> Symbol:
        """``np.lib.stride_tricks.sliding_window_view`` along the first axis."""
        each = [self[i:i + width] for i in range(self.shape[0] - width + 1)]
        last = [*range(1, self.ndim), 0]
        turned = [x._moved("Transpose", [], tuple(x.shape[i] for i in last), perm=last) for x in each]
        return joined([x._at(0, None) for x in turned], 0)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Symbol:
        """What operators ask of whatever is not torch."""
        if function is np.concatenate:
            return joined([self._lift(p) for p in args[0]], args[1])
        if function is np.stack:
            return joined([self._lift(p)._at(0, None) for p in args[0]], 0)
        if function is np.take_along_axis:
            return self._lift(args[0]).taken(self._lift(args[1]), args[2])
        if function is np.lib.stride_tricks.sliding_window_view and args[2] == 0:
            return self._lift(args[0]).windows(args[1])
        raise NotTraceable(f"{function.__name__} of symbols")


def _wider(type: int, *symbols: Symbol) -> int:
    """The wider of ``type`` and of those that symbols already have: to widen costs a node, to narrow another."""
    types = [type, *(s.type for s in symbols if s.value is None)]
    return INT64 if INT64 in types else INT32


def joined(parts: Sequence[Symbol], axis: int) -> Symbol:
    """Side by side along an axis."""
    first, axis = parts[0], axis % len(parts[0].shape)
    if len(parts) == 1:
        return first
    if all(p.value is not None for p in parts):
        return known(first.tape, np.concatenate([p.value for p in parts], axis))
    low, high = min(p.low for p in parts), max(p.high for p in parts)
    type = _wider(INT32, *parts)
    shape = (*first.shape[:axis], sum(p.shape[axis] for p in parts), *first.shape[axis + 1:])
    return first._made("Concat", [p.as_type(type) for p in parts], shape, low, high, type, axis=axis)


def known(tape: Tape, value: Any) -> Symbol:
    """Integers that are there already."""
    array = np.asarray(value, np.int64)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    return Symbol(tape, "", array.shape, _type(low, high), low, high, array)


def _power(tape: Tape, n: Symbol) -> Symbol:
    """2^n."""
    if n.value is not None:
        return known(tape, np.int64(1) << n.value)
    made = known(tape, np.int64(1) << np.arange(_MOST_SHIFT + 1))[n]
    low, high = (1 << max(0, min(s, _MOST_SHIFT)) for s in (n.low, n.high))
    return Symbol(tape, made.name, made.shape, made.type, low, high)


# ------------------------------------------------------------------------------------------------------------ products

def _products(x: Symbol, y: Symbol) -> Symbol:
    """`arith.inner`: x [..., C, D], y [..., R, D] -> [..., C, R], byte by byte."""
    turned = y.swapaxes(-1, -2)
    most = x.shape[-1] * max(-x.low, x.high) * max(-y.low, y.high)
    total: Symbol | None = None
    for a, left in _bytes(x):
        for b, right in _bytes(turned):
            zeros = [128 if s.low < 0 else 0 for s in (a, b)]
            bytes = [(s + zero).as_type(UINT8) for s, zero in zip((a, b), zeros, strict=True)]
            name = x.tape.write("MatMulInteger", [*bytes, *(x.tape.constant(np.array(z, np.uint8)) for z in zeros)])
            shape = (*_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
            each = a.shape[-1] * max(-a.low, a.high) * max(-b.low, b.high)
            made = Symbol(x.tape, name, shape, INT32, -each, each)
            made = made * (1 << (left + right)) if left + right else made
            total = made if total is None else total + made
    assert total is not None
    return Symbol(x.tape, total.name, total.shape, total.type, max(-most, total.low), min(most, total.high))


@frozen(eq=False)
class Kernel:
    """A known matrix [rows, columns] that multiplies symbols (`arith.matmul`)."""

    weight: NDArray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def product(self, x: Any) -> Any:
        """``x @ weight.T``: a product of bytes for each byte of x and of the weight.  x [..., columns]."""
        if not isinstance(x, Symbol):
            return x @ self.weight.T
        made = [_multiplied(part, bits, w, shift) for part, bits in _bytes(x) for w, shift in _known_bytes(self.weight)]
        total = made[0]
        for m in made[1:]:
            total = total + m
        most = int(np.abs(self.weight.astype(np.int64)).sum(-1).max()) * max(-x.low, x.high)
        return Symbol(x.tape, total.name, total.shape, total.type, -most, most)


def _bytes(x: Symbol) -> list[tuple[Symbol, int]]:
    """x as bytes: (a symbol of 8 bits, signed or not, and by how many bits it is shifted)."""
    if (x.low >= -128 and x.high <= 127) or (x.low >= 0 and x.high <= 255):
        return [(x, 0)]
    if x.low < -(1 << 15) or x.high >= 1 << 15:
        raise NotTraceable("products of more than 16 bits")
    return [(x >> 8, 8), (x & 255, 0)]


def _known_bytes(weight: NDArray) -> list[tuple[NDArray, int]]:
    wide = weight.astype(np.int64)
    byte = wide.min(initial=0) >= -128 and wide.max(initial=0) <= 127
    return [(wide, 0)] if byte else [(wide >> 8, 8), (wide & 255, 0)]


def _multiplied(x: Symbol, shift: int, weight: NDArray, weight_shift: int) -> Symbol:
    """One product of bytes, shifted left by both."""
    zero = 128 if x.low < 0 else 0
    a = (x + zero).as_type(UINT8)
    tape = x.tape
    signed = np.abs(weight).max(initial=0) <= _EXACT_WEIGHT
    stored = weight.T.astype(np.int8) if signed else (weight.T + (128 if weight.min() < 0 else 0)).astype(np.uint8)
    zeros = [np.array(zero, np.uint8), np.array(0 if signed or weight.min() >= 0 else 128, stored.dtype)]
    most = int(np.abs(weight).sum(-1).max(initial=0)) * max(-x.low, x.high)
    if most >= 1 << 31:
        raise NotTraceable(f"a sum of products of {weight.shape[1]} bytes, which does not fit 32 bits")
    name = tape.write("MatMulInteger", [a, tape.constant(stored), *map(tape.constant, zeros)])
    made = Symbol(tape, name, (*x.shape[:-1], weight.shape[0]), INT32, -most, most)
    return made * (1 << (shift + weight_shift)) if shift + weight_shift else made
