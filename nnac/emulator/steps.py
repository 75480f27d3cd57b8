"""The second half of a translation: join the nodes of a data flow into steps, lay out V, run."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac import arith
from nnac.emulator.errors import AddressError
from nnac.emulator.image import Entry
from nnac.emulator.kernels import Matrix
from nnac.emulator.memory import Memories
from nnac.emulator.plan import Gather, Node, Step, Trace, Untranslatable, View
from nnac.isa import SMAX

Words = tuple[int, NDArray, NDArray, NDArray]                # first word of W; words, inputs and tags from there on


@frozen(eq=False)
class Interpreted:
    """What `translate` makes of an entry that it cannot translate.  ``reason``: why."""

    entry: Entry
    reason: str

    def holds(self, m: Memories) -> bool:
        """Nothing was assumed."""
        return True

    def __str__(self) -> str:
        return f"{self.entry.name}: interpreted, because of {self.reason}"


@frozen(eq=False)
class Plan:
    """What `translate` makes of an entry: its steps on V, what goes in and out, and what was assumed of the memories.

    live_in   bytes of A that are read as data: (first, end)      results  what A holds at the end: (address in A, address in V, bytes)
    assumed   bytes of A that are built in: (first, end, values [1, n])      words, word_tags  words of W that are, and their tags
    luts, headers   look-up tables and stream headers that are, by slot
    final_words, final_luts, final_headers   what W, the look-up tables and the decoder tables hold at the end
    """

    entry: Entry
    steps: list[Step]
    view: View
    live_in: list[tuple[int, int]]
    results: list[tuple[int, int, int]]
    assumed: list[tuple[int, int, NDArray]]
    words: NDArray
    word_tags: NDArray
    luts: dict[int, NDArray]
    headers: dict[int, bytes]
    final_words: list[Words]
    final_luts: dict[int, NDArray]
    final_headers: list[bytes]
    reason: ClassVar[str] = ""

    def holds(self, m: Memories) -> bool:
        """Whether what was assumed at translation is still so."""
        return bool(all((m.a[:, first:end] == values).all() for first, end, values in self.assumed)
                    and (m.tag[self.words] == self.word_tags).all()
                    and all((m.luts[s] == t).all() for s, t in self.luts.items()) and all(m.headers[k] == h for k, h in self.headers.items()))

    def run(self, m: Memories) -> None:
        """The entry, once: A, W, LUTs and decoder tables afterwards are what `interpret` would leave (accumulators are not kept)."""
        v = self.view
        for first, end in self.live_in:
            v.bytes[:, first:end] = m.a[:, first:end]
        for step in self.steps:
            step.run(v)
        results = [v.bytes[:, src: src + n].copy() if src < m.config.a_bytes else v.bytes[:, src: src + n] for _, src, n in self.results]
        for (dst, _, n), data in zip(self.results, results, strict=True):
            m.a[:, dst: dst + n] = data
        for first, words, index, tag in self.final_words:
            part = slice(first, first + len(words))
            m.w[part], m.index[part], m.tag[part] = words, index, tag
        for slot, table in self.final_luts.items():
            m.luts[slot] = table
        m.headers[:] = self.final_headers

    def __str__(self) -> str:
        return f"{self.entry.name}: {len(self.entry.code)} instructions in {len(self.steps)} steps: " + ", ".join(s.kind for s in self.steps)


def build(e: Entry, trace: Trace) -> Plan:
    """Join the nodes of ``trace`` into steps, give every result its place, and note what was assumed."""
    m, steps = trace.m, []
    groups: dict[tuple, list[Node]] = {}
    for node in trace.nodes:
        groups.setdefault((node.depth, node.key), []).append(node)
    size = trace.config.a_bytes
    final = np.full(trace.n, -1, np.int64)
    final[: size] = np.arange(size)
    for (_, key), nodes in sorted(groups.items(), key=lambda item: item[0][0]):
        step = _JOIN[key[0]](nodes, m)
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
    changed = np.flatnonzero(trace.at != np.arange(len(trace.at)))
    used = np.zeros(trace.n, bool)
    used[trace.at[changed]] = True
    for step in steps:
        for g in step.gathers:
            for k in range(g.size):
                used[g.index + k] = True
    constant = np.flatnonzero(used & (trace.constant[: trace.n] > 0))
    size = -(-size // 8) * 8
    # together and in order, a run of constants keeps its alignment
    first = size + (constant[0] % 8 if len(constant) else 0)
    final[constant] = first + constant - (constant[0] if len(constant) else 0)
    size = -(-(int(final.max()) + 1) // 8) * 8
    for step in steps:
        for g in step.gathers:
            g.settle(final)
    view = View(np.zeros((m.batch, size), np.uint8))
    view.bytes[:, final[constant]] = (trace.constant[constant] - 1).astype(np.uint8)
    words = np.flatnonzero(trace.words_assumed)
    word_tags = m.tag[words].copy()
    if (word_tags < 0).any():
        raise Untranslatable("weights that were never loaded")
    return Plan(
        e, steps, view, runs(np.flatnonzero(used[: trace.config.a_bytes])), moves(changed, final[trace.at[changed]]),
        [(a, b, m.a[:1, a:b].copy()) for a, b in runs(np.flatnonzero(trace.assumed))], words, word_tags,
        {s: m.luts[s].copy() for s in trace.luts_assumed}, {k: m.headers[k] for k in trace.headers_assumed},
        [(a, trace.w[a:b].copy(), trace.index[a:b].copy(), trace.tag[a:b].copy()) for a, b in runs(np.flatnonzero(trace.word_inside))],
        {s: trace.luts[s] for s in trace.luts_inside}, trace.headers)


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


# ------------------------------------------------------------------------------------------------------------------ joining


def _join_rq(nodes: list[Node], m: Memories) -> Step:
    """All the bands of one matrix product, and their requantisation, at once."""
    first = nodes[0].data[0]
    weight = np.concatenate([np.concatenate(blocks, 0).T for _, _, blocks in (n.data for n in nodes)], 0)
    act_size = 2 if nodes[0].key[3] else 1
    matrix = _matrix(weight, 8 * act_size, m.matrices)
    rows = np.concatenate([n.data[1] for n in nodes])
    if first.wide:
        bias = rows["low"].astype(np.int64) + (rows["high"].astype(np.int64) << 32)
        multiplier, shift = rows["m0"].astype(np.int64) + (rows["m1"].astype(np.int64) << 16), rows["shift"].astype(np.int64)
    else:
        both = rows["multiplier"].astype(np.int64)
        bias, multiplier, shift = rows["bias"].astype(np.int64), both & 0xFFFFFF, both >> 24
    width = 48 if first.wide else 32
    safe = first.add != 1 and matrix.bound + int(np.abs(bias).max()) < 1 << width - 1
    zero_point, bits = nodes[0].key[8:10]
    rule = arith.requantise_double if first.double else arith.requantise
    columns = nodes[0].inputs[0].shape[0]
    gathers = [Gather(nodes[0].inputs[0], act_size)]
    if first.add:
        gathers.append(Gather(np.concatenate([n.inputs[1] for n in nodes], 1), 4 if first.add == 1 else 2))

    def compute(v: View, x: Gather, addend: Gather | None = None) -> tuple[NDArray, ...]:
        values = x.raw(v)
        acc = matrix(values.reshape(-1, values.shape[-1]).astype(np.int16))
        acc = acc.reshape(len(values), columns, -1) + bias
        more = None if addend is None else addend(v)
        if first.add == 1:
            acc = acc + more
        if not safe:
            m.check_accumulator(acc, width)
        if first.out == 2:
            return (acc,)
        y = rule(acc, multiplier, shift, zero_point, bits)
        return (arith.saturate(y + more, bits) if first.add == 2 else y,)

    layout = np.stack([np.concatenate([n.outputs[c] for n in nodes]) for c in range(columns)])
    return Step(f"rq[{len(weight)} x {weight.shape[1]}{f' x {columns}' if columns > 1 else ''}]", gathers, (1 << first.out,), [layout], compute)


def _matrix(weight: NDArray, bits: int, known: dict[bytes, Matrix]) -> Matrix:
    """The same weights are kept once, however many machines and batch sizes use them."""
    form = bytes((bits, weight.itemsize)) + np.int64(weight.shape[0]).tobytes()
    key = blake2b(np.ascontiguousarray(weight).data, digest_size=16, key=form).digest()
    if key not in known:
        known[key] = Matrix(weight, bits)
    return known[key]


def _join_lstm(nodes: list[Node], m: Memories) -> Step:
    p, (sigmoid, tanh, tanh_cell) = nodes[0].data
    pre = Gather(np.concatenate([n.inputs[0] for n in nodes], 1), 2)
    cell = Gather(np.concatenate([n.inputs[1] for n in nodes]), 2)
    fraction, multiplier, shift, bits = (int(p[k]) for k in ("fraction", "multiplier", "shift", "bits"))

    def compute(v: View, pre: Gather, cell: Gather) -> tuple[NDArray, ...]:
        at = pre(v) + 32768
        i, f, g, o = sigmoid[at[:, 0]], sigmoid[at[:, 1]], tanh[at[:, 2]], sigmoid[at[:, 3]]
        c = arith.saturate(arith.round_shift(f * cell(v), arith.UNIT_FRACTION)
                           + arith.round_shift(i * g, 2 * arith.UNIT_FRACTION - fraction), 16)
        return c, arith.requantise(o * tanh_cell[c + 32768], multiplier, shift, 0, bits)

    layouts = [np.concatenate([n.outputs[k] for n in nodes]) for k in range(2)]
    return Step(f"lstm[{layouts[0].size}]", [pre, cell], (2, 1 << nodes[0].key[2]), layouts, compute)


def _join_flat(compute: Callable, nodes: list[Node], sizes: tuple[int, ...], out: int) -> Step:
    gathers = [Gather(np.concatenate([n.inputs[k] for n in nodes]), size) for k, size in enumerate(sizes)]
    layout = np.concatenate([n.outputs[0] for n in nodes])
    return Step(f"{nodes[0].key[0].lower()}[{layout.size}]", gathers, (out,), [layout], compute)


def _join_add(nodes: list[Node], m: Memories) -> Step:
    i, p = nodes[0].data
    bits = int(p["bits"])

    def compute(v: View, a: Gather, b: Gather) -> tuple[NDArray, ...]:
        return (arith.add(a(v), b(v), (int(p["m0"]), int(p["m1"])), (int(p["s0"]), int(p["s1"])), bits),)

    return _join_flat(compute, nodes, (1 << i.a16, 1 << i.b16), 1 << i.out16)


def _join_mul(nodes: list[Node], m: Memories) -> Step:
    i, p = nodes[0].data

    def compute(v: View, a: Gather, b: Gather) -> tuple[NDArray, ...]:
        return (arith.requantise(a(v) * b(v), int(p["multiplier"]), int(p["shift"]), int(p["zero_point"]), int(p["bits"])),)

    return _join_flat(compute, nodes, (1 << i.a16, 1 << i.b16), 1 << i.out16)


def _join_lut(nodes: list[Node], m: Memories) -> Step:
    table = nodes[0].data
    return _join_flat(lambda v, x: (table[x(v) + 32768],), nodes, (2,), 1 << nodes[0].key[2])


def _stacked(nodes: list[Node], size: int) -> Gather:
    """The first input of each node as a row."""
    return Gather(np.stack([n.inputs[0] for n in nodes]), size)


def _join_ln(nodes: list[Node], m: Memories) -> Step:
    p, (gain, bias, rsqrt) = nodes[0].data
    _, _, _, a16, out16, *_ = nodes[0].key

    def compute(v: View, x: Gather) -> tuple[NDArray, ...]:
        return (arith.layer_norm(x(v), gain, bias, int(p["epsilon"]), int(p["root_width"]), rsqrt, int(p["multiplier"]), int(p["shift"]),
                                 int(p["zero_point"]), int(p["bits"])),)

    return Step(f"ln[{len(nodes)} x {len(gain)}]", [_stacked(nodes, 1 << a16)], (1 << out16,), [np.stack([n.outputs[0] for n in nodes])],
                compute)


def _join_smax(nodes: list[Node], m: Memories) -> Step:
    p, exp, rsqrt = nodes[0].data
    _, _, n, a16, out16, *_ = nodes[0].key
    return Step(f"smax[{len(nodes)} x {n}]", [_stacked(nodes, 1 << a16)], (1 << out16,), [np.stack([k.outputs[0] for k in nodes])],
                lambda v, x: (SMAX.apply(p, exp, rsqrt, x(v)),))


def _join_amax(nodes: list[Node], m: Memories) -> Step:
    def compute(v: View, x: Gather) -> tuple[NDArray, ...]:
        values = x(v)
        at = values.argmax(-1)
        return (np.stack([at, np.take_along_axis(values, at[..., None], -1)[..., 0]], -1),)

    return Step("amax", [_stacked(nodes, 1 << nodes[0].key[2])], (4,), [np.stack([n.outputs[0] for n in nodes])], compute)


def _join_gth(nodes: list[Node], m: Memories) -> Step:
    i: Any = nodes[0].data
    limit = min(len(m.dram), m.scratch_range[0])

    def compute(v: View, index: Gather) -> tuple[NDArray, ...]:
        first = i.dram + index(v) * i.pitch                                       # [batch, nodes, 1]
        if first.min() < 0 or int(first.max()) + i.bytes > limit:
            raise AddressError("a row outside the table")
        return (m.dram[first + np.arange(i.bytes)],)

    return Step(f"gth[{len(nodes)}]", [_stacked(nodes, 4)], (1,), [np.stack([n.outputs[0] for n in nodes])], compute)


_JOIN = {"rq": _join_rq, "lstm": _join_lstm,
         "ADD": _join_add, "MUL": _join_mul, "lut": _join_lut, "ln": _join_ln, "smax": _join_smax, "amax": _join_amax,
         "gth": _join_gth}
__all__ = ["Interpreted", "Plan", "build"]
