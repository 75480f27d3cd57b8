"""Compile: a bound QGraph and a target become a program.  The stages, in order; each can be called and looked at alone.

    encode      kernels as encoded tiles, parameters as blocks            (`kernels`)
    place       activation memory, pinned tiles, DRAM image               (`layout`, `memory`, `pins`)
    emit        each entry as instructions in program order               (`emit`)
    order       loads ahead, semaphores in                                (`order`)
    prove       no race, no deadlock                                      (`verify`)
    predict     cycles of every entry                                     (`nnac.emulator.timing`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from nnac import isa
from nnac.entry import steps_per_second
from nnac.errors import UserError
from nnac.ir import Node, QGraph
from nnac.isa import MachineConfig
from nnac.program import INIT, Entry, HostCall, Program, Symbol, Tap, model_entry
from nnac.schedule import budget, pins
from nnac.schedule import layout as place
from nnac.schedule.emit import Emitter, Item, parked_bytes, pre_bytes
from nnac.schedule.forms import align, element_bytes, forms
from nnac.schedule.kernels import (
    W8,
    Kernel,
    Parameters,
    interleaved,
    kernel,
    linear_parameters,
    lstm_parameters,
    row_order,
    vector_parameters,
)
from nnac.schedule.layout import EntryPlan, Layout
from nnac.schedule.memory import MemoryError_, allocate
from nnac.schedule.order import hoist, synchronise
from nnac.schedule.passes import split
from nnac.schedule.proof import FENCE, OVERLAPPING, prove_operations
from nnac.schedule.verify import Operation
from nnac.target import Target

ISA_VERSION = "1"
LOADS = ("DW", "DA")           # units whose instructions move ahead
HOST_OPERATIONS = 8            # of a CPU per element of an elementwise operator (our choice)


class CompileError(UserError):
    """The model does not fit the target.  One line: what, how much, and the largest contributors."""


@frozen
class Settings:
    """What a policy says about the program, beyond the integers.

    frames   encoder steps computed together by ``encoder.steps`` (1: no such entry)
    codecs   kernel path -> ``auto`` or a codec's name      pins   kernel path -> auto | always | never
    places   layer path -> nna | cpu                        lines  layer or kernel path -> policy line, for listings and errors
    labels_per_second   how often the prediction network runs (per hypothesis), for pinning; the joint runs that often and once a frame
    """

    frames: int = 1
    codecs: Mapping[str, str] = field(factory=dict)
    pins: Mapping[str, str] = field(factory=dict)
    places: Mapping[str, str] = field(factory=dict)
    lines: Mapping[str, str] = field(factory=dict)
    labels_per_second: float = 12.0
    hypotheses: int = 1
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
        return cls(plan.frames("encoder"), each("codec"), each("pin"), each("place"), lines, budgets=tuple(plan.budgets))


    def of_directions(self, layers: Mapping[str, str]) -> Settings:
        """What is said of a bidirectional layer holds for its directions: ``layers`` maps their paths to its own."""
        def both(said: Mapping[str, str]) -> dict[str, str]:
            return {d: said[layer] for d, layer in layers.items() if layer in said} | dict(said)

        return evolve(self, places=both(self.places), lines=both(self.lines))


def compile_graph(graph: QGraph, target: Target, settings: Settings | None = None, *, plan: Mapping[str, Any] | None = None,
                  metadata: Mapping[str, Any] | None = None) -> Program:
    """The program of a bound graph.  CompileError if it does not fit; the result is proved free of races and deadlock."""
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
    entries = {name: evolve(entry, lines=np.array([number[line] for line in lines], np.uint32)) for name, (entry, lines, _) in made.items()}
    values = {v.name: v for v in graph.values.values()}
    calls = tuple(c for p in layout.entries.values() for c in p.calls.values())
    report = dict(entries={name: dict(cycles=e.cycles, instructions=len(e.words), **facts) for (name, e), (_, _, facts)
                           in zip(entries.items(), made.values(), strict=True)},
                  layers=kernel_report(layout), sram=dict(used=layout.a_used, size=layout.config.a_bytes, scratch=layout.scratch_bytes,
                                                        stream=layout.config.ring_bytes + layout.config.stream_words * layout.config.lanes),
                  pinned=dict(words=sum(_tile(layout, k).live_words for k in layout.pinned), size=layout.config.pinned_words),
                  dram=layout.image_bytes, host=[dict(path=c.path, cycles=c.cycles) for c in calls])
    program = Program(target, entries, np.frombuffer(b"".join(layout.image), np.uint8), layout.slots, symbols(layout), values, debug, calls,
                      ISA_VERSION, dict(plan or {}), dict(metadata or {}), report, passes.joins, graph.entries)
    report["latency"] = budget.latency(program, graph.metadata.get("frame_ms") or 0.0)
    if broken := budget.exceeded(program, settings.budgets, settings.lines):
        raise CompileError(f"{graph.name} on `{target.name}`: " + "; ".join(broken))
    return program


# --------------------------------------------------------------------------------------------------------------- placing

def lay_out(graph: QGraph, target: Target, settings: Settings) -> Layout:
    """Every tile, parameter and buffer, each with its address."""
    config = MachineConfig.of(target)
    shape = forms(graph)
    host = host_layers(graph, target, settings, config, shape)
    luts = table_slots(graph, config, host)
    kernels = encode_kernels(graph, target, settings, config, shape, host)
    layout = Layout(config, graph, shape, kernels, parameter_sets(graph, config, kernels, luts, host, settings.frames), host, luts=luts)
    place.paginate(layout)
    steps = {e: [1] + ([settings.frames] if model_entry(e) == "encoder" and settings.frames > 1 else []) for e in graph.inputs}
    scratch = {}
    for entry, counts in steps.items():
        for n in counts:
            name = f"{entry}.step" if n == 1 else f"{entry}.steps"
            extra = node_buffers(graph, entry, n, config, host)
            used, buffers = place.plan_entry(layout, name, entry, n, extra, park=True)
            addresses = allocate(buffers, config.a_bytes, what=f"activation memory of {name}")
            scratch[name] = (entry, n, used, addresses)
            top = max((addresses[b.name] + b.bytes for b in buffers), default=0)
            layout.scratch_bytes = max(layout.scratch_bytes, top, place.LUT_IMAGE if luts else 0)
    rates = calls_per_second(graph, settings)
    place.settle(layout, {k: rates[model_entry(graph.by_path[p.path].entry)] if p.path else 0.0 for k, p in layout.parameter_sets.items()})
    states = {s.name: s.address for s in layout.slots}
    ids = iter(range(1 << 16))
    for name, (entry, n, used, addresses) in scratch.items():
        views = place.views_of(layout, used, addresses, n)
        plan_ = EntryPlan(name, entry, n, views, addresses, states, {})
        calls = {node.path: host_call(layout, plan_, node, target, next(ids)) for node in graph.entry(entry) if node.path in host}
        layout.entries[name] = evolve(plan_, calls=calls)
    pin_weights(layout, settings, rates)
    fixed = list(dict.fromkeys([h for k in kernels.values() for h, _ in k.headers] + [place.RAW] * (layout.zero_word >= 0)))
    if len(fixed) <= config.decoder_tables:
        layout.fixed_tables = {h: i for i, h in enumerate(fixed)}
    place.fill_dram(layout, batched=settings.frames > 1)
    return layout


def host_layers(graph: QGraph, target: Target, settings: Settings, config: MachineConfig, shape: Mapping[str, Any]) -> frozenset[str]:
    """Layers that run on the CPU: asked for, not in the target's list, or in a form that no instruction takes."""
    out = set()
    for node in graph.nodes:
        if node.op == "stack":
            continue
        ins = [shape[v] for v in node.inputs]
        elementwise = node.op in ("layer_norm", "add", "multiply", "tanh", "sigmoid")
        awkward = elementwise and (not all(f.whole for f in (*ins, shape[node.output])) or (node.op == "layer_norm" and ins[0].width > 4096))
        if node.op == "lstm" and not interleaved(config.lanes) and node.attributes["cells"] > 1024:
            awkward = True
        if settings.places.get(node.path) == "cpu" or node.op not in target.operators or not hasattr(Emitter, node.op) or awkward:
            out.add(node.path)
    return frozenset(out)


def host_call(layout: Layout, plan: EntryPlan, node: Node, target: Target, id: int) -> HostCall:
    """An operator on the CPU, with its price: wake-up, values both ways, arithmetic."""
    graph = layout.graph
    inputs = tuple(plan.views[v].port(v) for v in node.inputs)
    output = plan.views[node.output].port(node.output)
    states = tuple(s.port for s in layout.slots if s.name in {x.name for x in node.states})
    moved = sum(p.vectors * p.width * p.size for p in (*inputs, output)) + 2 * sum(p.width * p.size for p in states)
    weights = sum(v.size for v in node.constants.values() if v.ndim == 2)
    work = output.vectors * (weights if weights and node.op != "embedding" else HOST_OPERATIONS * output.width)
    seconds = target.cpu.wake + Fraction(moved, target.cpu.transfer) + Fraction(work, target.cpu.macs)
    cycles = -(-(seconds * target.clock).numerator // (seconds * target.clock).denominator)
    formats = tuple(graph.values[v] for v in dict.fromkeys((*node.inputs, node.output)))
    return HostCall(id, node.path, node.op, dict(node.attributes), inputs, output, states, int(cycles), formats, dict(node.constants))


def table_slots(graph: QGraph, config: MachineConfig, host: frozenset[str]) -> dict[bytes, int]:
    """LUT slot of every table in use.  ValueError if there are more than the machine has."""
    out: dict[bytes, int] = {}
    for node in graph.nodes:
        if node.path not in host:
            for name in ("sigmoid", "tanh", "tanh_cell") if node.op == "lstm" else ("table",) if node.op in ("tanh", "sigmoid") else ():
                out.setdefault(node.constants[name].astype("<i2").tobytes(), len(out))
    if len(out) > config.luts:
        raise ValueError(f"{len(out)} different tables are in use, the machine holds {config.luts}")
    return out


def encode_kernels(graph: QGraph, target: Target, settings: Settings, config: MachineConfig, shape: Mapping[str, Any],
                   host: frozenset[str]) -> dict[str, Kernel]:
    """Every weight matrix that the machine multiplies."""
    rates = [code for code, rate in enumerate(config.rates) if rate > config.rates[W8]]
    out: dict[str, Kernel] = {}

    def put(path: str, node: Node, weight: Any, order: Any, segments: Sequence[tuple[int, int]], bits: int) -> None:
        forced = settings.codecs.get(path, "auto")
        out[path] = kernel(path, node.path, weight, order, segments, config, bits > 8, element_bytes(bits), target.codecs,
                           None if forced == "auto" else forced, rates)

    for node in graph.nodes:
        if node.path in host:
            continue
        c, a = node.constants, node.attributes
        if node.op == "linear":
            put(f"{node.path}.weight", node, c["weight"], None, shape[node.inputs[0]].segments, graph.values[node.inputs[0]].bits)
        elif node.op == "lstm":
            order = row_order(node, config.lanes)
            put(f"{node.path}.input", node, c["input"], order, shape[node.inputs[0]].segments, graph.values[node.inputs[0]].bits)
            put(f"{node.path}.recurrent", node, c["recurrent"], order, ((0, c["recurrent"].shape[1]),), a["hidden_bits"])
            if a.get("project"):
                put(f"{node.path}.project", node, c["project"], None, ((0, a["cells"]),), a["cell_output_bits"])
    return out


def parameter_sets(graph: QGraph, config: MachineConfig, kernels: Mapping[str, Kernel], luts: Mapping[bytes, int],
                   host: frozenset[str], frames: int) -> dict[str, Parameters]:
    """Every block of constants that vector instructions read."""
    out = [Parameters("zero", (bytes(8 + 8 * config.lanes),), "")] if any(n.op == "lstm" for n in graph.nodes) else []
    for node in graph.nodes:
        if node.path in host:
            continue
        if node.op == "linear":
            out.append(linear_parameters(node, graph, kernels[f"{node.path}.weight"]))
        elif node.op == "lstm":
            slots = {t: luts[node.constants[t].astype("<i2").tobytes()] for t in ("sigmoid", "tanh", "tanh_cell")}
            out += lstm_parameters(node, config.lanes, slots).values()
        elif node.op in ("add", "multiply", "layer_norm"):
            out.append(vector_parameters(node, graph))
        elif node.op in ("tanh", "sigmoid"):
            out.append(vector_parameters(node, graph, luts[node.constants["table"].astype("<i2").tobytes()]))
    return {p.key: p for p in out}


def node_buffers(graph: QGraph, entry: str, steps: int, config: MachineConfig, host: frozenset[str]) -> dict[str, int]:
    """Bytes of the buffers that live within one node."""
    out: dict[str, int] = {}
    for node in graph.entry(entry):
        if node.op != "lstm" or node.path in host:
            continue
        vectors = graph.values[node.output].rate * steps
        a = node.attributes
        out[f"{node.path}.pre"] = pre_bytes(node, config.lanes)
        if a.get("project"):
            out[f"{node.path}.raw"] = align(a["cells"] * element_bytes(a["cell_output_bits"]))
        if vectors > 1:
            out[f"{node.path}.parked"] = parked_bytes(node, vectors)
    return out


def calls_per_second(graph: QGraph, settings: Settings) -> dict[str, float]:
    """How often each entry runs, in real time: what pinning weighs."""
    return steps_per_second(graph.entries, graph.metadata.get("frame_ms"), settings.labels_per_second, settings.hypotheses)


def pin_weights(layout: Layout, settings: Settings, rates: Mapping[str, float]) -> None:
    """Choose the tiles that stay in W, and give them words."""
    c, items = layout.config, []
    for k in layout.kernels.values():
        node = layout.graph.by_path[k.layer]
        calls = rates[model_entry(node.entry)]
        if node.op == "lstm":                  # recurrent weights are read for every vector, the others at best once for all of them
            vectors = layout.graph.values[node.output].rate
            together = vectors * (settings.frames if model_entry(node.entry) == "encoder" else 1)
            calls *= vectors if not k.path.endswith(".input") else vectors / min(together, c.columns * c.banks)
        places = [(b, i, t) for b, band in enumerate(k.tiles) for i, t in enumerate(band) if t.live_words]
        items += [pins.Item((k.path, b, i), t.live_words * c.lanes, len(t.data) * calls, settings.pins.get(k.path, "auto"), n)
                  for n, (b, i, t) in enumerate(places)]
    chosen = pins.choose(items, c.pinned_words * c.lanes)
    word = c.stream_words
    for key in (i.key for i in items if i.key in chosen):
        layout.pinned[key] = word
        word += _tile(layout, key).live_words
    if any(not any(t.live_words for t in band) for k in layout.kernels.values() for band in k.tiles):
        layout.zero_word = c.stream_words - 1


def _tile(layout: Layout, key: tuple[str, int, int]) -> Any:
    path, band, chunk = key
    return layout.kernels[path].tiles[band][chunk]


# ---------------------------------------------------------------------------------------------------------------- entries

def emit(layout: Layout, plan: EntryPlan) -> list[Item]:
    """One entry in program order, without semaphores."""
    emitter = Emitter(layout, plan)
    for node in layout.graph.entry(plan.entry):
        emitter.node(node)
    return emitter.halt()


def initialise(layout: Layout) -> list[Item]:
    """The entry that runs once: constants, look-up tables, decoder tables, pinned weights."""
    emitter = Emitter(layout, EntryPlan(INIT, INIT, 1, {}, {}, {}, {}))
    if "resident" in layout.dram:
        start = min(a for a, _ in layout.resident.values())
        size = align(max(a + len(d) for a, d in layout.resident.values()) - start)
        for at in range(0, size, 1 << 17):
            emitter.put(isa.LDA(dram=layout.dram["resident"] + at, dst=start + at, bytes=min(1 << 17, size - at)), "constants")
    for lut, slot in layout.luts.items():
        emitter.put(isa.LDA(dram=layout.dram["lut", lut], dst=0, bytes=place.LUT_IMAGE), "table")
        emitter.put(isa.TAB(src=0, slot=slot), "table")
    steps = {place.RAW: 0} | {h: s for k in layout.kernels.values() for h, s in k.headers}
    for header, slot in layout.fixed_tables.items():
        emitter.put(isa.LDT(dram=layout.dram["header", header], bytes=len(header), steps=steps[header], table=slot), "decoder table")
    for (path, band, chunk), word in layout.pinned.items():
        k = layout.kernels[path]
        emitter.path = k.layer
        emitter.load(k, band, chunk, word)
    if layout.zero_word >= 0:
        emitter.path = ""
        slot = emitter.table(place.RAW, 0)
        emitter.put(isa.LDW(dram=layout.dram["zero word"], bytes=layout.config.lanes, word=layout.zero_word, rows=layout.config.lanes, cols=1,
                            live=1, steps=1, table=slot), "zero word", reads=(("TABLE", slot, slot + 1),))
    return emitter.halt()


def finish(layout: Layout, items: Sequence[Item], plan: EntryPlan | None, settings: Settings) -> tuple[Entry, list[tuple[str, str, str]], dict]:
    """Order, synchronise, prove, time and encode one entry; with a debug line per instruction and facts for the report."""
    from nnac.emulator.timing import simulate, stream_bursts

    ordered = [items[i] for i in hoist(items, LOADS)]
    sync = synchronise(ordered, isa.SEMAPHORES, OVERLAPPING, FENCE)
    code = [evolve(i.instruction, wait=w, signal=s) for i, w, s in zip(ordered, sync.waits, sync.signals, strict=True)]
    operations = [Operation(i.unit, i.reads, i.writes, w, s) for i, w, s in zip(ordered, sync.waits, sync.signals, strict=True)]
    spare = unread(layout, plan) if plan else ()
    proof = prove_operations(operations, layout.config, layout.image_bytes, holds(layout, plan), keeps(layout, plan), spare)
    timing = simulate(code, layout.config)
    words = np.frombuffer(b"".join(i.encode() for i in code), "<u8").reshape(-1, 2)
    lines = [(i.path, settings.lines.get(i.path, ""), i.what) for i in ordered]
    cycles = timing.cycles
    facts = dict(dram_bytes=sum(stream_bursts(code, layout.config)) * layout.config.burst, waits=proof.waits, conflicts=proof.conflicts,
                 layers=cycles_by_layer(ordered, timing.done.tolist()))
    name = INIT if plan is None else plan.name
    if plan is None:
        return Entry(name, words, np.zeros(len(code), np.uint32), cycles=cycles), lines, facts
    graph = layout.graph
    ports = {n: v.port(n) for n, v in plan.views.items()}
    makers = {n.output: n.path for n in graph.entry(plan.entry)}
    taps = tuple(Tap(ports[n.output], _last_write(ordered, makers.get(layout.forms[n.output].base))) for n in graph.entry(plan.entry))
    return Entry(name, words, np.zeros(len(code), np.uint32), tuple(ports[v] for v in graph.inputs[plan.entry]),
                 tuple(ports[v] for v in graph.outputs[plan.entry]), taps, plan.steps, cycles, spare,
                 any(n.attributes.get("reversed") for n in graph.entry(plan.entry))), lines, facts


def holds(layout: Layout, plan: EntryPlan | None) -> list[tuple[str, int, int]]:
    """What holds something when the entry starts: DRAM always; after `init` the constants; the host's inputs; states."""
    if plan is None:
        return []
    out = [("A", a, a + len(d)) for a, d in layout.resident.values()]
    out += [("A", *r) for s in layout.slots for r in s.port.ranges]
    out += [("A", *r) for v in layout.graph.inputs[plan.entry] for r in plan.views[v].port(v).ranges]
    out += [("W", w, w + _tile(layout, k).live_words) for k, w in layout.pinned.items()]
    out += [("W", layout.zero_word, layout.zero_word + 1)] if layout.zero_word >= 0 else []
    out += [("TABLE", s, s + 1) for s in layout.fixed_tables.values()]
    return out


def cycles_by_layer(items: Sequence[Item], done: Sequence[int]) -> dict[str, int]:
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
    out = [("A", *r) for s in layout.slots for r in s.port.ranges]
    if plan is None:
        out += [("A", a, a + len(d)) for a, d in layout.resident.values()]
        return [*out, ("W", 0, layout.config.words), ("LUT", 0, layout.config.luts), ("TABLE", 0, layout.config.decoder_tables)]
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
        if k.path.endswith(".project"):
            places = [plan.buffers[f"{node.path}.raw"]]
        elif k.path.endswith(".recurrent"):
            view = plan.views[node.output]
            places = [*(view.at(t) for t in range(view.vectors)), plan.state(node)[0]]
        else:
            view = plan.views[node.inputs[0]]
            places = [view.at(t) for t in range(view.vectors)]
        out += [(at + c.offset, at + c.offset + c.span * size) for at in places for c in dead]
    return tuple(out)


def _last_write(items: Sequence[Item], path: str | None) -> int:
    """Index of the last instruction of a layer: its value is whole then.  A value that the host wrote (None) is whole from the start."""
    return max((i for i, item in enumerate(items) if item.path == path and item.unit not in LOADS), default=0) if path else 0


# ----------------------------------------------------------------------------------------------------------------- report

def kernel_report(layout: Layout) -> dict[str, dict[str, Any]]:
    """By kernel: weights, bytes, bits a weight, codec, and how much of it stays on chip (``pinned`` bytes of SRAM, ``pinned_bytes`` as encoded).

    Of an embedding one row a label is read: the others count as if they stayed.
    """
    out = {}
    for k in layout.kernels.values():
        kept = [_tile(layout, key) for key in layout.pinned if key[0] == k.path]
        live = sum(t.rows * t.live_words for band in k.tiles for t in band)
        out[k.path] = dict(layer=k.layer, weights=k.rows * k.cols, live_weights=live, live_words=k.words, bytes=k.bytes, codec=k.codec,
                           bits=round(8 * k.bytes / (k.rows * k.cols), 4), pinned_bytes=sum(len(t.data) for t in kept),
                           pinned=sum(t.live_words for t in kept) * layout.config.lanes)
    for path, pitch in layout.pitch.items():
        table = layout.graph.by_path[path].constants["weight"]
        size = pitch * len(table)
        bits = round(8 * size / table.size, 4)
        out[f"{path}.weight"] = dict(layer=path, weights=table.size, live_weights=0, live_words=0, bytes=size, codec="rows", bits=bits,
                                     pinned_bytes=size - pitch, pinned=0)
    return out


def symbols(layout: Layout) -> tuple[Symbol, ...]:
    """Names for ranges of memory."""
    out = [Symbol(s.name, "A", s.address, s.width * s.size) for s in layout.slots]
    out += [Symbol(name, "A", address, len(data)) for name, (address, data) in layout.resident.items()]
    return tuple(out)


__all__ = ["CompileError", "Settings", "compile_graph"]
