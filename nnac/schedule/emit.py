"""Emit: one entry point as instructions in program order, without semaphores, each with its layer and the ranges it
touches.

Everything has an address by now (`layout`).  Weight tiles pass through W as through a ring: a tile still there is not
loaded again, so a kernel that fits is read once a call however many frames use it.  The same holds for parameter pages
and decoder tables.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from attrs import define, field, frozen

from nnac import isa
from nnac.ir import Node
from nnac.isa import Instruction, MachineConfig
from nnac.schedule.forms import View
from nnac.schedule.kernels import Chunk, Kernel
from nnac.schedule.layout import EntryPlan, Layout, TileKey
from nnac.schedule.order import Range
from nnac.schedule.tiling import Band
from nnac.vectors import align

ELEMENTS = next(f.greatest for f in isa.LUT.fields if f.name == "n")            # of one elementwise instruction

STRIDE = min(f.greatest for i in (isa.MVM, isa.RQ, isa.CPY) for f in i.fields if f.name.endswith("stride"))


@frozen(eq=False, slots=True)
class Emitted:
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

    Things may begin at multiples of a granule: without it, pieces of slightly different length drift and one piece
    waits for two others.
    """

    base: int
    size: int
    head: int = 0
    lies: dict[Hashable, tuple[int, int]] = field(factory=dict)

    def place(self, key: Hashable, length: int, granule: int = 1) -> tuple[int, bool]:
        """(address, whether it must be loaded)."""
        if key in self.lies:
            return self.base + self.lies[key][0], False
        assert length <= self.size, f"{key} of {length} does not fit a ring of {self.size}"
        start = align(self.head, granule)
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
    items: list[Emitted] = field(factory=list)
    path: str = ""
    bank: int = 0
    words: Ring = field(init=False)
    pages: Ring = field(init=False)
    tables: dict[bytes, int] = field(init=False)
    next_table: int = 0

    def __attrs_post_init__(self) -> None:
        self.words = Ring(0, self.config.stream_words - (self.layout.held.zero_word >= 0))
        self.pages = Ring(self.layout.residents.ring, self.layout.residents.ring_bytes)
        self.tables = dict(self.layout.held.tables)

    @property
    def config(self) -> MachineConfig:
        return self.layout.config

    def put(self, instruction: Instruction, what: str, reads: Sequence[Range] = (),
            writes: Sequence[Range] = ()) -> None:
        c = self.config
        self.items.append(Emitted(instruction, self.path, what, (*instruction.reads(c), *reads),
                                  (*instruction.writes(c), *writes)))

    # ------------------------------------------------------------------------------------------------ loads

    def parameters(self, key: str, band: int = 0) -> int:
        """Address of a parameter block, loaded with its page if it is not there."""
        page, offset = self.layout.pages.places[key, band]
        if (resident := self.layout.residents.pages.get((key, page.index))) is not None:
            return resident + offset
        address, missing = self.pages.place((key, page.index), align(len(page.data)))
        if missing:
            self.put(isa.LDA(dram=self.layout.image.addresses[key, page.index], dst=address,
                             bytes=align(len(page.data))), "parameters")
        return address + offset

    def table(self, header: bytes, steps: int) -> int:
        """Decoder table that holds ``header``, loaded if it does not."""
        if header in self.tables:
            return self.tables[header]
        slot, self.next_table = self.next_table, (self.next_table + 1) % self.config.decoder_tables
        self.tables = {h: s for h, s in self.tables.items() if s != slot} | {header: slot}
        self.put(isa.LDT(dram=self.layout.image.addresses["header", header], bytes=len(header), steps=steps,
                         table=slot), "decoder table")
        return slot

    def weights(self, kernel: Kernel, band: int, chunk: int) -> int:
        """First word of a tile in W, loaded if it is neither pinned nor still there."""
        key = (kernel.path, band, chunk)
        if key in self.layout.held.pinned:
            return self.layout.held.pinned[key]
        tile = kernel.tiles[band][chunk]
        word, missing = self.words.place(key, tile.live_words, kernel.granule(self.config))
        if missing:
            self.load(kernel, band, chunk, word)
        return word

    def in_turn(self, kernel: Kernel, parameters: str) -> list[Band]:
        """The bands of a kernel that is read again: first those of which a tile still lies in W, the oldest first.

        A ring read round and round in one order holds none of what comes next.  Begun with what lies there, in the
        order in which it will be overwritten, each reading finds all that the ring holds, and gives its place free at
        once; less a few words, whose place keeps DRAM busy until the first tiles have been multiplied and others
        requested.

        parameters  those of its bands: where they do not all stay in A, bands of one page are used together, so the
                    reading begins with a page, and goes round in order
        """
        lying: Any = self.words.lies
        held: list[TileKey] = [key for key in lying if key[0] == kernel.path]
        moving = kernel.words - sum(self.layout.tile(k).live_words for k in self.layout.held.pinned
                                    if k[0] == kernel.path)
        free = kernel.ahead(self.config) if moving > self.words.size else 0
        while held and free > 0:
            free -= self.layout.tile(held.pop(0)).live_words
        first = list(dict.fromkeys(band for _, band, _ in held))
        at = first[0] if first else 0
        pages = [self.layout.pages.places[parameters, band.index][0] for band in kernel.bands]
        if any((p.key, p.index) not in self.layout.residents.pages for p in pages):
            first, at = [], next((i for i in range(at, len(pages)) if i == 0 or pages[i] is not pages[i - 1]), 0)
        return [kernel.bands[i] for i in dict.fromkeys((*first, *range(at, len(kernel.bands)), *range(at)))]

    def load(self, kernel: Kernel, band: int, chunk: int, word: int) -> None:
        tile = kernel.tiles[band][chunk]
        slot = self.table(*kernel.headers[kernel.chunks[chunk].part])
        self.put(isa.LDW(dram=self.layout.image.addresses[kernel.path, band, chunk], bytes=len(tile.data), word=word,
                         rows=tile.rows, cols=tile.cols,
                         live=tile.live_words, steps=tile.steps, table=slot), "weights",
                 reads=(("TABLE", slot, slot + 1),))

    # ------------------------------------------------------------------------------------------------ products

    def groups(self, vectors: int, strides: Sequence[int]) -> list[tuple[int, int]]:
        """(first, count) of vectors that meet a weight word together."""
        together = 1 if any(s % 4 or s > STRIDE for s in strides) else self.config.columns
        return [(t, min(together, vectors - t)) for t in range(0, vectors, together)]

    def sums(self, band: Band, sources: Sequence[Source], groups: Sequence[tuple[int, int]]) -> list[int]:
        """Products of one band of ``sources``, all in one accumulator a column; returns the bank of each group (at most
        4 groups)."""
        banks = [(self.bank + g) % self.config.banks for g in range(len(groups))]
        self.bank = (self.bank + len(groups)) % self.config.banks
        clear = 1
        for source in sources:
            kernel = source.kernel
            for index, chunk in self.chunks(kernel, band):
                live = kernel.tiles[band.index][index].live_words
                if not live:
                    continue
                word = self.weights(kernel, band.index, index)
                for (first, count), bank in zip(groups, banks, strict=True):
                    self.put(isa.MVM(word=word, words=live, act=source.address + first * source.stride + chunk.offset,
                                     span=chunk.span,
                                     stride=source.stride if count > 1 else 0, columns=count, bank=bank, clear=clear,
                                     weights=kernel.weights, act16=int(kernel.act16)), "multiply")
                clear = 0
        if clear:                              # every weight of the band is zero
            for (_, count), bank in zip(groups, banks, strict=True):
                self.put(isa.MVM(word=self.layout.held.zero_word, words=1, act=sources[0].address, span=1, stride=0,
                                 columns=count, bank=bank,
                                 clear=1, weights=0, act16=0), "multiply")
        return banks

    def chunks(self, kernel: Kernel, band: Band) -> list[tuple[int, Chunk]]:
        """The chunks of a band with their numbers: first those that lie in W, before something comes in their place."""
        lies = {key: at for at, key in enumerate(self.words.lies)}
        return sorted(enumerate(kernel.chunks), key=lambda c: lies.get((kernel.path, band.index, c[0]), len(lies)))

    def requantise(self, band: Band, bank: int, columns: int, dst: int, stride: int, params: int, out: int, *,
                   add: int = 0,
                   addend: int = 0, wide: bool = False) -> None:
        self.put(isa.RQ(dst=dst, params=params, addend=addend, rows=band.count, bank=bank, columns=columns,
                        stride=stride if columns > 1 else 0, out=out, add=add, wide=int(wide), double=0), "requantise")

    def passes(self, groups: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """As many groups at a time as there are banks.  Passes over one band of weights that follow each other find
        its words still in W, where they fit."""
        return [groups[i:i + self.config.banks] for i in range(0, len(groups), self.config.banks)]

    # ------------------------------------------------------------------------------------------------ layers

    def views(self, node: Node) -> list[View]:
        """Where its inputs and its output lie."""
        return [self.plan.views[n] for n in (*node.inputs, node.output)]

    def kernel(self, node: Node, name: str) -> Kernel:
        """A weight matrix of the node."""
        return self.layout.kernels[f"{node.path}.{name}"]

    def host(self, node: Node) -> None:
        """A call of the CPU."""
        call = self.plan.calls[node.path]
        reads = [("A", *r) for p in (*call.inputs, *call.states) for r in p.ranges]
        # the machine gives the host all of A: every unit that uses it must have ended
        self.put(isa.HOST(id=call.id, time=call.cycles), "CPU", reads, [("A", 0, self.config.a_bytes)])

    def pieces(self, views: Sequence[View], instruction: Callable[[Sequence[int], int], Instruction],
               what: str) -> None:
        """An elementwise instruction over all vectors: ``instruction(addresses, n)`` for every stretch of at most
        `ELEMENTS`."""
        for t in range(views[-1].vectors):
            for first in range(0, views[-1].form.width, ELEMENTS):
                n = min(ELEMENTS, views[-1].form.width - first)
                self.put(instruction([v.at(t) + first * v.form.size for v in views], n), what)

    def halt(self) -> list[Emitted]:
        self.path = ""
        self.put(isa.HALT(), "halt")
        return self.items
