"""The second half of a translation: join the results of a data flow into steps, lay out V, run."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac.emulator.dataflow import Dataflow, Result, Untranslatable, all_integers
from nnac.emulator.image import Entry
from nnac.emulator.kernels import Matrix
from nnac.emulator.memory import Memories
from nnac.isa import Instruction
from nnac.isa.base import BadData, Constants

_KINDS = {1: np.int8, 2: np.int16, 4: np.int32}
FinalWords = tuple[int, NDArray, NDArray, NDArray]           # first word of W; words, inputs and tags from there on


@define(eq=False)
class VirtualMemory:
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

    def raw(self, v: VirtualMemory) -> NDArray:
        data = v.ints[self.size]
        if self._slice is not None:
            return data[:, self._slice].reshape(len(data), *self.index.shape)
        return data[:, self.index]

    def __call__(self, v: VirtualMemory) -> NDArray:
        return self.raw(v).astype(np.int64)


@frozen(eq=False)
class Products:
    """Sums of products as an operand: ``matrix`` times activations [columns, inputs], int64 [batch, columns, rows]."""

    matrix: Matrix
    activations: Gather
    columns: int

    def __call__(self, v: VirtualMemory) -> NDArray:
        x = self.activations.raw(v)
        return self.matrix(x.reshape(-1, x.shape[-1]).astype(np.int16)).reshape(len(x), self.columns, -1)


@frozen(eq=False)
class Tabulated:
    """The `compute` of one int8 or int16 by itself: all its values, one gather."""

    values: NDArray                    # [256] or [65536], those of negative integers at the end

    @classmethod
    def of(cls, i: Instruction, constants: Constants, size: int) -> Tabulated:
        return cls(i.compute(constants, all_integers(size)[None])[0][0])

    def __call__(self, constants: Constants, x: NDArray) -> tuple[NDArray, ...]:
        return (self.values[x],)


@define(eq=False)
class Step:
    """One array operation: ``compute(constants, *operands)`` fills ``places`` (byte addresses) in V."""

    kind: str
    compute: Any                           # Instruction.compute, or a Tabulated
    constants: Constants
    operands: list[Gather | Products]
    sizes: tuple[int, ...]
    # per output: provisional element addresses, in the order in which ``compute`` gives them
    layouts: list[NDArray]
    places: list[int] = field(factory=list)

    @property
    def gathers(self) -> list[Gather]:
        return [o.activations if isinstance(o, Products) else o for o in self.operands]

    def run(self, v: VirtualMemory) -> None:
        made = self.compute(self.constants, *(operand(v) for operand in self.operands))
        for out, size, at in zip(made, self.sizes, self.places, strict=True):
            flat = out.reshape(len(out), -1)
            first = at // size
            v.ints[size][:, first: first + flat.shape[1]] = flat


@frozen(eq=False)
class Interpreted:
    """What `translate` makes of code that it cannot translate.  ``reason``: why; ``at``: the instruction, counted from
    the first, if it is one."""

    entry: Entry
    reason: str
    at: int | None = None

    def holds(self, m: Memories) -> bool:
        """Nothing was assumed."""
        return True

    def __str__(self) -> str:
        return f"{self.entry.name}: interpreted, because of {self.reason}"


@frozen(eq=False)
class Translation:
    """What `translate` makes of code: its steps on V, what goes in and out, and what was assumed of the memories.

    live_in   bytes of A that are read as data: (first, end)
    results  what A holds at the end: (address in A, address in V, bytes)
    assumed   bytes of A that are built in: (first, end, values [1, n])
    words, word_tags  words of W that are, and their tags
    luts, headers   look-up tables and stream headers that are, by slot
    final_words, final_luts, final_headers   what W, the look-up tables and the decoder tables hold at the end
    """

    entry: Entry
    steps: list[Step]
    view: VirtualMemory
    live_in: list[tuple[int, int]]
    results: list[tuple[int, int, int]]
    assumed: list[tuple[int, int, NDArray]]
    words: NDArray
    word_tags: NDArray
    luts: dict[int, NDArray]
    headers: dict[int, bytes]
    final_words: list[FinalWords]
    final_luts: dict[int, NDArray]
    final_headers: list[bytes]
    reason: ClassVar[str] = ""

    def holds(self, m: Memories) -> bool:
        """Whether what was assumed at translation is still so."""
        return bool(all((m.a[:, first:end] == values).all() for first, end, values in self.assumed)
                    and (m.tag[self.words] == self.word_tags).all()
                    and all((m.luts[s] == t).all() for s, t in self.luts.items())
                    and all(m.headers[k] == h for k, h in self.headers.items()))

    def run(self, m: Memories) -> None:
        """The entry, once: A, W, LUTs and decoder tables afterwards are what `interpret` would leave (accumulators are
        not kept)."""
        v = self.view
        for first, end in self.live_in:
            v.bytes[:, first:end] = m.a[:, first:end]
        for step in self.steps:
            step.run(v)
        results = [v.bytes[:, src: src + n].copy() if src < m.config.a_bytes else v.bytes[:, src: src + n]
                   for _, src, n in self.results]
        for (dst, _, n), data in zip(self.results, results, strict=True):
            m.a[:, dst: dst + n] = data
        for first, words, index, tag in self.final_words:
            part = slice(first, first + len(words))
            m.w[part], m.index[part], m.tag[part] = words, index, tag
        for slot, table in self.final_luts.items():
            m.luts[slot] = table
        m.headers[:] = self.final_headers

    def __str__(self) -> str:
        return (f"{self.entry.name}: {len(self.entry.code)} instructions in {len(self.steps)} steps: "
                + ", ".join(s.kind for s in self.steps))


def build(e: Entry, flow: Dataflow) -> Translation:
    """Join the results of ``flow`` into steps, give every result its place, and note what was assumed."""
    m, steps = flow.m, []
    groups: dict[tuple, list[Result]] = {}
    for result in flow.results:
        groups.setdefault((result.depth, result.key), []).append(result)
    size = flow.config.a_bytes
    final = np.full(flow.n, -1, np.int64)
    final[: size] = np.arange(size)
    for _, results in sorted(groups.items(), key=lambda item: item[0][0]):
        step = join(results, m)
        for places, width in zip(step.layouts, step.sizes, strict=True):
            flat = places.reshape(-1)
            size = -(-size // 8) * 8
            step.places.append(size)
            where = size + width * np.arange(len(flat))
            for k in range(width):
                final[flat + k] = where + k
            size += width * len(flat)
        steps.append(step)
    # constants that are read as data, or that are what A holds at the end
    changed = np.flatnonzero(flow.at != np.arange(len(flow.at)))
    used = np.zeros(flow.n, bool)
    used[flow.at[changed]] = True
    for step in steps:
        for g in step.gathers:
            for k in range(g.size):
                used[g.index + k] = True
    constant = np.flatnonzero(used & (flow.constant[: flow.n] > 0))
    size = -(-size // 8) * 8
    # together and in order, a run of constants keeps its alignment
    first = size + (constant[0] % 8 if len(constant) else 0)
    final[constant] = first + constant - (constant[0] if len(constant) else 0)
    size = -(-(int(final.max()) + 1) // 8) * 8
    for step in steps:
        for g in step.gathers:
            g.settle(final)
    view = VirtualMemory(np.zeros((m.batch, size), np.uint8))
    view.bytes[:, final[constant]] = (flow.constant[constant] - 1).astype(np.uint8)
    words = np.flatnonzero(flow.words_assumed)
    word_tags = m.tag[words].copy()
    if (word_tags < 0).any():
        raise Untranslatable("weights that were never loaded")
    return Translation(
        e, steps, view, runs(np.flatnonzero(used[: flow.config.a_bytes])), moves(changed, final[flow.at[changed]]),
        [(a, b, m.a[:1, a:b].copy()) for a, b in runs(np.flatnonzero(flow.assumed))], words, word_tags,
        {s: m.luts[s].copy() for s in flow.luts_assumed}, {k: m.headers[k] for k in flow.headers_assumed},
        [(a, flow.w[a:b].copy(), flow.index[a:b].copy(), flow.tag[a:b].copy())
         for a, b in runs(np.flatnonzero(flow.word_inside))],
        {s: flow.luts[s] for s in flow.luts_inside}, flow.headers)


def runs(at: NDArray) -> list[tuple[int, int]]:
    """Increasing numbers as runs (first, end)."""
    if not len(at):
        return []
    cuts = np.flatnonzero(np.diff(at) != 1) + 1
    return [(int(p[0]), int(p[-1]) + 1) for p in np.split(at, cuts)]


def moves(dst: NDArray, src: NDArray) -> list[tuple[int, int, int]]:
    """(destination, source, bytes) of runs in which both go up together."""
    if not len(dst):
        return []
    cuts = np.flatnonzero((np.diff(dst) != 1) | (np.diff(src) != 1)) + 1
    return [(int(d[0]), int(s[0]), len(d)) for d, s in zip(np.split(dst, cuts), np.split(src, cuts), strict=True)]


# -------------------------------------------------------------------------------------------------------------- joining


def join(results: list[Result], m: Memories) -> Step:
    """Results of one key and depth as one step: end to end if the instruction computes element by element, else side by
    side."""
    first = results[0]
    i, constants = first.instruction, dict(first.constants)
    together = partial(np.concatenate, axis=-1) if i.by_element else np.stack
    constants |= {k: np.concatenate([r.constants[k] for r in results]) for k in i.each}
    operands: list[Gather | Products] = []
    name = type(i).__name__.lower()
    if first.products:
        # all the bands of one matrix product at once
        (product,) = first.products
        weight = np.concatenate([p.weights.T for r in results for p in r.products])
        matrix = _matrix(weight, 8 * product.size, m.matrices)
        columns = len(product.activations)
        operands.append(Products(matrix, Gather(product.activations, product.size), columns))
        kind = f"{name}[{len(weight)} x {weight.shape[1]}{f' x {columns}' if columns > 1 else ''}]"
        constants = dict(i.knowing(constants, matrix.bound))
    else:
        widths = [r.outputs[0].size for r in results]
        kind = f"{name}[{sum(widths)}]" if i.by_element else f"{name}[{len(widths)} x {widths[0]}]"
    operands += [Gather(together([r.inputs[k] for r in results]), size) for k, size in enumerate(first.input_sizes)]
    layouts = [together([r.outputs[k] for r in results]) for k in range(len(first.outputs))]
    compute: Any = i.compute
    if (i.by_element and not i.each and len(first.outputs) == len(operands) == len(first.input_sizes) == 1
            and first.input_sizes[0] <= 2):
        with suppress(BadData):                            # of an integer that may never come
            compute = Tabulated.of(i, constants, first.input_sizes[0])
    return Step(kind, compute, constants, operands, first.output_sizes, layouts)


def _matrix(weight: NDArray, bits: int, known: dict[bytes, Matrix]) -> Matrix:
    """The same weights are kept once, however many machines and batch sizes use them."""
    form = bytes((bits, weight.itemsize)) + np.int64(weight.shape[0]).tobytes()
    key = blake2b(np.ascontiguousarray(weight).data, digest_size=16, key=form).digest()
    if key not in known:
        known[key] = Matrix(weight, bits)
    return known[key]


__all__ = ["Interpreted", "Translation", "build"]
