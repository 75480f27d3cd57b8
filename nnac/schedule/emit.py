"""Emit: one entry point as instructions in program order, without semaphores, each with its layer and the ranges it touches.

Everything has an address by now (`layout`).  Weight tiles pass through W as through a ring: a tile still there is not loaded again, so a
kernel that fits is read once a call however many frames use it.  The same holds for parameter pages and decoder tables.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from attrs import define, field, frozen

from nnac import isa
from nnac.ir import Node
from nnac.isa import Instruction, MachineConfig
from nnac.schedule.forms import View, align, element_bytes
from nnac.schedule.kernels import W16, Kernel, bands_of, interleaved
from nnac.schedule.layout import EntryPlan, Layout
from nnac.schedule.order import Range
from nnac.schedule.tiling import Band

ELEMENTS = 4096                # of one vector instruction


@frozen(eq=False, slots=True)
class Item:
    """One instruction on its way: where it comes from, and what it touches."""

    instruction: Instruction
    path: str
    what: str
    reads: tuple[Range, ...]
    writes: tuple[Range, ...]

    @property
    def unit(self) -> str:
        return self.instruction.unit


@define
class Ring:
    """A stretch of memory used as a ring, remembering what still lies in it.

    Things begin at multiples of ``granule``: without it, pieces of slightly different length drift and one piece waits for two others.
    """

    base: int
    size: int
    granule: int = 1
    head: int = 0
    lies: dict[Hashable, tuple[int, int]] = field(factory=dict)

    def place(self, key: Hashable, length: int) -> tuple[int, bool]:
        """(address, whether it must be loaded)."""
        if key in self.lies:
            return self.base + self.lies[key][0], False
        assert length <= self.size, f"{key} of {length} does not fit a ring of {self.size}"
        start = align(self.head, self.granule)
        start = 0 if start + length > self.size else start
        self.head = start + length
        self.lies = {k: (s, e) for k, (s, e) in self.lies.items() if e <= start or s >= self.head}
        self.lies[key] = (start, self.head)
        return self.base + start, True


@frozen
class Source:
    """A vector (or several) that a kernel multiplies: column c is at ``address + c * stride``."""

    kernel: Kernel
    address: int
    stride: int = 0


@define
class Emitter:
    """Emits one entry.  ``put`` is the only place where instructions are made."""

    layout: Layout
    plan: EntryPlan
    items: list[Item] = field(factory=list)
    path: str = ""
    bank: int = 0
    words: Ring = field(init=False)
    pages: Ring = field(init=False)
    tables: dict[bytes, int] = field(init=False)
    next_table: int = 0

    def __attrs_post_init__(self) -> None:
        words = self.config.stream_words
        self.words = Ring(0, words - (self.layout.zero_word >= 0), max(1, words // self.config.outstanding))
        self.pages = Ring(self.layout.page_base, self.layout.page_bytes)
        self.tables = dict(self.layout.fixed_tables)

    @property
    def config(self) -> MachineConfig:
        return self.layout.config

    def put(self, instruction: Instruction, what: str, reads: Sequence[Range] = (), writes: Sequence[Range] = ()) -> None:
        c = self.config
        self.items.append(Item(instruction, self.path, what, (*instruction.reads(c), *reads), (*instruction.writes(c), *writes)))

    # ------------------------------------------------------------------------------------------------ loads

    def parameters(self, key: str, band: int = 0) -> int:
        """Address of a parameter block, loaded with its page if it is not there."""
        page, offset = self.layout.block(key, band)
        if page.resident is not None:
            return page.resident + offset
        address, missing = self.pages.place((key, page.index), align(len(page.data)))
        if missing:
            self.put(isa.LDA(dram=self.layout.dram[key, page.index], dst=address, bytes=align(len(page.data))), "parameters")
        return address + offset

    def table(self, header: bytes, steps: int) -> int:
        """Decoder table that holds ``header``, loaded if it does not."""
        if header in self.tables:
            return self.tables[header]
        slot, self.next_table = self.next_table, (self.next_table + 1) % self.config.decoder_tables
        self.tables = {h: s for h, s in self.tables.items() if s != slot} | {header: slot}
        self.put(isa.LDT(dram=self.layout.dram["header", header], bytes=len(header), steps=steps, table=slot), "decoder table")
        return slot

    def weights(self, kernel: Kernel, band: int, chunk: int) -> int:
        """First word of a tile in W, loaded if it is neither pinned nor still there."""
        key = (kernel.path, band, chunk)
        if key in self.layout.pinned:
            return self.layout.pinned[key]
        tile = kernel.tiles[band][chunk]
        word, missing = self.words.place(key, tile.live_words)
        if missing:
            self.load(kernel, band, chunk, word)
        return word

    def load(self, kernel: Kernel, band: int, chunk: int, word: int) -> None:
        tile = kernel.tiles[band][chunk]
        slot = self.table(*kernel.headers[kernel.chunks[chunk].part])
        self.put(isa.LDW(dram=self.layout.dram[kernel.path, band, chunk], bytes=len(tile.data), word=word, rows=tile.rows, cols=tile.cols,
                         live=tile.live_words, steps=tile.steps, table=slot), "weights", reads=(("TABLE", slot, slot + 1),))

    # ------------------------------------------------------------------------------------------------ products

    def groups(self, vectors: int, strides: Sequence[int]) -> list[tuple[int, int]]:
        """(first, count) of vectors that meet a weight word together."""
        together = 1 if any(s % 4 for s in strides) else self.config.columns
        return [(t, min(together, vectors - t)) for t in range(0, vectors, together)]

    def sums(self, band: Band, sources: Sequence[Source], groups: Sequence[tuple[int, int]]) -> list[int]:
        """Products of one band of ``sources``, all in one accumulator a column; returns the bank of each group (at most 4 groups)."""
        banks = [(self.bank + g) % self.config.banks for g in range(len(groups))]
        self.bank = (self.bank + len(groups)) % self.config.banks
        clear = 1
        for source in sources:
            kernel = source.kernel
            for index, chunk in enumerate(kernel.chunks):
                live = kernel.tiles[band.index][index].live_words
                if not live:
                    continue
                word = self.weights(kernel, band.index, index)
                for (first, count), bank in zip(groups, banks, strict=True):
                    self.put(isa.MVM(word=word, words=live, act=source.address + first * source.stride + chunk.offset, span=chunk.span,
                                     stride=source.stride if count > 1 else 0, columns=count, bank=bank, clear=clear,
                                     weights=kernel.weights, act16=int(kernel.act16)), "multiply")
                clear = 0
        if clear:                              # every weight of the band is zero
            for (_, count), bank in zip(groups, banks, strict=True):
                self.put(isa.MVM(word=self.layout.zero_word, words=1, act=sources[0].address, span=1, stride=0, columns=count, bank=bank,
                                 clear=1, weights=0, act16=0), "multiply")
        return banks

    def requantise(self, band: Band, bank: int, columns: int, dst: int, stride: int, params: int, out: int, *, add: int = 0,
                   addend: int = 0, wide: bool = False) -> None:
        self.put(isa.RQ(dst=dst, params=params, addend=addend, rows=band.count, bank=bank, columns=columns,
                        stride=stride if columns > 1 else 0, out=out, add=add, wide=int(wide), double=0), "requantise")

    def passes(self, groups: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """As many groups at a time as there are banks: the weights are read once a pass."""
        return [groups[i:i + self.config.banks] for i in range(0, len(groups), self.config.banks)]

    # ------------------------------------------------------------------------------------------------ layers

    def node(self, node: Node) -> None:
        self.path = node.path
        if node.path in self.layout.on_host:
            self.host(node)
        elif node.op != "stack":
            getattr(self, node.op)(node)

    def host(self, node: Node) -> None:
        call = self.plan.calls[node.path]
        reads = [("A", *r) for p in (*call.inputs, *call.states) for r in p.ranges]
        # the machine gives the host all of A: every unit that uses it must have ended
        self.put(isa.HOST(id=call.id, time=call.cycles), "CPU", reads, [("A", 0, self.config.a_bytes)])

    def linear(self, node: Node) -> None:
        x, y = self.plan.views[node.inputs[0]], self.plan.views[node.output]
        kernel = self.layout.kernels[f"{node.path}.weight"]
        for groups in self.passes(self.groups(y.vectors, (x.form.stride, y.form.stride))):
            for band in kernel.bands:
                banks = self.sums(band, [Source(kernel, x.address, x.form.stride)], groups)
                params = self.parameters(f"{node.path}.requantise", band.index)
                for (first, count), bank in zip(groups, banks, strict=True):
                    self.requantise(band, bank, count, y.at(first) + band.first * y.form.size, y.form.stride, params,
                                    int(y.form.size == 2), wide=kernel.act16 or kernel.weights == W16)

    def lstm(self, node: Node) -> None:
        """An LSTM over all vectors of this call, from the last one where the node is reversed."""
        a, layout, plan = node.attributes, self.layout, self.plan
        x, y = plan.views[node.inputs[0]], plan.views[node.output]
        h_in, h_rec = (layout.kernels[f"{node.path}.{k}"] for k in ("input", "recurrent"))
        separate = a["variant"] == "sum16"
        frames: Sequence[int] = range(y.vectors)[::-1] if a.get("reversed") else range(y.vectors)
        previous, cell = plan.state(node)
        parked = plan.buffers.get(f"{node.path}.parked")
        if parked is not None:
            self.park(node, h_in, x, y.vectors, parked)
        pre = plan.buffers[f"{node.path}.pre"]
        for t in frames:
            hidden = Source(h_rec, previous)
            for band in h_rec.bands:
                dst = pre if interleaved(self.config.lanes) else pre + 2 * band.first
                from_x = Source(h_in, x.at(t))
                key = f"{node.path}.{'recurrent' if separate else 'gates'}.parameters"
                if parked is not None:
                    (bank,) = self.sums(band, [hidden], [(0, 1)])
                    size = 2 if separate else 4
                    self.requantise(band, bank, 1, dst, 0, self.parameters(key, band.index), 1, add=2 if separate else 1,
                                    addend=parked + size * (band.first * y.vectors + t * band.count))
                elif separate:
                    (bank,) = self.sums(band, [from_x], [(0, 1)])
                    self.requantise(band, bank, 1, dst, 0, self.parameters(f"{node.path}.input.parameters", band.index), 1)
                    (bank,) = self.sums(band, [hidden], [(0, 1)])
                    self.requantise(band, bank, 1, dst, 0, self.parameters(key, band.index), 1, add=2, addend=dst)
                else:
                    (bank,) = self.sums(band, [from_x, hidden], [(0, 1)])
                    self.requantise(band, bank, 1, dst, 0, self.parameters(key, band.index), 1)
                if interleaved(self.config.lanes):
                    self.cells(node, pre, band.first // 4, band.count // 4, cell, y.at(t))
            if not interleaved(self.config.lanes):
                self.cells(node, pre, 0, a["cells"], cell, y.at(t))
            if a.get("project"):
                self.project(node, y.at(t))
            previous = y.at(t)
        width = a.get("project") or a["cells"]
        self.put(isa.CPY(src=previous, dst=plan.state(node)[0], bytes=width * element_bytes(a["hidden_bits"]), count=1, sstride=0, dstride=0),
                 "keep state")

    def park(self, node: Node, kernel: Kernel, x: View, vectors: int, parked: int) -> None:
        """The input products of all frames, before the recurrence begins: each weight is read once for as many frames as fit the banks.

        acc32 parks int32 sums (the bias joins later, with the multiplier); sum16 parks requantised int16 sums.
        """
        separate = node.attributes["variant"] == "sum16"
        size = 2 if separate else 4
        for groups in self.passes(self.groups(vectors, (x.form.stride,))):
            for band in kernel.bands:
                banks = self.sums(band, [Source(kernel, x.address, x.form.stride)], groups)
                params = self.parameters(f"{node.path}.input.parameters", band.index) if separate else self.parameters("zero")
                for (first, count), bank in zip(groups, banks, strict=True):
                    self.requantise(band, bank, count, parked + size * (band.first * vectors + first * band.count), size * band.count,
                                    params, 1 if separate else 2)

    def cells(self, node: Node, pre: int, first: int, count: int, cell: int, dst: int) -> None:
        a = node.attributes
        bits = a["cell_output_bits"] if a.get("project") else a["hidden_bits"]
        base = self.plan.buffers[f"{node.path}.raw"] if a.get("project") else dst
        size = element_bytes(bits)
        self.put(isa.LSTM(pre=pre, cell=cell + 2 * first, dst=base + size * first, params=self.parameters(f"{node.path}.cell.parameters"),
                          units=count, out16=int(size == 2)), "cells")

    def project(self, node: Node, dst: int) -> None:
        kernel = self.layout.kernels[f"{node.path}.project"]
        size = element_bytes(node.attributes["hidden_bits"])
        for band in kernel.bands:
            (bank,) = self.sums(band, [Source(kernel, self.plan.buffers[f"{node.path}.raw"])], [(0, 1)])
            self.requantise(band, bank, 1, dst + size * band.first, 0, self.parameters(f"{node.path}.project.parameters", band.index),
                            int(size == 2))

    def layer_norm(self, node: Node) -> None:
        x, y = self.plan.views[node.inputs[0]], self.plan.views[node.output]
        for t in range(y.vectors):
            self.put(isa.LN(src=x.at(t), dst=y.at(t), params=self.parameters(f"{node.path}.parameters"), n=y.form.width,
                            a16=int(x.form.size == 2), out16=int(y.form.size == 2)), "normalise")

    def pieces(self, views: Sequence[View], instruction: Callable[[Sequence[int], int], Instruction], what: str) -> None:
        """An elementwise instruction over all vectors: ``instruction(addresses, n)`` for every stretch of at most 4096 elements."""
        for t in range(views[-1].vectors):
            for first in range(0, views[-1].form.width, ELEMENTS):
                n = min(ELEMENTS, views[-1].form.width - first)
                self.put(instruction([v.at(t) + first * v.form.size for v in views], n), what)

    def add(self, node: Node) -> None:
        a, b, y = (self.plan.views[n] for n in (*node.inputs, node.output))
        kind: Any = isa.ADD if node.op == "add" else isa.MUL
        wide = dict(a16=int(a.form.size == 2), b16=int(b.form.size == 2), out16=int(y.form.size == 2))
        params = self.parameters(f"{node.path}.parameters")
        self.pieces((a, b, y), lambda at, n: kind(a=at[0], b=at[1], dst=at[2], params=params, n=n, **wide), node.op)

    multiply = add

    def table_lookup(self, node: Node) -> None:
        x, y = self.plan.views[node.inputs[0]], self.plan.views[node.output]
        params = self.parameters(f"{node.path}.parameters")
        self.pieces((x, y), lambda at, n: isa.LUT(src=at[0], dst=at[1], params=params, n=n, out16=int(y.form.size == 2)), node.op)

    tanh = sigmoid = table_lookup

    def embedding(self, node: Node) -> None:
        x, y = self.plan.views[node.inputs[0]], self.plan.views[node.output]
        pitch, rows = self.layout.pitch[node.path], len(node.constants["weight"])
        table = self.layout.dram[node.path]
        for t in range(y.vectors):
            self.put(isa.GTH(index=x.at(t), dram=table, pitch=pitch, dst=y.at(t), bytes=align(y.form.width * y.form.size)), "embed",
                     reads=(("DRAM", table, table + pitch * rows),))

    def halt(self) -> list[Item]:
        self.path = ""
        self.put(isa.HALT(), "halt")
        return self.items


def parked_bytes(node: Node, vectors: int) -> int:
    """SRAM for the input products of ``vectors`` frames."""
    return 4 * node.attributes["cells"] * vectors * (2 if node.attributes["variant"] == "sum16" else 4)


def pre_bytes(node: Node, lanes: int) -> int:
    """SRAM for the pre-activations that the cells are computed from."""
    return 2 * (bands_of(4 * node.attributes["cells"], lanes)[0].count if interleaved(lanes) else 4 * node.attributes["cells"])
