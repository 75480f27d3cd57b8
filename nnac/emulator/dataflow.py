"""The data flow of an entry, followed once in program order: the first half of a translation.

The program is static, so its data flow is known: every byte that an instruction reads was written by a known
instruction, came from DRAM (a constant), or stood in A before the entry began.  `Dataflow` is a memory
(`nnac.isa.base.Memory`) in which instructions are executed like in any other, but which holds, instead of values, where
each value comes from.  It gives every result a place of its own in a virtual memory V (so that buffers that are used
again and again no longer order anything), as `Result`s that `nnac.emulator.translation` joins.  What an instruction
asks for that it has not, only the interpreter can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from attrs import define
from numpy.typing import NDArray

from nnac import arith
from nnac.emulator.errors import AddressError, MachineError
from nnac.emulator.memory import Memories, check_table
from nnac.isa import LDT, LDW, MVM, Instruction
from nnac.isa.base import BadData, Constants
from nnac.isa.operands import Accumulators, Integers, Operand, Words


class Untranslatable(Exception):
    """Something that only the interpreter does.  ``at``: the instruction, if it is one."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


@define(eq=False)
class Product:
    """One MVM into one column: dense weights [span, lanes] times the activations at provisional addresses [span]."""

    weights: NDArray
    activations: NDArray
    size: int                          # bytes of an activation


@define(eq=False)
class Result:
    """What one instruction computes.  ``key``: results of equal key and depth may be computed together.

    inputs, outputs   provisional byte addresses of the integers, in the shape of the operand
    products          for an instruction that reads accumulators: the products in each column, all of the same weights
    """

    instruction: Instruction
    constants: Constants
    key: tuple
    depth: int
    inputs: tuple[NDArray, ...]
    input_sizes: tuple[int, ...]
    outputs: tuple[NDArray, ...]
    output_sizes: tuple[int, ...]
    products: tuple[Product, ...] = ()


class Dataflow:
    """Where every byte of A, every accumulator and every weight word comes from."""

    def __init__(self, m: Memories) -> None:
        self.m, self.config = m, m.config
        # provisional addresses given out; the first are A at the start
        self.n = m.config.a_bytes
        self.at = np.arange(self.n)
        self.depth = np.zeros(2 * self.n, np.int32)
        self.constant = np.zeros(2 * self.n, np.int16)               # value + 1 of constant bytes; 0: not constant
        self.assumed = np.zeros(self.n, bool)                        # bytes of A at the start whose values are built in
        self.results: list[Result] = []
        self.w, self.index, self.tag = m.w.copy(), m.index.copy(), m.tag.copy()
        self.word_inside = np.zeros(len(m.w), bool)
        self.words_assumed = np.zeros(len(m.w), bool)
        self.headers = list(m.headers)
        self.headers_assumed: set[int] = set()
        self.headers_inside: set[int] = set()
        self.luts = m.luts.copy()
        self.luts_assumed: set[int] = set()
        self.luts_inside: set[int] = set()
        self.acc: dict[tuple[int, int], list[Product]] = {}
        self.lut_full: dict[bytes, NDArray] = {}

    def walk(self, code: Sequence[Instruction]) -> None:
        """Follow the instructions in program order.  Untranslatable names the one at which it ends."""
        for at, i in enumerate(code):
            try:
                i.execute(self)
            except Untranslatable as reason:
                reason.at = at
                raise
            except (BadData, MachineError) as error:                 # the interpreter says it better
                raise Untranslatable(str(error), at) from None

    def __getattr__(self, name: str) -> NoReturn:
        raise Untranslatable(f"`{name}`, which only the interpreter has")

    # ---- places

    def new(self, size: int) -> int:
        """Provisional addresses of ``size`` bytes."""
        first, self.n = self.n, self.n + -(-size // 8) * 8
        if self.n > len(self.depth):
            for name in ("depth", "constant"):
                old = getattr(self, name)
                grown = np.zeros(2 * self.n, old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        return first

    def fetch(self, operand: Operand) -> NDArray:
        """Provisional addresses of integers in A, in the shape of the operand."""
        assert isinstance(operand, Integers), operand
        n, size = operand.n, operand.size
        vectors = []
        for first in operand.places:
            places = self.at[first: first + n * size].reshape(n, size)
            if size > 1 and (places[:, 1:] - places[:, :1] != np.arange(1, size)).any():
                raise Untranslatable("an integer put together from pieces")
            vectors.append(places[:, 0].copy())
        return np.stack(vectors) if operand.rows else vectors[0]

    def put(self, address: int, places: NDArray) -> None:
        self.at[address: address + len(places)] = places

    def put_constant(self, operand: Operand, values: NDArray) -> None:
        """Values that do not depend on data, int64 in the shape of the operand or uint8 [bytes]."""
        assert isinstance(operand, Integers), operand
        data = np.ascontiguousarray(np.broadcast_to(values, operand.shape).astype(f"<i{operand.size}")).view(np.uint8)
        for address, vector in zip(operand.places, data.reshape(len(operand.places), -1), strict=True):
            first = self.new(len(vector))
            self.constant[first: first + len(vector)] = vector.astype(np.int16) + 1
            self.put(address, np.arange(first, first + len(vector)))

    # ---- what instructions ask for

    def apply(self, i: Instruction) -> None:
        """Note what an instruction computes, as constants, a move of bytes, a product or a result."""
        inputs, outputs, constants = i.inputs(self.config), i.outputs(self.config), i.constants(self)
        if any(isinstance(o, Accumulators) for o in outputs):
            self._product(i, constants, inputs)
        elif not inputs:
            for operand, values in zip(outputs, i.compute(constants), strict=True):
                self.put_constant(operand, values)
        elif i.moves:
            moved = [[self.at[first: first + o.n * o.size].copy() for first in o.places] for o in inputs
                     if isinstance(o, Integers)]
            for operand, vectors in zip(outputs, moved, strict=True):
                assert isinstance(operand, Integers), operand
                for first, places in zip(operand.places, vectors, strict=True):
                    self.put(first, places)
        elif isinstance(inputs[0], Accumulators):
            self._of_products(i, constants, inputs[0], inputs[1:], outputs)
        else:
            self._result(i, constants, [self.fetch(o) for o in inputs], inputs, outputs)

    def _result(self, i: Instruction, constants: Constants, places: Sequence[NDArray], inputs: Sequence[Operand],
                outputs: Sequence[Operand],
                rows: slice | None = None, products: tuple[Product, ...] = (), key: tuple = ()) -> None:
        """Add a result.  ``rows``: only these vectors of each operand."""
        read = [p.activations for p in products]
        depth = 1 + max([int(self.depth[p].max()) for p in (*places, *read) if p.size], default=0)
        sizes = tuple(o.size for o in inputs if isinstance(o, Integers))
        made = []
        for operand in outputs:
            assert isinstance(operand, Integers), operand
            where, size = operand.places[rows] if rows else operand.places, operand.n * operand.size
            vectors = []
            for address in where:
                first = self.new(size)
                self.depth[first: first + size] = depth
                self.put(address, np.arange(first, first + size))
                vectors.append(np.arange(first, first + size, operand.size))
            made.append(np.stack(vectors) if operand.rows else vectors[0])
        output_sizes = tuple(o.size for o in outputs if isinstance(o, Integers))
        shapes = tuple(p.shape[:-1] if i.by_element else p.shape for p in (*places, *made))
        whole = (type(i), shapes, sizes, output_sizes, key, tuple((k, _same(v)) for k, v in constants.items()
                                                                  if k not in i.each))
        self.results.append(Result(i, constants, whole, depth, tuple(places), sizes, tuple(made), output_sizes,
                                   products))

    def _product(self, i: Instruction, constants: Constants, inputs: Sequence[Operand]) -> None:
        """A product is kept as its weights and where its activations are; whoever reads the accumulators makes a result
        of it."""
        if not isinstance(i, MVM):
            raise Untranslatable(f"accumulators of {type(i).__name__}")
        operand, words = inputs[:2]
        assert isinstance(operand, Integers) and isinstance(words, Words), i
        part = slice(words.first, words.first + words.n)
        self.words_assumed[part] |= ~self.word_inside[part]
        values, index = i.values(constants, (self.w[part], self.index[part]))
        if values.dtype == np.int16:                                 # the two bytes of a weight are two words
            dense: NDArray = np.zeros((i.span, self.config.lanes), np.int16)
            np.add.at(dense, index, values)
        elif len(index) == i.span and (np.diff(index) == 1).all():
            dense = values.copy()
        else:
            dense = np.zeros((i.span, self.config.lanes), np.int8)
            dense[index] = values
        for c, x in enumerate(self.fetch(operand)):
            before = [] if i.clear else self.acc.get((i.bank, c))
            if before is None:
                raise Untranslatable("accumulators that another entry filled")
            self.acc[i.bank, c] = [*before, Product(dense, x, operand.size)]

    def _of_products(self, i: Instruction, constants: Constants, sums: Accumulators, others: Sequence[Operand],
                     outputs: Sequence[Operand]) -> None:
        """An instruction that reads accumulators: columns of the same weights are computed together, others one by
        one."""
        columns = [self.acc.get((sums.bank, c), []) for c in range(sums.columns)]
        if not all(columns):
            raise Untranslatable("accumulators that another entry filled")
        sizes = {p.size for column in columns for p in column}
        if len(sizes) > 1:
            raise Untranslatable("an accumulator of int8 and int16 activations")
        same = len({tuple(id(p.weights) for p in column) for column in columns}) == 1
        fetched = [self.fetch(o) for o in others]
        for first, end in [(0, sums.columns)] if same else [(c, c + 1) for c in range(sums.columns)]:
            x = np.stack([np.concatenate([p.activations for p in column]) for column in columns[first:end]])
            products = (Product(np.concatenate([p.weights[:, : sums.lanes] for p in columns[first]]), x,
                                sizes.copy().pop()),)
            self._result(i, constants, [p[first:end] for p in fetched], others, outputs, slice(first, end), products,
                         (x.shape, x.tobytes(), products[0].size))

    def parameters(self, address: int, size: int) -> NDArray:
        """Bytes that must be known now: constants, or bytes of A at the start, which are then assumed to stay."""
        places = self.at[address: address + size]
        values = self.constant[places]
        start = places < self.config.a_bytes
        if (values[~start] == 0).any():
            raise Untranslatable("parameters that are computed")
        if start.any():
            now = self.m.a[:, places[start]]
            if (now != now[0]).any():
                raise Untranslatable("parameters that differ between utterances")
            self.assumed[places[start]] = True
            out = np.empty(size, np.uint8)
            out[start], out[~start] = now[0], values[~start] - 1
            return out
        return (values - 1).astype(np.uint8)

    def lut(self, slot: int, symmetry: str) -> NDArray:
        """All 65,536 values of a look-up table, those of negative x at the end, as `arith.lookup` takes them too; or
        its ``entries``."""
        if slot >= len(self.luts):
            raise Untranslatable("a LUT slot that does not exist")
        if slot not in self.luts_inside:
            self.luts_assumed.add(slot)
        check_table(slot, symmetry, self.luts[slot])
        if symmetry == "entries":
            return self.luts[slot].copy()
        key = self.luts[slot].tobytes() + symmetry.encode()
        if key not in self.lut_full:
            self.lut_full[key] = arith.lookup(self.luts[slot], symmetry, all_integers(2))
            self.lut_full[key].flags.writeable = False
        return self.lut_full[key]

    def load_lut(self, slot: int, entries: NDArray) -> None:
        self.luts[slot] = entries
        self.luts_inside.add(slot)

    def load_decoder_table(self, i: LDT) -> None:
        self.m.check_stream(i)
        self.headers[i.table] = self.m.streams.header(i)
        self.headers_inside.add(i.table)

    def load_tile(self, i: LDW) -> None:
        self.m.check_stream(i)
        if i.table not in self.headers_inside:
            self.headers_assumed.add(i.table)
        words, index = self.m.streams.tile(self.headers[i.table], i)
        tag = self.m.streams.tag(self.headers[i.table], i)
        part = slice(i.word, i.word + i.live)
        self.w[part], self.index[part], self.tag[part] = words, index, tag
        self.word_inside[part] = True

    def dram_bytes(self, address: int, size: int) -> NDArray:
        first, last = self.m.scratch_range
        if address + size > first and address < last:
            raise Untranslatable("reads what STA may have written")
        return self.m.dram_bytes(address, size, 0)

    def dram_rows(self, first: NDArray, size: int) -> NDArray:
        """Of the part of DRAM that the program cannot write.  Called when a translation runs, not while it is made."""
        if first.min() < 0 or int(first.max()) + size > min(len(self.m.dram), self.m.scratch_range[0]):
            raise AddressError("a row outside the table")
        return self.m.dram[first + np.arange(size)]


def all_integers(size: int) -> NDArray:
    """Every integer of ``size`` bytes, where Python's index finds it: first those from 0 up, then those from the least
    up."""
    low, high = arith.limits(8 * size)
    return np.concatenate([np.arange(high + 1), np.arange(low, 0)])


def _same(value: Any) -> Any:
    """Equal for constants that compute the same."""
    if isinstance(value, np.ndarray):
        return id(value) if not value.flags.writeable else (value.dtype.str, value.shape, value.tobytes())
    return value
