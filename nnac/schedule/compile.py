"""Compile: a bound QGraph and a target become a program.  The stages, in order; each can be called and looked at alone.

    encode      kernels as encoded tiles, parameters as blocks            (`kernels`, `contest`)
    place       activation memory, pinned tiles, DRAM image               (`layout`, `memory`, `pins`)
    emit        each entry as instructions in program order               (`emit`)
    order       loads ahead, semaphores in                                (`order`)
    prove       no race, no deadlock                                      (`verify`)
    predict     cycles of every entry                                     (`nnac.emulator.timing`)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, field, frozen

from nnac import isa
from nnac.entry import steps_per_second
from nnac.errors import UserError
from nnac.ir import Node, QGraph
from nnac.isa import MachineConfig
from nnac.ops import operator
from nnac.placement import cpu_seconds, cpu_work, moved_bytes, on_cpu
from nnac.program import INIT, Entry, HostCall, Port, Program, Symbol, Tap
from nnac.schedule import budget, contest, pins
from nnac.schedule import layout as place
from nnac.schedule.emit import Emitted, Emitter
from nnac.schedule.forms import View, forms
from nnac.schedule.kernels import W8, Kernel, Parameters, variants
from nnac.schedule.layout import EntryPlan, Layout, Residents, Scratch
from nnac.schedule.memory import MemoryError_
from nnac.schedule.ops import Made, emission, of_view
from nnac.schedule.order import Needs, dependences, hoist, moved, synchronise
from nnac.schedule.passes import split
from nnac.schedule.proof import FENCE, OVERLAPPING, prove_operations
from nnac.schedule.verify import Operation
from nnac.target import Target
from nnac.vectors import Form, align, element_bytes

if TYPE_CHECKING:
    from nnac.emulator.timing import Timing

ISA_VERSION = "1"
LOADS = ("DW", "DA")           # units whose instructions move ahead


class CompileError(UserError):
    """The model does not fit the target.  One line: what, how much, and the largest contributors."""


@frozen
class Settings:
    """What a policy says about the program, beyond the integers.

    frames   encoder steps computed together by ``encoder.steps`` (1: no such entry)
    codecs   kernel path -> ``auto`` or a codec's name      pins   kernel path -> auto | always | never
    places   layer path -> nna | cpu
    lines  layer or kernel path -> policy line, for listings and errors
    labels_per_second
    how often the prediction network runs, for pinning; the joint runs that often and once a frame
    hypotheses
    how many a search holds: entries that every hypothesis runs for itself (``prediction.steps[4]``) take up to so many
    at once, which share each weight's reading, and the call
    """

    frames: int = 1
    codecs: Mapping[str, str] = field(factory=dict)
    pins: Mapping[str, str] = field(factory=dict)
    places: Mapping[str, str] = field(factory=dict)
    lines: Mapping[str, str] = field(factory=dict)
    labels_per_second: float = 12.0
    hypotheses: int = 1
    decode: Any = None                     # `nnac.plan.Decode`: what search the budgets are of; None: greedy
    budgets: tuple[Any, ...] = ()          # of `nnac.plan.Budget`

    @classmethod
    def of(cls, plan: Any) -> Settings:
        """The settings of a resolved plan."""
        def each(name: str) -> dict[str, str]:
            return {s.path: v for s in plan if (v := getattr(s, name)) is not None and s.kind != "gate"}

        lines = {}
        for site in plan:
            chain = plan.origin(site.path, "weights" if site.weights is not None else "activations")
            if chain and site.kind != "gate":
                lines[site.path] = f"{chain[-1].file}:{chain[-1].line}" if chain[-1].file else chain[-1].rule
        return cls(plan.frames("encoder"), each("codec"), each("pin"), each("place"), lines,
                   hypotheses=plan.hypotheses, decode=plan.decode, budgets=tuple(plan.budgets))

    def moved(self, to: Callable[[str], str]) -> Settings:
        """The same under other names of layers and kernels."""
        changes: Any = {k: {to(path): v for path, v in getattr(self, k).items()} for k in _BY_PATH}
        return evolve(self, **changes)

    def joined(self, other: Settings) -> Settings:
        """What is said of other layers as well; frames, rates, hypotheses and budgets stay these."""
        changes: Any = {k: dict(getattr(self, k)) | dict(getattr(other, k)) for k in _BY_PATH}
        return evolve(self, **changes)

    def of_directions(self, layers: Mapping[str, str]) -> Settings:
        """What is said of a bidirectional layer holds for its directions: ``layers`` maps their paths to its own."""
        def both(said: Mapping[str, str]) -> dict[str, str]:
            return {d: said[layer] for d, layer in layers.items() if layer in said} | dict(said)

        return evolve(self, places=both(self.places), lines=both(self.lines))


_BY_PATH = ("codecs", "pins", "places", "lines")


def compile_graph(graph: QGraph, target: Target, settings: Settings | None = None, *,
                  plan: Mapping[str, Any] | None = None,
                  metadata: Mapping[str, Any] | None = None) -> Program:
    """The program of a bound graph.  CompileError if it does not fit; the result is proved free of races and
    deadlock."""
    assert graph.bound, "only a bound graph has integers to compile"
    passes = split(graph)
    graph, settings = passes.graph, (settings or Settings()).of_directions(passes.layers)
    try:
        layout = lay_out(graph, target, settings)
    except (MemoryError_, pins.PinError, ValueError) as error:
        raise CompileError(f"{graph.name} on `{target.name}`: {error}") from error
    made = {INIT: finish(layout, initialise(layout), None, settings)}
    for plan_ in layout.entries.values():
        made[plan_.name] = finish(layout, emit(layout, plan_), plan_, settings)
    debug = tuple(dict.fromkeys(line for _, lines, _ in made.values() for line in lines))
    number = {line: i for i, line in enumerate(debug)}
    entries = {name: evolve(entry, lines=np.array([number[line] for line in lines], np.uint32))
               for name, (entry, lines, _) in made.items()}
    values = {v.name: v for v in graph.values.values()}
    calls = tuple(c for p in layout.entries.values() for c in p.calls.values())
    sram = dict(used=layout.residents.used, size=layout.config.a_bytes, scratch=layout.scratch_bytes,
                stream=layout.config.ring_bytes + layout.config.stream_words * layout.config.lanes)
    report = dict(entries={name: dict(cycles=e.cycles, instructions=len(e.words), **facts)
                           for (name, e), (_, _, facts) in zip(entries.items(), made.values(), strict=True)},
                  layers=kernel_report(layout), sram=sram,
                  pinned=dict(words=sum(layout.tile(k).live_words for k in layout.held.pinned),
                              size=layout.config.pinned_words),
                  dram=len(layout.image.content), host=[dict(path=c.path, cycles=c.cycles) for c in calls])
    program = Program(target, entries, np.frombuffer(layout.image.content, np.uint8), layout.residents.slots,
                      symbols(layout), values, debug, calls,
                      ISA_VERSION, dict(plan or {}), dict(metadata or {}), report, passes.joins, graph.entries)
    report["latency"] = budget.latency(program, graph.metadata.get("frame_ms") or 0.0)
    report["search"] = budget.searched(program, graph.metadata.get("frame_ms"), settings.decode)
    if broken := budget.exceeded(program, settings.budgets, settings.lines):
        raise CompileError(f"{graph.name} on `{target.name}`: " + "; ".join(broken))
    return program


# -------------------------------------------------------------------------------------------------------------- placing

def lay_out(graph: QGraph, target: Target, settings: Settings,
            encoded: Mapping[str, Kernel] | None = None) -> Layout:
    """Every tile, parameter and buffer, each with its address.  ``encoded``: the kernels, where they are there
    already."""
    config = MachineConfig.of(target)
    shape = forms(graph)
    host = host_layers(graph, target, settings, shape)
    luts = table_slots(graph, config, host)
    kernels = encode_kernels(graph, target, settings, config, shape, host) if encoded is None else encoded
    parameters = parameter_sets(graph, Made(config.lanes, kernels, luts), host)
    pages = place.paginate(parameters, config)
    here = machine_nodes(graph, host)
    sizes = {e: hypotheses(graph, e, settings, config, host) for e in graph.inputs}
    shapes = [(e, n, 1) for e in graph.inputs for n in dict.fromkeys((1, batched(graph, e, settings)))]
    shapes += [(e, 1, n) for e, several in sizes.items() for n in several]
    entries = [place.scratch(graph, shape, e, n, k, config, node_buffers(graph, here, n, k, config))
               for e, n, k in shapes]
    scratch_bytes = max([max(s.bytes, place.LUT_IMAGE if luts else 0) for s in entries], default=0)
    rates = steps_per_second(graph.entries, graph.metadata.get("frame_ms"), settings.labels_per_second)
    loads = {p.key: rates[graph.declared(graph.by_path[p.path].entry).name] if p.path else 0.0 for p in parameters}
    residents = place.settle(graph, pages, scratch_bytes, loads, config, {e: max((1, *k)) for e, k in sizes.items()})
    held = place.hold(kernels, pinnable(graph, kernels, settings, rates, config), config)
    tables = {n.path: t for n in here if (t := emission(n.op).rows(n, shape[n.output].size)) is not None}
    # where frames are batched, input products are made ahead of the recurrence: kernels are read one after the other,
    # not band by band
    together = {} if settings.frames > 1 else {n.path: emission(n.op).streamed_together for n in here}
    image = place.image(graph, kernels, luts, pages, residents, held, config, tables, together)
    ids = iter(range(1 << 16))
    plans = {s.name: entry_plan(graph, s, residents, target, host, ids) for s in entries}
    return Layout(config, graph, shape, kernels, host, luts, pages, scratch_bytes, residents, held, image, plans)


def batched(graph: QGraph, entry: str, settings: Settings) -> int:
    """Steps of an entry that one call computes at the most."""
    return settings.frames if graph.declared(entry).frames else 1


def hypotheses(graph: QGraph, entry: str, settings: Settings, config: MachineConfig,
               host: Container[str]) -> tuple[int, ...]:
    """How many hypotheses calls of an entry take, besides one: powers of two, and the most that are of use.

    That is what a search holds, as far as the banks hold their sums: so many meet each weight word while it lies in W.
    None for an entry that is not every hypothesis's own, has a state on the CPU or one that has a single place, or
    looks at several vectors as one.
    """
    nodes = graph.entry(entry)
    most = min(settings.hypotheses, config.columns * config.banks)
    if (not graph.declared(entry).each_hypothesis
            or any(n.states and (n.path in host or not emission(n.op).side_by_side) for n in nodes)
            or any(graph.rate(entry, v) != 1 for n in nodes for v in (*n.inputs, n.output))):
        return ()
    return tuple(k for k in (*(1 << i for i in range(1, 16) if 1 << i < most), most) if k > 1)


def host_layers(graph: QGraph, target: Target, settings: Settings, shape: Mapping[str, Form]) -> frozenset[str]:
    """Layers that run on the CPU."""
    return frozenset(n.path for n in graph.nodes if on_cpu(operator(n.op), n.attributes, settings.places.get(n.path),
                                                           target,
                                                           shape[n.inputs[0]].width,
                                                           all(shape[v].whole for v in (*n.inputs, n.output))))


def machine_nodes(graph: QGraph, host: frozenset[str]) -> list[Node]:
    """The nodes that have instructions."""
    return [n for n in graph.nodes if not of_view(n) and n.path not in host]


def node_buffers(graph: QGraph, nodes: Iterable[Node], steps: int, hypotheses: int,
                 config: MachineConfig) -> dict[str, Mapping[str, int]]:
    """Node path -> name -> bytes of the buffers that live within a node."""
    return {n.path: emission(n.op).buffers(n, graph.values[n.output].rate * steps, hypotheses, config.lanes)
            for n in nodes}


def entry_plan(graph: QGraph, s: Scratch, residents: Residents, target: Target, host: frozenset[str],
               ids: Iterator[int]) -> EntryPlan:
    """The addresses of an entry, and its calls of the CPU."""
    views = place.views_of(graph, s)
    calls = {n.path: host_call(graph, views, residents, n, target, next(ids)) for n in graph.entry(s.entry)
             if n.path in host}
    return EntryPlan(s.name, s.entry, s.steps, views, s.addresses, {s.name: s for s in residents.slots}, calls,
                     s.hypotheses)


def host_call(graph: QGraph, views: Mapping[str, View], residents: Residents, node: Node, target: Target,
              id: int) -> HostCall:
    """An operator on the CPU, with its price: wake-up, values both ways, arithmetic."""
    inputs = tuple(views[v].port(v) for v in node.inputs)
    output = views[node.output].port(node.output)
    states = tuple(s.port for s in residents.slots if s.name in {x.name for x in node.states})
    moved = moved_bytes([(p.vectors, p.width, p.size) for p in (*inputs, output)], [(p.width, p.size) for p in states])
    weights = sum(v.size for v in node.constants.values() if v.ndim == 2)
    seconds = cpu_seconds(target.cpu, moved, output.vectors * cpu_work(operator(node.op), weights, output.width))
    formats = tuple(graph.values[v] for v in dict.fromkeys((*node.inputs, node.output)))
    return HostCall(id, node.path, node.op, node.attributes, inputs, output, states, math.ceil(seconds * target.clock),
                    formats,
                    dict(node.constants))


def table_slots(graph: QGraph, config: MachineConfig, host: frozenset[str]) -> dict[bytes, int]:
    """LUT slot of every table in use.  ValueError if there are more than the machine has."""
    out: dict[bytes, int] = {}
    for node in machine_nodes(graph, host):
        for name in emission(node.op).tables_of(node):
            out.setdefault(node.constants[name].astype("<i2").tobytes(), len(out))
    if len(out) > config.luts:
        raise ValueError(f"{len(out)} different tables are in use, the machine holds {config.luts}")
    return out


def encode_kernels(graph: QGraph, target: Target, settings: Settings, config: MachineConfig, shape: Mapping[str, Form],
                   host: frozenset[str]) -> dict[str, Kernel]:
    """Every weight matrix that the machine multiplies, by path."""
    rates = [code for code, rate in enumerate(config.rates) if rate > config.rates[W8]]
    out: dict[str, tuple[Kernel, ...]] = {}
    for node in machine_nodes(graph, host):
        for m in emission(node.op).matrices(node, graph, shape, config.lanes):
            forced = settings.codecs.get(f"{node.path}.{m.name}", "auto")
            made = variants(node.path, m.name, m.weight, m.order, m.segments, config, m.act_bits > 8,
                            element_bytes(m.act_bits), target.codecs, None if forced == "auto" else forced, rates)
            out[made[0].path] = made

    def price(part: QGraph, kernels: Mapping[str, Kernel], pinned: bool) -> int:
        return cycles(part, target, settings if pinned else evolve(settings, pins=dict.fromkeys(kernels, "never")),
                      kernels)

    return contest.settled(graph, out, price)


def cycles(graph: QGraph, target: Target, settings: Settings, kernels: Mapping[str, Kernel]) -> int:
    """Of all entries, with kernels that are encoded already."""
    layout = lay_out(graph, target, settings, kernels)
    return sum(scheduled(layout, emit(layout, plan))[2].cycles for plan in layout.entries.values())


def parameter_sets(graph: QGraph, made: Made, host: frozenset[str]) -> list[Parameters]:
    """Every block of constants that vector instructions read."""
    nodes = machine_nodes(graph, host)
    nothing = any(emission(n.op).zero_block for n in nodes)
    found = [Parameters(place.ZERO, (bytes(8 + 8 * made.lanes),), "")] if nothing else []
    found += [p for node in nodes for p in emission(node.op).parameters(node, graph, made)]
    out = {p.key: p for p in found}
    assert all(out[p.key].blocks == p.blocks for p in found), "parameters of one key are the same for all who read them"
    return list(out.values())


def pinnable(graph: QGraph, kernels: Mapping[str, Kernel], settings: Settings, rates: Mapping[str, float],
             config: MachineConfig) -> Iterator[pins.Pinnable]:
    """The tiles that could stay in W, with the traffic that each would save.

    Of a kernel that a call reads again and again as much as the stream's part of W holds is read once a call anyway.
    """
    for k in kernels.values():
        node = graph.by_path[k.layer]
        vectors, steps = graph.values[node.output].rate, batched(graph, node.entry, settings)
        reads = emission(node.op).reads(k.name, vectors, vectors * steps, config.columns * config.banks)
        rate = rates[graph.declared(node.entry).name]
        places = [(b, i, t) for b, band in enumerate(k.tiles) for i, t in enumerate(band) if t.live_words]
        stays = k.stays(config) if emission(node.op).again(k.name) else 0
        for n, (b, i, t) in sorted(enumerate(places), key=lambda p: -pins.spread(p[0])):
            once, stays = stays >= t.live_words, max(0, stays - t.live_words)
            yield pins.Pinnable((k.path, b, i), t.live_words * config.lanes,
                                len(t.data) * rate * (1 / steps if once else reads),
                                settings.pins.get(k.path, "auto"), n)


# -------------------------------------------------------------------------------------------------------------- entries

def emit(layout: Layout, plan: EntryPlan) -> list[Emitted]:
    """One entry in program order, without semaphores."""
    emitter = Emitter(layout, plan)
    for node in layout.graph.entry(plan.entry):
        emitter.path = node.path
        if node.path in layout.on_host:
            emitter.host(node)
        elif not of_view(node):
            emission(node.op).emit(node, emitter)
    return emitter.halt()


def initialise(layout: Layout) -> list[Emitted]:
    """The entry that runs once: constants, look-up tables, decoder tables, pinned weights."""
    emitter = Emitter(layout, EntryPlan(INIT, INIT, 1, {}, {}, {}, {}))
    dram, held = layout.image.addresses, layout.held
    if layout.residents.data:
        start, end = layout.residents.extent
        size = align(end - start)
        for at in range(0, size, 1 << 17):
            emitter.put(isa.LDA(dram=dram["resident"] + at, dst=start + at, bytes=min(1 << 17, size - at)), "constants")
    for lut, slot in layout.luts.items():
        emitter.put(isa.LDA(dram=dram["lut", lut], dst=0, bytes=place.LUT_IMAGE), "table")
        emitter.put(isa.TAB(src=0, slot=slot), "table")
    steps = {place.RAW: 0} | {h: s for k in layout.kernels.values() for h, s in k.headers}
    for header, slot in held.tables.items():
        emitter.put(isa.LDT(dram=dram["header", header], bytes=len(header), steps=steps[header], table=slot),
                    "decoder table")
    for (path, band, chunk), word in held.pinned.items():
        k = layout.kernels[path]
        emitter.path = k.layer
        emitter.load(k, band, chunk, word)
    if held.zero_word >= 0:
        emitter.path = ""
        slot = emitter.table(place.RAW, 0)
        emitter.put(isa.LDW(dram=dram["zero word"], bytes=layout.config.lanes, word=held.zero_word,
                            rows=layout.config.lanes, cols=1,
                            live=1, steps=1, table=slot), "zero word", reads=(("TABLE", slot, slot + 1),))
    return emitter.halt()


def scheduled(layout: Layout, items: Sequence[Emitted], needed: Needs | None = None) -> tuple[list[Emitted],
        list[isa.Instruction], Timing]:
    """An entry in its order, as instructions with their semaphores, and the cycles of each.  ``needed``: their
    dependences, where they are known."""
    from nnac.emulator.timing import simulate

    needed = needed or dependences(items)
    order = hoist(items, LOADS, needed)
    ordered = [items[i] for i in order]
    try:
        sync = synchronise(ordered, layout.config.semaphores, OVERLAPPING, FENCE, moved(needed, order))
    except ValueError as error:
        raise CompileError(f"target `{layout.config.name}` has too few semaphores: {error}") from None
    code = [evolve(i.instruction, wait=w, signal=s) if w or s else i.instruction
            for i, w, s in zip(ordered, sync.waits, sync.signals, strict=True)]
    return ordered, code, simulate(code, layout.config)


def finish(layout: Layout, items: Sequence[Emitted], plan: EntryPlan | None, settings: Settings) -> tuple[Entry,
        list[tuple[str, str, str]], dict]:
    """Order, synchronise, prove, time and encode one entry; with a debug line per instruction and facts for the
    report."""
    from nnac.emulator.timing import stream_bursts

    needed = dependences(items)
    ordered, code, timing = scheduled(layout, items, needed)
    for unit in passing(layout.graph, plan) if plan else ():
        other = scheduled(layout, [items[i] for i in hoist(items, (unit,), needed, passing=True)])
        if other[2].cycles < timing.cycles:
            ordered, code, timing = other
    operations = [Operation(i.unit, i.reads, i.writes, c.wait, c.signal) for i, c in zip(ordered, code, strict=True)]
    spare = unread(layout, plan) if plan else ()
    proof = prove_operations(operations, layout.config, len(layout.image.content), holds(layout, plan),
                             keeps(layout, plan), spare)
    words = np.frombuffer(b"".join(i.encode() for i in code), "<u8").reshape(-1, 2)
    lines = [(i.path, settings.lines.get(i.path, ""), i.what) for i in ordered]
    cycles = timing.cycles
    facts = dict(dram_bytes=sum(stream_bursts(code, layout.config)) * layout.config.burst, waits=proof.waits,
                 conflicts=proof.conflicts,
                 layers=cycles_by_layer(ordered, timing.done.tolist()))
    name = INIT if plan is None else plan.name
    if plan is None:
        return Entry(name, words, np.zeros(len(code), np.uint32), cycles=cycles), lines, facts
    graph = layout.graph
    ports = {n: v.port(n) for n, v in plan.views.items()}
    makers = {n.output: n.path for n in graph.entry(plan.entry)}
    taps = tuple(Tap(ports[n.output], _whole_after(ordered, ports[n.output], makers.get(layout.forms[n.output].base)))
                 for n in graph.entry(plan.entry))
    return Entry(name, words, np.zeros(len(code), np.uint32), tuple(ports[v] for v in graph.inputs[plan.entry]),
                 tuple(ports[v] for v in graph.outputs[plan.entry]), taps, plan.steps, cycles, spare,
                 any(n.attributes.get("reversed") for n in graph.entry(plan.entry)), plan.hypotheses), lines, facts


def passing(graph: QGraph, plan: EntryPlan) -> Iterator[str]:
    """Units whose instructions may pass each other in an entry, each by itself, where that is faster: vectors of one
    layer under the recurrence of the one before it; products with a hidden state while rows of an embedding are read,
    for as many bands as there are banks."""
    if plan.steps > 1:
        yield "VX"
    if operator(graph.entry(plan.entry)[0].op).by_index:
        yield "MV"


def holds(layout: Layout, plan: EntryPlan | None) -> list[tuple[str, int, int]]:
    """What holds something when the entry starts: DRAM always; after `init` the constants; the host's inputs;
    states."""
    if plan is None:
        return []
    out = [("A", a, a + len(d)) for a, d in layout.residents.data.values()]
    out += [("A", *r) for s in layout.residents.slots for r in s.of(s.places).ranges]
    out += [("A", *r) for v in layout.graph.inputs[plan.entry] for r in plan.views[v].port(v).ranges]
    out += [("W", w, w + layout.tile(k).live_words) for k, w in layout.held.pinned.items()]
    out += [("W", layout.held.zero_word, layout.held.zero_word + 1)] if layout.held.zero_word >= 0 else []
    out += [("TABLE", s, s + 1) for s in layout.held.tables.values()]
    return out


def cycles_by_layer(items: Sequence[Emitted], done: Sequence[int]) -> dict[str, int]:
    """By how much each layer moves the end: what it costs with all that runs under it.  Sums to the whole."""
    last: dict[str, int] = {}
    for item, end in zip(items, done, strict=True):
        last[item.path] = max(last.get(item.path, 0), int(end) + 1)
    out, before = {}, 0
    for path, end in sorted(last.items(), key=lambda x: x[1]):
        out[path or "end"], before = end - before, max(before, end)
    return out


def keeps(layout: Layout, plan: EntryPlan | None) -> list[tuple[str, int, int]]:
    """What an entry leaves behind: outputs and states; after `init` the constants."""
    out = [("A", *r) for s in layout.residents.slots for r in s.of(s.places).ranges]
    if plan is None:
        out += [("A", a, a + len(d)) for a, d in layout.residents.data.values()]
        return [*out, ("W", 0, layout.config.words), ("LUT", 0, layout.config.luts),
                ("TABLE", 0, layout.config.decoder_tables)]
    return out + [("A", *r) for v in layout.graph.outputs[plan.entry] for r in plan.views[v].port(v).ranges]


def unread(layout: Layout, plan: EntryPlan) -> tuple[tuple[int, int], ...]:
    """Stretches of A that only dead tiles would read: activations whose weights are all pruned."""
    out: list[tuple[int, int]] = []
    for k in layout.kernels.values():
        node = layout.graph.by_path[k.layer]
        dead = [c for i, c in enumerate(k.chunks) if not any(band[i].live_words for band in k.tiles)]
        if not dead or node.entry != plan.entry:
            continue
        size = 2 if k.act16 else 1
        places = emission(node.op).read_at(node, k.name, plan)
        out += [(at + c.offset, at + c.offset + c.span * size) for at in places for c in dead]
    return tuple(out)


def _whole_after(items: Sequence[Emitted], port: Port, path: str | None) -> int:
    """Index of the last instruction of a layer that writes its value, of whatever unit.

    A value that the host wrote (None) is whole from the start.
    """
    if path is None:
        return 0

    def writes(item: Emitted) -> bool:
        return item.path == path and any(s == "A" and first < e and f < end for s, first, end in item.writes
                                         for f, e in port.ranges)
    return max((i for i, item in enumerate(items) if writes(item)), default=0)


# --------------------------------------------------------------------------------------------------------------- report

def kernel_report(layout: Layout) -> dict[str, dict[str, Any]]:
    """By kernel: weights, bytes, bits a weight, codec, and how much of it stays on chip (``pinned`` bytes of SRAM,
    ``pinned_bytes`` as encoded).

    Of an embedding one row a label is read: the others count as if they stayed.
    """
    out = {}
    for k in layout.kernels.values():
        kept = [layout.tile(key) for key in layout.held.pinned if key[0] == k.path]
        live = sum(t.rows * t.live_words for band in k.tiles for t in band)
        out[k.path] = dict(layer=k.layer, weights=k.rows * k.cols, live_weights=live, live_words=k.words, bytes=k.bytes,
                           codec=k.codec,
                           bits=round(8 * k.bytes / (k.rows * k.cols), 4), pinned_bytes=sum(len(t.data) for t in kept),
                           pinned=sum(t.live_words for t in kept) * layout.config.lanes,
                           pinned_words=sum(t.live_words for t in kept), cycles=k.cycles(layout.config))
    for node in machine_nodes(layout.graph, layout.on_host):
        stays = any(page.startswith(f"{node.path}.") for page, _ in layout.residents.pages)
        for name, count in emission(node.op).weights(node).items():
            out[f"{node.path}.{name}"] = dict(layer=node.path, weights=count, live_weights=count, live_words=0,
                                              bytes=count, codec="parameters", bits=8.0,
                                              pinned_bytes=count if stays else 0, pinned=0, pinned_words=0, cycles=0)
    for path, pitch in layout.image.pitch.items():
        table = layout.graph.by_path[path].constants["weight"]
        size = pitch * len(table)
        bits = round(8 * size / table.size, 4)
        out[f"{path}.weight"] = dict(layer=path, weights=table.size, live_weights=0, live_words=0, bytes=size,
                                     codec="rows", bits=bits,
                                     pinned_bytes=size - pitch, pinned=0, pinned_words=0, cycles=0)
    return out


def symbols(layout: Layout) -> tuple[Symbol, ...]:
    """Names for ranges of memory."""
    out = [Symbol(s.name, "A", s.address, s.bytes) for s in layout.residents.slots]
    out += [Symbol(name, "A", address, len(data)) for name, (address, data) in layout.residents.data.items()]
    return tuple(out)


__all__ = ["CompileError", "Settings", "compile_graph"]
