"""Layout: where everything lies, before a single instruction is made.

Activation memory A, from the bottom: scratch (each entry's values, by live ranges; entries never run together), the ring of parameter pages,
then what stays: states, small constants, and as many parameter pages as fit, those read most often first.
W: the stream ring, then pinned tiles.  DRAM: tables, parameter pages, and each kernel's tiles in the order in which they are streamed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import define, field, frozen

from nnac.ir import Node, QGraph
from nnac.isa import MachineConfig
from nnac.program import HostCall, Slot
from nnac.schedule.forms import Form, View, align, element_bytes
from nnac.schedule.kernels import Kernel, Parameters
from nnac.schedule.memory import Buffer, MemoryError_, allocate
from nnac.schedule.pins import Item, choose

SMALL = 64                     # bytes: parameter sets up to this size always stay
LUT_IMAGE = 1028
RAW = b"\0"                    # stream header of the raw codec


@define(eq=False)
class Page:
    """Consecutive parameter blocks that are loaded together; ``resident``: their address if they stay."""

    key: str
    index: int
    data: bytes
    resident: int | None = None


@frozen(eq=False)
class EntryPlan:
    """Addresses of one entry: ``name`` (``encoder.steps``) computes ``steps`` model steps of ``entry``."""

    name: str
    entry: str
    steps: int
    views: Mapping[str, View]
    buffers: Mapping[str, int]
    states: Mapping[str, int]
    calls: Mapping[str, HostCall]

    def state(self, node: Node) -> tuple[int, int]:
        """Addresses of (hidden, cell)."""
        return self.states[f"{node.path}.hidden"], self.states[f"{node.path}.cell"]


@define(eq=False)
class Layout:
    """Everything that has an address, and what lies there."""

    config: MachineConfig
    graph: QGraph
    forms: Mapping[str, Form]
    kernels: Mapping[str, Kernel]
    parameter_sets: Mapping[str, Parameters]
    on_host: frozenset[str] = frozenset()
    entries: dict[str, EntryPlan] = field(factory=dict)
    pages: dict[str, tuple[Page, ...]] = field(factory=dict)
    places: dict[tuple[str, int], tuple[Page, int]] = field(factory=dict)        # (key, band) -> page, offset
    scratch_bytes: int = 0
    page_base: int = 0
    page_bytes: int = 0
    slots: tuple[Slot, ...] = ()
    resident: dict[str, tuple[int, bytes]] = field(factory=dict)
    a_used: int = 0
    pinned: dict[tuple[str, int, int], int] = field(factory=dict)
    zero_word: int = -1
    luts: dict[bytes, int] = field(factory=dict)
    fixed_tables: dict[bytes, int] = field(factory=dict)
    dram: dict[Hashable, int] = field(factory=dict)
    pitch: dict[str, int] = field(factory=dict)
    image: list[bytes] = field(factory=list)
    image_bytes: int = 0

    def block(self, key: str, band: int) -> tuple[Page, int]:
        return self.places[key, band]

    def store(self, key: Hashable, data: bytes, to: int = 16) -> int:
        """Append to the DRAM image; returns (and remembers) the address."""
        gap = -self.image_bytes % to
        self.image += [b"\0" * gap, data] if gap else [data]
        self.dram[key] = self.image_bytes + gap
        self.image_bytes += gap + len(data)
        return self.dram[key]


# -------------------------------------------------------------------------------------------------------------- scratch

def plan_entry(layout: Layout, name: str, entry: str, steps: int, extra: Mapping[str, int], park: bool) -> tuple[dict[str, Form], list[Buffer]]:
    """Buffers of one entry with their live ranges, in node positions.  ``extra``: bytes of node-internal buffers by name."""
    graph = layout.graph
    nodes = graph.entry(entry)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    used = dict.fromkeys([*graph.inputs[entry], *(n.output for n in nodes)])
    for value in graph.inputs[entry]:
        first[value] = last[value] = -1
    for i, node in enumerate(nodes):
        for value in node.inputs:
            base = layout.forms[value].base
            last[base] = max(last.get(base, i), i)
        if node.op != "stack":
            first[node.output] = i
            last[node.output] = max(last.get(node.output, i), i)
    for value in graph.outputs[entry]:
        last[layout.forms[value].base] = len(nodes)
    buffers = []
    for value in used:
        form = layout.forms[value]
        if form.base != value:
            continue
        vectors = graph.values[value].rate * steps
        extent = max(o + w * form.size for o, w in form.segments)
        buffers.append(Buffer(value, align((vectors - 1) * form.stride + extent, 16), first[value], last[value]))
    for i, node in enumerate(nodes):
        for buffer, size in extra.items():
            if buffer.startswith(f"{node.path}.") and (park or not buffer.endswith("parked")):
                buffers.append(Buffer(buffer, align(size, 16), i, i))
    return {v: layout.forms[v] for v in used}, buffers


def views_of(layout: Layout, used: Mapping[str, Form], addresses: Mapping[str, int], steps: int) -> dict[str, View]:
    return {v: View(f, addresses[f.base], layout.graph.values[v].rate * steps) for v, f in used.items()}


# ------------------------------------------------------------------------------------------------------------- residents

def paginate(layout: Layout) -> None:
    """Cut every parameter set into pages."""
    limit = max(1024, layout.config.a_bytes // 64)
    for key, parameters in layout.parameter_sets.items():
        pages: list[Page] = []
        held: list[bytes] = []

        def close(key: str = key, pages: list[Page] = pages, held: list[bytes] = held) -> None:
            if held:
                pages.append(Page(key, len(pages), b"".join(held)))
                held.clear()

        owners: list[tuple[int, int]] = []
        for block in parameters.blocks:
            assert len(block) % 4 == 0, key
            if held and sum(map(len, held)) + len(block) > limit:
                close()
            owners.append((len(pages), sum(map(len, held))))
            held.append(block)
        close()
        layout.pages[key] = tuple(pages)
        for band, (page, offset) in enumerate(owners):
            layout.places[key, band] = (pages[page], offset)


def settle(layout: Layout, loads: Mapping[str, float]) -> None:
    """Give addresses to states, constants and pages.  ``loads``: times a second that each parameter set is read."""
    c = layout.config
    must = [Buffer(f"state {s.name}", align(s.width * s.size, 16)) for n in layout.graph.nodes for s in _slots(n)]
    small = [p for pages in layout.pages.values() for p in pages if sum(len(q.data) for q in pages) <= SMALL or p.key == "zero"]
    small_keys = {p.key for p in small}
    must += [Buffer(_name(p), align(len(p.data), 4), align=4) for p in small]
    big = [p for pages in layout.pages.values() for p in pages if p.key not in small_keys]
    scratch = Buffer("scratch", align(layout.scratch_bytes, 64), align=64)
    free = c.a_bytes - scratch.bytes - sum(align(b.bytes, 16) for b in must) - 64
    total = sum(align(len(p.data)) for p in big)
    ring = 0
    if total > free and big:
        ring = max(2 * max(len(p.data) for p in big), c.a_bytes // 16)
        free -= ring
    chosen = choose([Item((p.key, p.index, 0), align(len(p.data)), len(p.data) * loads.get(p.key, 1.0)) for p in big], max(0, free))
    keep = [p for p in big if (p.key, p.index, 0) in chosen]
    if len(keep) == len(big):
        ring = 0
    buffers = [scratch, Buffer("parameter ring", align(ring, 16)), *must]
    buffers += [Buffer(_name(p), align(len(p.data)), align=4) for p in keep]
    try:
        addresses = _in_order(buffers, c.a_bytes)
    except MemoryError_ as error:
        raise MemoryError_(f"`{c.name}`: {error}") from None
    layout.page_base, layout.page_bytes = addresses["parameter ring"], align(ring, 16)
    layout.slots = tuple(Slot(s.name, addresses[f"state {s.name}"], s.width, s.size, s.scale, None, n.entry)
                         for n in layout.graph.nodes for s in _slots(n))
    for p in (*small, *keep):
        p.resident = addresses[_name(p)]
        layout.resident[_name(p)] = (p.resident, p.data)
    layout.a_used = max(addresses[b.name] + b.bytes for b in buffers)


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


def _slots(node: Node) -> list[Any]:
    return [Slot(s.name, 0, s.width, element_bytes(s.bits), s.scale) for s in node.states]


# ------------------------------------------------------------------------------------------------------------------ DRAM

def fill_dram(layout: Layout, batched: bool) -> None:
    """Lay out the image: what is loaded once, then parameter pages, then weights in streaming order.

    batched  input products are computed ahead of the recurrence, so that a layer's kernels are read one after the other, not band by band
    """
    for lut in layout.luts:
        layout.store(("lut", lut), lut.ljust(LUT_IMAGE, b"\0"))
    residents = sorted(layout.resident.items(), key=lambda r: r[1][0])
    if residents:
        start, end = residents[0][1][0], max(a + len(d) for _, (a, d) in residents)
        image = bytearray(end - start)
        for _, (address, data) in residents:
            image[address - start:address - start + len(data)] = data
        layout.store("resident", bytes(image))
    for pages in layout.pages.values():
        for p in pages:
            if p.resident is None:
                layout.store((p.key, p.index), p.data.ljust(align(len(p.data)), b"\0"))
    for node in layout.graph.nodes:
        if node.op == "embedding" and node.path not in layout.on_host:
            weight = node.constants["weight"]
            size = layout.forms[node.output].size
            row = weight.shape[1] * size
            layout.pitch[node.path] = align(row, 16)
            table = np.zeros((len(weight), layout.pitch[node.path]), np.uint8)
            table[:, :row] = np.ascontiguousarray(weight.astype(f"<i{size}")).view(np.uint8)
            layout.store(node.path, table.tobytes())
    pinned = []
    for node in layout.graph.nodes:
        own = [k for k in layout.kernels.values() if k.layer == node.path]
        for k in own:
            for header, _ in k.headers:
                if ("header", header) not in layout.dram:
                    layout.store(("header", header), header)
        joint = [] if batched else [k for k in own if k.path.endswith((".input", ".recurrent"))]
        runs: list[list[Kernel]] = [joint] if joint else []
        runs += [[k] for k in own if k not in joint]
        for run in runs:
            for band in run[0].bands if run else ():
                for k in run:
                    for chunk, tile in enumerate(k.tiles[band.index]):
                        key = (k.path, band.index, chunk)
                        if not tile.live_words:
                            continue
                        if key in layout.pinned:
                            pinned.append((key, tile.data))
                        else:
                            layout.store(key, tile.data)
    for key, data in pinned:
        layout.store(key, data)
    if layout.zero_word >= 0:
        layout.store("zero word", b"\0" * layout.config.lanes)
        if ("header", RAW) not in layout.dram:
            layout.store(("header", RAW), RAW)
    layout.store("end", b"\0" * (-layout.image_bytes % layout.config.burst or layout.config.burst))
