"""Layout: where everything lies, before a single instruction is made.  Each record is made whole, by one function.

Activation memory A, from the bottom: scratch (each entry's values, by live ranges; entries never run together), the
ring of parameter pages, then what stays: states, small constants, and as many parameter pages as fit, those read most
often first. W: the stream ring, then pinned tiles.  DRAM: tables, parameter pages, and each kernel's tiles in the order
in which they are streamed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from nnac.codec import Tile
from nnac.ir import Node, QGraph
from nnac.isa import MachineConfig
from nnac.program import HostCall, Slot
from nnac.schedule.forms import View
from nnac.schedule.kernels import Kernel, Parameters
from nnac.schedule.memory import Buffer, MemoryError_, allocate
from nnac.schedule.pins import Pinnable, choose
from nnac.vectors import Form, align, element_bytes

SMALL = 64                     # bytes: parameter sets up to this size always stay
LUT_IMAGE = 1028
RAW = b"\0"                    # stream header of the raw codec
ZERO = "zero"                  # key of the parameters that change nothing
ROOTS = "roots"                # … of the table of 1/sqrt
SHARED = (ZERO, ROOTS)         # of no layer, and read by many: they always stay

TileKey = tuple[str, int, int]         # kernel path, band, chunk


@frozen(eq=False)
class Page:
    """Consecutive parameter blocks that are loaded together."""

    key: str
    index: int
    data: bytes


@frozen(eq=False)
class Pages:
    """Every parameter set, cut into pages.  ``places``: (key, band) -> page, offset."""

    sets: Mapping[str, tuple[Page, ...]]
    places: Mapping[tuple[str, int], tuple[Page, int]]

    def __iter__(self) -> Iterator[Page]:
        return (p for pages in self.sets.values() for p in pages)


@frozen(eq=False)
class Scratch:
    """Where the values of one entry lie while it runs: ``name`` (``encoder.steps``) computes ``steps`` model steps of
    ``entry``, or (``joint.steps[4]``) one step of each of ``hypotheses``.

    addresses  of values and of buffers within nodes (``path.name``)      bytes  of activation memory that they take
    """

    name: str
    entry: str
    steps: int
    hypotheses: int
    forms: Mapping[str, Form]
    addresses: Mapping[str, int]
    bytes: int

    @property
    def vectors(self) -> int:
        """Vectors of a value that has one a step."""
        return self.steps * self.hypotheses


@frozen(eq=False)
class Residents:
    """What stays in A: states, constants, pages of parameters; the ring for the other pages; ``used`` bytes in all.

    pages  (key, index) -> address      data  name -> (address, bytes): what `init` loads
    """

    slots: tuple[Slot, ...]
    pages: Mapping[tuple[str, int], int]
    data: Mapping[str, tuple[int, bytes]]
    ring: int
    ring_bytes: int
    used: int

    @property
    def extent(self) -> tuple[int, int]:
        """(first, end) of what `init` loads."""
        return min(a for a, _ in self.data.values()), max(a + len(d) for a, d in self.data.values())


@frozen(eq=False)
class Held:
    """What stays in W and in the decoder: words of pinned tiles; a word of zeros (-1: none is needed); decoder tables
    that fit all at once."""

    pinned: Mapping[TileKey, int]
    zero_word: int
    tables: Mapping[bytes, int]


@frozen(eq=False)
class Image:
    """DRAM: address of everything in it; bytes from row to row of the tables that are read by index; the content."""

    addresses: Mapping[Hashable, int]
    pitch: Mapping[str, int]
    content: bytes


@frozen(eq=False)
class EntryPlan:
    """Addresses of one entry, as `Scratch` has them and with those of what stays; ``calls`` of the CPU, by node
    path."""

    name: str
    entry: str
    steps: int
    views: Mapping[str, View]
    buffers: Mapping[str, int]
    slots: Mapping[str, Slot]
    calls: Mapping[str, HostCall]
    hypotheses: int = 1

    @property
    def states(self) -> dict[str, int]:
        """Address of every state: of its first place."""
        return {name: s.address for name, s in self.slots.items()}


@frozen(eq=False)
class Layout:
    """Everything that has an address, and what lies there."""

    config: MachineConfig
    graph: QGraph
    forms: Mapping[str, Form]
    kernels: Mapping[str, Kernel]
    on_host: frozenset[str]
    luts: Mapping[bytes, int]
    pages: Pages
    scratch_bytes: int
    residents: Residents
    held: Held
    image: Image
    entries: Mapping[str, EntryPlan]

    def tile(self, key: TileKey) -> Tile:
        """A tile of a kernel."""
        return tile_of(self.kernels, key)


def tile_of(kernels: Mapping[str, Kernel], key: TileKey) -> Tile:
    """The tile that ``key`` names."""
    path, band, chunk = key
    return kernels[path].tiles[band][chunk]


# -------------------------------------------------------------------------------------------------------------- scratch

def scratch(graph: QGraph, forms: Mapping[str, Form], entry: str, steps: int, hypotheses: int, config: MachineConfig,
            own: Mapping[str, Mapping[str, int]]) -> Scratch:
    """Addresses for one entry of so many steps, or hypotheses, by live ranges in node positions.  MemoryError_ if they
    do not fit.

    own  node path -> name -> bytes of what lives within a node
    """
    nodes = graph.entry(entry)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    used = dict.fromkeys([*graph.inputs[entry], *(n.output for n in nodes)])
    for value in graph.inputs[entry]:
        first[value] = last[value] = -1
    for i, node in enumerate(nodes):
        for value in node.inputs:
            base = forms[value].base
            last[base] = max(last.get(base, i), i)
        if forms[node.output].base == node.output:             # no view
            first[node.output] = i
            last[node.output] = max(last.get(node.output, i), i)
    for value in graph.outputs[entry]:
        last[forms[value].base] = len(nodes)
    buffers = []
    for value in used:
        form = forms[value]
        if form.base != value:
            continue
        vectors = graph.rate(entry, value) * steps * hypotheses
        extent = max(o + w * form.size for o, w in form.segments)
        buffers.append(Buffer(value, align((vectors - 1) * form.stride + extent, 16), first[value], last[value]))
    for i, node in enumerate(nodes):
        for name, size in own.get(node.path, {}).items():
            buffers.append(Buffer(f"{node.path}.{name}", align(size, 16), i, i))
    name = f"{entry}.step" if steps == 1 else f"{entry}.steps"
    name = name if hypotheses == 1 else f"{entry}.steps[{hypotheses}]"
    addresses = allocate(buffers, config.a_bytes, what=f"activation memory of {name}")
    top = max((addresses[b.name] + b.bytes for b in buffers), default=0)
    return Scratch(name, entry, steps, hypotheses, {v: forms[v] for v in used}, addresses, top)


def views_of(graph: QGraph, s: Scratch) -> dict[str, View]:
    """The values of an entry at their addresses."""
    return {v: View(f, s.addresses[f.base], graph.rate(s.entry, v) * s.vectors) for v, f in s.forms.items()}


# ------------------------------------------------------------------------------------------------------------ residents

def paginate(parameter_sets: Iterable[Parameters], config: MachineConfig) -> Pages:
    """Cut every parameter set into pages."""
    sets: dict[str, tuple[Page, ...]] = {}
    places: dict[tuple[str, int], tuple[Page, int]] = {}
    for parameters in parameter_sets:
        pages: list[list[bytes]] = []
        owners: list[tuple[int, int]] = []
        for block in parameters.blocks:
            assert len(block) % 4 == 0, parameters.key
            if not pages or sum(map(len, pages[-1])) + len(block) > config.page:
                pages.append([])
            owners.append((len(pages) - 1, sum(map(len, pages[-1]))))
            pages[-1].append(block)
        made = sets[parameters.key] = tuple(Page(parameters.key, i, b"".join(held)) for i, held in enumerate(pages))
        for band, (page, offset) in enumerate(owners):
            places[parameters.key, band] = made[page], offset
    return Pages(sets, places)


def settle(graph: QGraph, pages: Pages, scratch_bytes: int, loads: Mapping[str, float], config: MachineConfig,
           places: Mapping[str, int]) -> Residents:
    """Give addresses to states, constants and pages.

    loads  times a second that each parameter set is read      places  entry -> hypotheses whose states have a place
    """
    states = [s for n in graph.nodes for s in _slots(n, places.get(n.entry, 1))]
    must = [Buffer(f"state {s.name}", align(s.bytes, 16)) for s in states]
    small = [p for own in pages.sets.values() for p in own if sum(len(q.data) for q in own) <= SMALL or p.key in SHARED]
    small_keys = {p.key for p in small}
    must += [Buffer(_name(p), align(len(p.data), 4), align=4) for p in small]
    big = [p for p in pages if p.key not in small_keys]
    room = Buffer("scratch", align(scratch_bytes, 64), align=64)
    free = config.a_bytes - room.bytes - sum(align(b.bytes, 16) for b in must) - 64
    total = sum(align(len(p.data)) for p in big)
    ring = 0
    if total > free and big:
        ring = max(2 * max(len(p.data) for p in big), config.page_ring)      # of a block longer than a page
        free -= ring
    chosen = choose([Pinnable((p.key, p.index, 0), align(len(p.data)), len(p.data) * loads.get(p.key, 1.0))
                     for p in big], max(0, free))
    keep = [p for p in big if (p.key, p.index, 0) in chosen]
    if len(keep) == len(big):
        ring = 0
    buffers = [room, Buffer("parameter ring", align(ring, 16)), *must]
    buffers += [Buffer(_name(p), align(len(p.data)), align=4) for p in keep]
    try:
        addresses = _in_order(buffers, config.a_bytes)
    except MemoryError_ as error:
        raise MemoryError_(f"`{config.name}`: {error}") from None
    slots = tuple(evolve(s, address=addresses[f"state {s.name}"]) for s in states)
    stay = {(p.key, p.index): addresses[_name(p)] for p in (*small, *keep)}
    data = {_name(p): (addresses[_name(p)], p.data) for p in (*small, *keep)}
    return Residents(slots, stay, data, addresses["parameter ring"], align(ring, 16),
                     max(addresses[b.name] + b.bytes for b in buffers))


def _in_order(buffers: Sequence[Buffer], size: int) -> dict[str, int]:
    """Addresses one after another: all live forever, so order is free and this one keeps pages of a set together."""
    at, out = 0, {}
    for b in buffers:
        at = align(at, b.align)
        out[b.name] = at
        at += b.bytes
    if at > size:
        allocate(buffers, size)                # says what is too large
        raise MemoryError_(f"activation memory holds {size:,} bytes, {at:,} are needed")
    return out


def _name(page: Page) -> str:
    return f"{page.key}[{page.index}]"


def _slots(node: Node, places: int) -> list[Slot]:
    """Its states, without an address yet."""
    return [Slot(s.name, 0, s.width, element_bytes(s.bits), s.scale, None, node.entry, places,
                 align(s.width * element_bytes(s.bits)) if places > 1 else 0, s.most) for s in node.states]


# -------------------------------------------------------------------------------------------------------------------- W

def hold(kernels: Mapping[str, Kernel], candidates: Iterable[Pinnable], config: MachineConfig) -> Held:
    """Choose the tiles that stay in W, and give them words.  PinError if those that must stay do not fit."""
    items = list(candidates)
    chosen = choose(items, config.pinned_words * config.lanes)
    pinned: dict[TileKey, int] = {}
    word = config.stream_words
    for key in (i.key for i in items if i.key in chosen):
        pinned[key] = word
        word += tile_of(kernels, key).live_words
    dead_band = any(not any(t.live_words for t in band) for k in kernels.values() for band in k.tiles)
    fixed = list(dict.fromkeys([h for k in kernels.values() for h, _ in k.headers] + [RAW] * dead_band))
    tables = {h: i for i, h in enumerate(fixed)} if len(fixed) <= config.decoder_tables else {}
    return Held(pinned, config.stream_words - 1 if dead_band else -1, tables)


# ----------------------------------------------------------------------------------------------------------------- DRAM

@define
class _Writer:
    """A DRAM image in the making."""

    addresses: dict[Hashable, int] = field(factory=dict)
    parts: list[bytes] = field(factory=list)
    size: int = 0

    def store(self, key: Hashable, data: bytes, to: int = 16) -> None:
        """Append, at a multiple of ``to``."""
        gap = -self.size % to
        self.parts += [b"\0" * gap, data] if gap else [data]
        self.addresses[key] = self.size + gap
        self.size += gap + len(data)


def image(graph: QGraph, kernels: Mapping[str, Kernel], luts: Iterable[bytes], pages: Pages, residents: Residents,
          held: Held, config: MachineConfig, rows: Mapping[str, NDArray],
          together: Mapping[str, Sequence[str]]) -> Image:
    """The DRAM image: what is loaded once, then parameter pages, then weights in streaming order.

    rows  node path -> table that is read by index
    together  node path -> kernels that are read band by band; others one after the other
    """
    out = _Writer()
    for lut in luts:
        out.store(("lut", lut), lut.ljust(LUT_IMAGE, b"\0"))
    if residents.data:
        start, end = residents.extent
        once = bytearray(end - start)
        for address, data in residents.data.values():
            once[address - start:address - start + len(data)] = data
        out.store("resident", bytes(once))
    for p in pages:
        if (p.key, p.index) not in residents.pages:
            out.store((p.key, p.index), p.data.ljust(align(len(p.data)), b"\0"))
    pitch: dict[str, int] = {}
    for path, values in rows.items():
        row = values.shape[1] * values.itemsize
        pitch[path] = align(row, 16)
        table = np.zeros((len(values), pitch[path]), np.uint8)
        table[:, :row] = np.ascontiguousarray(values).view(np.uint8)
        out.store(path, table.tobytes())
    pinned = []
    for node in graph.nodes:
        own = [k for k in kernels.values() if k.layer == node.path]
        for k in own:
            for header, _ in k.headers:
                if ("header", header) not in out.addresses:
                    out.store(("header", header), header)
        order = together.get(node.path, ())
        joint = sorted((k for k in own if k.name in order), key=lambda k: order.index(k.name))
        runs: list[list[Kernel]] = [joint] if joint else []
        runs += [[k] for k in own if k not in joint]
        for run in runs:
            for band in run[0].bands if run else ():
                for k in run:
                    for chunk, tile in enumerate(k.tiles[band.index]):
                        key = (k.path, band.index, chunk)
                        if not tile.live_words:
                            continue
                        if key in held.pinned:
                            pinned.append((key, tile.data))
                        else:
                            out.store(key, tile.data)
    for key, data in pinned:
        out.store(key, data)
    if held.zero_word >= 0:
        out.store("zero word", b"\0" * config.lanes)
        if ("header", RAW) not in out.addresses:
            out.store(("header", RAW), RAW)
    out.store("end", b"\0" * (-out.size % config.burst or config.burst))
    return Image(out.addresses, pitch, b"".join(out.parts))
