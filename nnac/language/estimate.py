"""What a plan will cost, before anything is trained or compiled.  For lint, `nnac explain`, `nnac diff` and hover.

Two numbers of everything.  *Expected*: what is printed; the compiler's own figures replace it once a program exists.  *Least*: what no weights and
no schedule can get below, for lint refuses a policy only where the compiler would, whatever training makes of the weights.

Bytes   weights at the bits that one expects after encoding (`coded`), codebooks and stream headers included, as the compiler counts them
SRAM    what stays (states, pinned weights) plus what a layer needs at once (input, output, sums) plus the stream buffers
Cycles  of one encoder step and of the prediction and joint steps that follow it (`cycles`).  A call that computes several steps together counts
        for each of them in equal parts, as in the compiler's budgets; how long its first step waits for the others is `wait_seconds`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property

from attrs import evolve, field, frozen

from nnac.language.coded import by_blocks, codecs, expected_bits, least_bits, sparsity
from nnac.language.cycles import BANKS, TILE_WORDS, Work, read_passes, stays, vectors_of, work
from nnac.language.widths import output_bits
from nnac.model.graph import Kernel, Layer, ModelGraph
from nnac.plan import Plan
from nnac.target import Target

EMITTED = ("stack", "linear", "lstm", "layer_norm", "embedding", "add", "multiply", "tanh", "sigmoid")      # what the compiler emits
HOST_OPERATIONS = 8                    # of a CPU per element of an elementwise operator, as the compiler prices them


@frozen
class KernelCost:
    """One kernel: bits as encoded, expected and at the least; bytes that it takes in W, decoded; the share of it that stays there."""

    path: str
    weights: int
    bits: int
    least_bits: int
    held_bytes: int
    kept: Fraction = Fraction(0)

    @property
    def bytes(self) -> int:
        return -(-self.bits // 8)


@frozen
class LayerCost:
    """One layer, for one step of its entry point.  ``cpu_seconds`` None: it runs on the machine."""

    path: str
    entry: str
    bytes: int
    cycles: int
    buffer_bytes: int
    state_bytes: int
    cpu_seconds: Fraction | None = None


@frozen(eq=False)
class Estimate:
    """See the module.  ``fill``: cycles of each entry before the first product and after the last, for one step."""

    plan: Plan
    kernels: dict[str, KernelCost] = field(repr=False)
    layers: dict[str, LayerCost] = field(repr=False)
    fill: dict[str, int]
    least_cycles: int
    wait_seconds: float

    @cached_property
    def weight_bytes(self) -> int:
        return sum(k.bytes for k in self.kernels.values())

    @property
    def weights(self) -> int:
        return sum(k.weights for k in self.kernels.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.weight_bytes / max(1, self.weights)

    @property
    def pinned_bytes(self) -> int:
        """Bytes of W that hold weights which stay on chip."""
        return sum(math.ceil(k.held_bytes * k.kept) for k in self.kernels.values())

    @property
    def stream_bytes(self) -> int:
        """The stream's buffers: compressed bytes before the decoder, and decoded words after it."""
        return 2 * self.plan.target.stream_buffers * TILE_WORDS * self.plan.target.lanes

    @property
    def state_bytes(self) -> int:
        return sum(c.state_bytes for c in self.layers.values())

    @property
    def sram_bytes(self) -> int:
        largest = max((c.buffer_bytes for c in self.layers.values()), default=0)
        parameters = 8 * sum(k.rows for layer in self.plan.graph for k in layer.kernels if layer.kind != "embedding" and (
            k.name != "recurrent" or self.plan[layer.path].accumulate == "sum16"))          # a bias, a multiplier and a shift for every row
        return self.pinned_bytes + self.stream_bytes + largest + self.state_bytes + parameters

    @property
    def cycles(self) -> int:
        """Cycles of one encoder step with the prediction and joint steps that follow it, the CPU's part included."""
        cpu = sum((c.cpu_seconds for c in self.layers.values() if c.cpu_seconds is not None), Fraction(0))
        return sum(c.cycles for c in self.layers.values()) + math.ceil(cpu * self.plan.target.clock) + sum(self.fill.values())

    @property
    def seconds(self) -> float:
        return float(Fraction(self.cycles, self.plan.target.clock))

    @property
    def call_seconds(self) -> float:
        """Computing from the last frame of a call to the result of its last step: all its encoder steps, then one of prediction and joint."""
        frames, t = self.plan.frames("encoder"), self.plan.target
        inside = [c for c in self.layers.values() if c.entry == "encoder"]
        encoder = sum(c.cycles + float((c.cpu_seconds or 0) * t.clock) for c in inside) + self.fill.get("encoder", 0)
        return (self.cycles + (frames - 1) * encoder) / t.clock

    def quantity(self, name: str) -> float:
        """What is expected of a budget's quantity."""
        return {"weights": self.weight_bytes, "sram": self.sram_bytes, "latency": self.seconds, "cycles": self.cycles,
                "bits_per_weight": self.bits_per_weight}[name]

    def least(self, name: str) -> float:
        """What a budget's quantity takes at the least: no program of this policy is below it."""
        t = self.plan.target
        here = [k for path, k in self.kernels.items() if self.layers[self.plan.graph.layer_of(path).path].cpu_seconds is None]
        size = sum(k.least_bits for k in here) // 8
        return {"weights": size, "sram": self.stream_bytes + self.state_bytes, "latency": self.least_cycles / t.clock,
                "cycles": self.least_cycles, "bits_per_weight": 8 * size / max(1, sum(k.weights for k in here))}[name]

    def contributors(self, name: str, count: int = 3) -> list[tuple[str, float]]:
        """The largest parts of a quantity, in its unit: kernels for bytes, layers for time and memory."""
        clock = self.plan.target.clock
        parts: dict[str, float] = {
            "weights": {k.path: k.bytes for k in self.kernels.values()},
            "bits_per_weight": {k.path: k.bits / max(1, k.weights) for k in self.kernels.values()},
            "sram": {c.path: c.buffer_bytes + c.state_bytes for c in self.layers.values()} | {
                "pinned weights": self.pinned_bytes, "stream buffers": self.stream_bytes},
            "cycles": {c.path: c.cycles + float((c.cpu_seconds or 0) * clock) for c in self.layers.values()},
            "latency": {c.path: c.cycles / clock + float(c.cpu_seconds or 0) for c in self.layers.values()},
        }[name]  # type: ignore[assignment]
        return sorted(parts.items(), key=lambda kv: -kv[1])[:count]


def estimate(plan: Plan, model: ModelGraph) -> Estimate:
    """The cost of ``plan`` on its own target."""
    kernels = {k.path: _kernel(plan, k, layer) for layer in model for k in layer.kernels}
    kernels = _kept(plan, model, kernels)
    number = {layer.path: i for i, layer in enumerate(model)}
    sites = [plan[layer.path] for layer in model]
    values = {"activations": {i: s.activations for i, s in enumerate(sites)}, "hidden": {i: s.hidden for i, s in enumerate(sites)}}
    layers, fill, least = {}, {}, Fraction(0)
    for entry in dict.fromkeys(layer.entry for layer in model):
        inside = [layer for layer in model if layer.entry == entry]
        steps = plan.frames("encoder") if entry == "encoder" else 1
        works, cpus, streams = {}, {}, {}
        for layer in inside:
            out_bits = output_bits(model, values, number, layer)
            in_bits = _in_bits(model, values, number, layer)
            width_in = _width_in(model, layer)
            cpu = _host_seconds(plan.target, layer, width_in, vectors_of(plan, layer), -(-out_bits // 8))
            cpus[layer.path] = cpu
            works[layer.path] = Work() if on_cpu(plan, layer) else work(plan, layer, width_in, in_bits, out_bits)
            streams[layer.path] = Fraction(0) if on_cpu(plan, layer) else _streamed(plan, layer, kernels)
            layers[layer.path] = LayerCost(layer.path, entry, sum(kernels[k.path].bytes for k in layer.kernels), 0,
                                           *_memory(plan, layer, width_in, out_bits), cpu / steps if on_cpu(plan, layer) else None)
        per_byte = Fraction(plan.target.clock, plan.target.dram.bandwidth)
        # the units run side by side and weights are loaded ahead: the longest of the sums is what counts, not the sum of the longest
        bound = sum(streams.values()) * per_byte > sum(w.compute for w in works.values())
        for layer in inside:
            cost = streams[layer.path] * per_byte if bound else Fraction(works[layer.path].compute)
            c = layers[layer.path]
            layers[layer.path] = LayerCost(c.path, c.entry, c.bytes, math.ceil(cost / steps), c.buffer_bytes, c.state_bytes, c.cpu_seconds)
        last = next((works[layer.path] for layer in reversed(inside) if layer.kernels), Work())
        fill[entry] = (plan.target.dram.latency + last.tail if bound else 0) // steps
        least += _least(plan, inside, works, cpus, kernels) / steps
    wait = (plan.frames("encoder") - 1) * (model.frame_ms or 0.0) / 1000
    return Estimate(plan, kernels, layers, fill, math.floor(least), wait)


def on_cpu(plan: Plan, layer: Layer) -> bool:
    """Whether a layer runs on the CPU: asked for, unknown to the target, or nothing that the compiler emits."""
    return layer.kind != "stack" and (plan[layer.path].place == "cpu" or layer.kind not in plan.target.operators or layer.kind not in EMITTED)


def _kernel(plan: Plan, kernel: Kernel, layer: Layer) -> KernelCost:
    t, sites = plan.target, plan.gates(kernel.path)
    whole = plan[kernel.path]
    if all(s.settings == whole.settings for s in sites):
        sites = (whole,)
    rows = kernel.rows // len(sites)
    if layer.kind == "embedding":                                  # held as rows of its output's integers, whatever its weights are
        given = plan[layer.path].activations
        bits = 8 * kernel.weights * -(-(given.bits if given else 8) // 8)
        return KernelCost(kernel.path, kernel.weights, bits, 8 * kernel.weights, 0)
    finer = kernel.name == "recurrent" and layer.kind == "lstm" and plan[layer.path].accumulate == "acc32"
    if finer:                                                      # kernels settled alike are quantised as one matrix, on one scale
        other = kernel.path.removesuffix("recurrent") + "input"
        finer = [s.weights for s in plan.gates(other)] == [s.weights for s in plan.gates(kernel.path)]
    able = codecs(whole.codec, t.codecs)                           # a stream is encoded in one way, whatever its gates say
    expected, least, live = 0.0, 0, Fraction(0)
    for site in sites:
        assert site.weights is not None
        grain = site.weights.granularity
        sharing = {"channel": kernel.cols, "group": grain.size or kernel.cols, "gate": kernel.rows * kernel.cols // max(1, len(kernel.gates)),
                   "tensor": rows * kernel.cols}[grain.kind]
        expected += rows * kernel.cols * expected_bits(site, sharing, able, finer)
        least += rows * kernel.cols * least_bits(site, able)
        live += rows * (1 - sparsity(site) if by_blocks(site) and getattr(site.sparsity, "block", 1) >= t.lanes else 1)
    held = Fraction(-(-kernel.rows // t.lanes) * t.lanes * kernel.cols) * live / kernel.rows
    wide = any(s.weights is not None and s.weights.multiplied_bits > 8 for s in sites)
    return KernelCost(kernel.path, kernel.weights, math.ceil(expected), least, math.ceil(held) * (2 if wide else 1))


def _kept(plan: Plan, model: ModelGraph, kernels: dict[str, KernelCost]) -> dict[str, KernelCost]:
    """The kernels with the share of each that stays on chip: those pinned, then those worth most traffic a second for a byte of SRAM."""
    free, out = plan.target.pinned, dict(kernels)
    calls = {"encoder": 1000 / (model.frame_ms or 30.0), "prediction": 12.0}          # a second, as the compiler has it
    calls["joint"] = calls["encoder"] + calls["prediction"]
    ranked = []
    for layer in model:
        for k in layer.kernels:
            site, cost = plan[k.path], kernels[k.path]
            if layer.kind == "embedding" or on_cpu(plan, layer) or site.pin == "never" or not cost.held_bytes:
                continue
            vectors = vectors_of(plan, layer)
            passes = vectors if layer.recurrent and k.name != "input" else Fraction(vectors, min(vectors, plan.target.columns * BANKS))
            rate = calls.get(layer.entry, 1.0) / (plan.frames("encoder") if layer.entry == "encoder" else 1)
            ranked.append((site.pin != "always", -float(passes) * rate * cost.bytes / cost.held_bytes, k.path))
    for _, _, path in sorted(ranked):
        share = min(Fraction(1), Fraction(free, out[path].held_bytes))
        out[path] = evolve(out[path], kept=share)
        free -= math.floor(share * out[path].held_bytes)
    return out


def _streamed(plan: Plan, layer: Layer, kernels: dict[str, KernelCost]) -> Fraction:
    """Bytes that one call reads for a layer."""
    t, vectors = plan.target, vectors_of(plan, layer)
    if layer.kind == "embedding":
        return Fraction(layer.width + t.dram.burst) * vectors
    total = Fraction(0)
    for k in layer.kernels:
        cost = kernels[k.path]
        moving = cost.bytes * (1 - cost.kept)
        once = stays(t, math.ceil(cost.held_bytes * (1 - cost.kept) / t.lanes))
        total += moving * (1 if once else read_passes(t, layer, k, vectors))
    return total


def _least(plan: Plan, inside: list[Layer], works: dict[str, Work], cpus: dict[str, Fraction], kernels: dict[str, KernelCost]) -> Fraction:
    """Cycles that a call of an entry takes whatever the weights are: the longest of what its units cannot avoid."""
    t = plan.target
    cpu = sum((cpus[x.path] for x in inside if on_cpu(plan, x)), Fraction(0)) * t.clock
    here = [x for x in inside if not on_cpu(plan, x)]
    # the compiler may send a layer to the CPU whose shape no instruction takes: then it costs that instead
    vector = sum((min(Fraction(works[x.path].vector), cpus[x.path] * t.clock) for x in here), Fraction(0))
    matrix = sum(works[x.path].matrix_least for x in here if x.kind == "linear" or t.lanes % 16 == 0)
    streams = [kernels[k.path] for x in here if x.kind != "embedding" for k in x.kernels]
    most = max((Fraction(k.least_bits, k.weights) for k in streams), default=Fraction(0))
    unread = Fraction(sum(k.least_bits for k in streams)) - most * t.pinned
    return max(unread / 8 * t.clock / t.dram.bandwidth, cpu + max(vector, Fraction(matrix)), Fraction(0))


def _width_in(model: ModelGraph, layer: Layer) -> int:
    return sum(model.by_path[i].width if i in model.by_path else model.inputs.get(i, 0) for i in layer.inputs)


def _in_bits(model: ModelGraph, values: dict, number: dict[str, int], layer: Layer) -> int:
    source = model.by_path.get(layer.inputs[0]) if layer.inputs else None
    return output_bits(model, values, number, source) if source is not None else int(values["activations"][number[layer.path]].bits)


def _memory(plan: Plan, layer: Layer, width_in: int, out_bits: int) -> tuple[int, int]:
    """(bytes of a layer's buffers, bytes of its states)."""
    site, size, vectors = plan[layer.path], -(-out_bits // 8), vectors_of(plan, layer)
    directions = 2 if layer.attributes.get("bidirectional") else 1
    cells = layer.attributes.get("cells", 0) * directions if layer.recurrent else 0
    hidden = (site.hidden.bits if site.hidden else 8) if layer.recurrent else 8
    state = 2 * cells + layer.width * -(-hidden // 8) if layer.recurrent else 0
    parked = cells // directions * 4 * vectors * 4 if vectors > 1 and layer.kind == "lstm" else 0
    return (width_in + layer.width) * vectors * size + parked, state


def _host_seconds(t: Target, layer: Layer, width_in: int, vectors: int, size: int) -> Fraction:
    """A layer's time on the CPU in one call: waking it, moving values there and back, computing.  Never more than the compiler's price."""
    moved = Fraction((width_in + layer.width) * vectors * size)
    weights = sum(k.weights for k in layer.kernels)
    work = vectors * (weights if weights and layer.kind != "embedding" else HOST_OPERATIONS * layer.width)
    return t.cpu.wake + moved / t.cpu.transfer + Fraction(work, t.cpu.macs)


def cpu_seconds(t: Target, layer: Layer, width_in: int, bits: int) -> Fraction:
    """What one step of a layer costs on the CPU."""
    return _host_seconds(t, layer, width_in, layer.rate, -(-bits // 8))
