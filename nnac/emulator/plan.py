"""The data flow of an entry, followed once in program order: the first half of a translation.

The program is static, so its data flow is known: every byte that an instruction reads was written by a known instruction, came from
DRAM (a constant), or stood in A before the entry began.  `Trace` gives every result a place of its own in a virtual memory V (so that
buffers that are used again and again no longer order anything), as `Node`s that `nnac.emulator.steps` joins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from nnac import arith
from nnac.emulator.memory import Memories
from nnac.isa import ADD, AMAX, CPY, FIL, GTH, HALT, HOST, LDA, LDT, LDW, LN, LSTM, LUT, MUL, MVM, PROF, RQ, SMAX, STA, TAB, Instruction
from nnac.isa.dtypes import ADD_DTYPE, LN_DTYPE, LSTM_DTYPE, LUT_DTYPE, MUL_DTYPE, RQ_DTYPE, RQ_HEADER_DTYPE, RQ_WIDE_DTYPE, SMAX_DTYPE
from nnac.isa.vector import LUT_BYTES, RQ_HEADER

_KINDS = {1: np.int8, 2: np.int16, 4: np.int32}


class Untranslatable(Exception):
    """Something that only the interpreter does."""


@define(eq=False)
class View:
    """V, seen as bytes and as integers of every size."""

    bytes: NDArray
    ints: dict[int, NDArray] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ints = {size: self.bytes.view(kind) for size, kind in _KINDS.items()}


@define(eq=False)
class Gather:
    """Integers of ``size`` bytes at places of V: shape [batch, *index.shape], int64."""

    index: NDArray                     # byte addresses, first provisional, then final
    size: int
    _slice: slice | None = None

    def settle(self, final: NDArray) -> None:
        at = final[self.index]
        if (at % self.size).any():
            raise Untranslatable("an operand that is not aligned")
        self.index = at // self.size
        flat = self.index.reshape(-1)
        if len(flat) and (np.diff(flat) == 1).all():
            self._slice = slice(int(flat[0]), int(flat[-1]) + 1)

    def raw(self, v: View) -> NDArray:
        data = v.ints[self.size]
        if self._slice is not None:
            return data[:, self._slice].reshape(len(data), *self.index.shape)
        return data[:, self.index]

    def __call__(self, v: View) -> NDArray:
        return self.raw(v).astype(np.int64)


@define(eq=False)
class Node:
    """One result (or two) of one instruction.  ``outputs``: provisional places, arrays of byte addresses of elements, one per output."""

    key: tuple
    depth: int
    inputs: tuple[NDArray, ...]
    outputs: tuple[NDArray, ...]
    data: Any = None


@define(eq=False)
class Step:
    """One array operation of a plan: ``run(view)`` fills ``places`` (byte address, size) in V."""

    kind: str
    gathers: list[Gather]
    sizes: tuple[int, ...]
    layouts: list[NDArray]                 # per output: provisional element addresses, in the order in which ``compute`` gives them
    compute: Callable[..., tuple[NDArray, ...]]
    places: list[int] = field(factory=list)

    def run(self, v: View) -> None:
        for out, size, at in zip(self.compute(v, *self.gathers), self.sizes, self.places, strict=True):
            flat = out.reshape(len(out), -1)
            first = at // size
            v.ints[size][:, first: first + flat.shape[1]] = flat


# ---------------------------------------------------------------------------------------------------------------- tracing


class Trace:
    """Where every byte of A, every accumulator and every weight word comes from, while walking the code in program order."""

    def __init__(self, m: Memories) -> None:
        self.m, self.config = m, m.config
        self.n = m.config.a_bytes                                    # provisional addresses given out; the first are A at the start
        self.at = np.arange(self.n)
        self.depth = np.zeros(2 * self.n, np.int32)
        self.constant = np.zeros(2 * self.n, np.int16)               # value + 1 of constant bytes; 0: not constant
        self.assumed = np.zeros(self.n, bool)                        # bytes of A at the start whose values are built in
        self.nodes: list[Node] = []
        self.w, self.index, self.tag = m.w.copy(), m.index.copy(), m.tag.copy()
        self.word_inside = np.zeros(len(m.w), bool)
        self.words_assumed = np.zeros(len(m.w), bool)
        self.headers = list(m.headers)
        self.headers_assumed: set[int] = set()
        self.headers_inside: set[int] = set()
        self.luts = m.luts.copy()
        self.luts_assumed: set[int] = set()
        self.luts_inside: set[int] = set()
        self.acc: dict[tuple[int, int], list[tuple]] = {}
        self.lut_full: dict[bytes, NDArray] = {}

    # ---- places

    def new(self, size: int) -> int:
        first, self.n = self.n, self.n + -(-size // 8) * 8
        if self.n > len(self.depth):
            for name in ("depth", "constant"):
                old = getattr(self, name)
                grown = np.zeros(2 * self.n, old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        return first

    def fetch(self, address: int, n: int, size: int) -> NDArray:
        """Provisional addresses of ``n`` elements of ``size`` bytes at A[address]."""
        places = self.at[address: address + n * size].reshape(n, size)
        if size > 1 and (np.diff(places, axis=1) != 1).any():
            raise Untranslatable("an integer put together from pieces")
        return places[:, 0].copy()

    def constants(self, address: int, size: int) -> NDArray:
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

    def records(self, address: int, n: int, kind: np.dtype) -> NDArray:
        return self.constants(address, n * kind.itemsize).view(kind)

    def put(self, address: int, places: NDArray) -> None:
        self.at[address: address + len(places)] = places

    def put_constant(self, address: int, data: NDArray) -> None:
        first = self.new(len(data))
        self.constant[first: first + len(data)] = data.astype(np.int16) + 1
        self.put(address, np.arange(first, first + len(data)))

    def node(self, key: tuple, inputs: Sequence[NDArray], outputs: Sequence[tuple[int, int, int]], data: Any = None) -> None:
        """Add a node.  outputs: (A address, elements, bytes of an element)."""
        depth = 1 + max((int(self.depth[i].max()) for i in inputs if i.size), default=0)
        places = []
        for address, n, size in outputs:
            first = self.new(n * size)
            self.depth[first: first + n * size] = depth
            places.append(np.arange(first, first + n * size, size))
            self.put(address, np.arange(first, first + n * size))
        self.nodes.append(Node(key, depth, tuple(inputs), tuple(places), data))

    def table(self, slot: int, symmetry: str) -> NDArray:
        """All 65,536 values of a look-up table, by x + 32768."""
        if slot >= len(self.luts):
            raise Untranslatable("a LUT slot that does not exist")
        if slot not in self.luts_inside:
            self.luts_assumed.add(slot)
        key = self.luts[slot].tobytes() + symmetry.encode()
        if key not in self.lut_full:
            self.lut_full[key] = arith.lookup(self.luts[slot], symmetry, np.arange(-32768, 32768))
        return self.lut_full[key]

    # ---- instructions

    def ldt(self, i: LDT) -> None:
        self.headers[i.table] = self.m.streams.header(i)
        self.headers_inside.add(i.table)

    def ldw(self, i: LDW) -> None:
        if i.table not in self.headers_inside:
            self.headers_assumed.add(i.table)
        words, index = self.m.streams.tile(self.headers[i.table], i)
        tag = self.m.streams.tag(self.headers[i.table], i)
        part = slice(i.word, i.word + i.live)
        self.w[part], self.index[part], self.tag[part] = words, index, tag
        self.word_inside[part] = True

    def lda(self, i: LDA) -> None:
        first, last = self.m.scratch_range
        if i.dram + i.bytes > first and i.dram < last:
            raise Untranslatable("reads what STA may have written")
        self.put_constant(i.dst, self.m.dram_bytes(i.dram, i.bytes, 0))

    def mvm(self, i: MVM) -> None:
        self.m.check_mvm(i)
        part = slice(i.word, i.word + i.words)
        self.words_assumed[part] |= ~self.word_inside[part]
        words, index = self.w[part], self.index[part].astype(np.int64)
        if i.weights == 1:
            words = np.where((index & 1)[:, None] == 1, words.astype(np.int16) << 8, words.view(np.uint8)).astype(np.int16)
            index = index >> 1
        self.m.check_index(i, int(index.max(initial=0)))
        narrow = {2: 4, 3: 2, 4: 1}.get(i.weights)
        if narrow and (words.min(initial=0) < arith.limits(narrow)[0] or words.max(initial=0) > arith.limits(narrow)[1]):
            raise Untranslatable("weights that do not fit their width")
        if i.weights == 1:
            dense: NDArray = np.zeros((i.span, self.config.lanes), np.int16)
            np.add.at(dense, index, words)
        elif len(index) == i.span and (np.diff(index) == 1).all():
            dense = words.copy()
        else:
            dense = np.zeros((i.span, self.config.lanes), np.int8)
            dense[index] = words
        for c in range(i.columns):
            x = self.fetch(i.act + c * i.stride, i.span, 2 if i.act16 else 1)
            terms = [] if i.clear else self.acc.get((i.bank, c))
            if terms is None:
                raise Untranslatable("accumulators that another entry filled")
            self.acc[i.bank, c] = [*terms, (dense, x, i.act16)]

    def rq(self, i: RQ) -> None:
        columns = [self.acc.get((i.bank, c), []) for c in range(i.columns)]
        if not all(columns):
            raise Untranslatable("accumulators that another entry filled")
        sizes = {t[2] for terms in columns for t in terms}
        if len(sizes) > 1:
            raise Untranslatable("an accumulator of int8 and int16 activations")
        weights = [tuple(id(t[0]) for t in terms) for terms in columns]
        head = self.records(i.params, 1, RQ_HEADER_DTYPE)[0]
        rows = self.records(i.params + RQ_HEADER, i.rows, RQ_WIDE_DTYPE if i.wide else RQ_DTYPE)
        if i.out != 2:
            self.m.check_width(int(head["bits"]), 16 if i.out == 1 else 8)
        # columns of the same weights are computed together; others one by one
        together = [list(range(i.columns))] if len(set(weights)) == 1 else [[c] for c in range(i.columns)]
        for group in together:
            x = np.stack([np.concatenate([t[1] for t in columns[c]]) for c in group])
            inputs = [x]
            if i.add:
                inputs.append(np.stack([self.fetch(i.addend + c * i.stride, i.rows, 4 if i.add == 1 else 2) for c in group]))
            key = ("rq", x.shape, x.tobytes(), sizes.copy().pop(), i.out, i.add, i.wide, i.double, int(head["zero_point"]), int(head["bits"]))
            outputs = [(i.dst + c * i.stride, i.rows, 1 << i.out) for c in group]
            self.node(key, inputs, outputs, (i, rows, [t[0][:, : i.rows] for t in columns[group[0]]]))

    def lstm(self, i: LSTM) -> None:
        p = self.records(i.params, 1, LSTM_DTYPE)[0]
        self.m.check_width(int(p["bits"]), 16 if i.out16 else 8)
        size = 1 << i.out16
        inputs = [self.fetch(i.pre, 4 * i.units, 2).reshape(4, i.units), self.fetch(i.cell, i.units, 2)]
        tables = tuple(self.table(int(p[name]), symmetry) for name, symmetry in (
            ("sigmoid", "complement"), ("tanh", "odd"), ("tanh_cell", "odd")))
        key = ("lstm", p.tobytes(), i.out16, *(id(t) for t in tables))
        self.node(key, inputs, [(i.cell, i.units, 2), (i.dst, i.units, size)], (p, tables))

    def binary(self, i: ADD | MUL) -> None:
        kind = ADD_DTYPE if isinstance(i, ADD) else MUL_DTYPE
        p = self.records(i.params, 1, kind)[0]
        self.m.check_width(int(p["bits"]), 16 if i.out16 else 8)
        inputs = [self.fetch(i.a, i.n, 1 << i.a16), self.fetch(i.b, i.n, 1 << i.b16)]
        self.node((type(i).__name__, p.tobytes(), i.a16, i.b16, i.out16), inputs, [(i.dst, i.n, 1 << i.out16)], (i, p))

    def lut(self, i: LUT) -> None:
        p = self.records(i.params, 1, LUT_DTYPE)[0]
        bits = self.m.check_width(int(p["bits"]), 16 if i.out16 else 8)
        table = self.table(int(p["slot"]), "complement" if p["symmetry"] else "odd")
        both = arith.requantise(table, int(p["multiplier"]), int(p["shift"]), int(p["zero_point"]), bits)
        self.node(("lut", both.tobytes(), i.out16), [self.fetch(i.src, i.n, 2)], [(i.dst, i.n, 1 << i.out16)], both)

    def ln(self, i: LN) -> None:
        p = self.records(i.params, 1, LN_DTYPE)[0]
        self.m.check_width(int(p["bits"]), 16 if i.out16 else 8)
        rsqrt, gain, bias, _ = (i.params + at for at in i.layout())
        data = (self.records(gain, i.n, np.dtype("<i2")).astype(np.int64), self.records(bias, i.n, np.dtype("<i4")).astype(np.int64),
                self.records(rsqrt, arith.RSQRT_SEGMENTS + 1, np.dtype("<u2")).astype(np.int64))
        key = ("ln", p.tobytes(), i.n, i.a16, i.out16, *(d.tobytes() for d in data))
        self.node(key, [self.fetch(i.src, i.n, 1 << i.a16)], [(i.dst, i.n, 1 << i.out16)], (p, data))

    def smax(self, i: SMAX) -> None:
        p = self.records(i.params, 1, SMAX_DTYPE)[0]
        self.m.check_width(int(p["bits"]), 16 if i.out16 else 8)
        rsqrt = self.records(i.params + SMAX_DTYPE.itemsize, arith.RSQRT_SEGMENTS + 1, np.dtype("<u2")).astype(np.int64)
        self.table(int(p["slot"]), "odd")                                        # that it is there, and which
        exp = self.luts[int(p["slot"])].copy()
        key = ("smax", p.tobytes(), i.n, i.a16, i.out16, rsqrt.tobytes(), exp.tobytes())
        self.node(key, [self.fetch(i.src, i.n, 1 << i.a16)], [(i.dst, i.n, 1 << i.out16)], (p, exp, rsqrt))

    def tab(self, i: TAB) -> None:
        self.luts[i.slot] = self.records(i.src, LUT_BYTES // 2, np.dtype("<i2"))
        self.luts_inside.add(i.slot)

    def cpy(self, i: CPY) -> None:
        for k in range(i.count):
            self.put(i.dst + k * i.dstride, self.at[i.src + k * i.sstride: i.src + k * i.sstride + i.bytes].copy())

    def walk(self, code: Sequence[Instruction]) -> None:
        for i in code:
            if isinstance(i, (HALT, PROF)):
                continue
            if isinstance(i, (STA, HOST)):
                raise Untranslatable(f"{type(i).__name__}")
            if isinstance(i, FIL):
                self.put_constant(i.dst, np.full(i.bytes // 4, i.value, "<u4").view(np.uint8))
            elif isinstance(i, AMAX):
                self.node(("amax", i.n, i.a16), [self.fetch(i.src, i.n, 1 << i.a16)], [(i.dst, 2, 4)])
            elif isinstance(i, GTH):
                self.node(("gth", i.dram, i.pitch, i.bytes), [self.fetch(i.index, 1, 4)], [(i.dst, i.bytes, 1)], i)
            else:
                _WALK[type(i)](self, i)


_WALK: dict[type[Instruction], Callable[[Trace, Any], None]] = {
    LDT: Trace.ldt, LDW: Trace.ldw, LDA: Trace.lda, MVM: Trace.mvm, RQ: Trace.rq, LSTM: Trace.lstm, ADD: Trace.binary, MUL: Trace.binary,
    LUT: Trace.lut, LN: Trace.ln, SMAX: Trace.smax, TAB: Trace.tab, CPY: Trace.cpy}
