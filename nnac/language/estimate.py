"""What a plan will cost, before anything is trained or compiled.  For lint, `nnac explain`, `nnac diff` and hover.

Two numbers of everything.  *Expected*: what is printed; the compiler's own figures replace it once a program exists.
*Least*: what no weights and no schedule can get below, for lint refuses a policy only where the compiler would,
whatever training makes of the weights.

Bytes   weights at the bits that one expects after encoding (`coded`), codebooks and stream headers included, as the
        compiler counts them
SRAM    what stays (states, pinned weights) plus what a layer needs at once (input, output, sums) plus the stream
        buffers
Cycles  of one encoder step and of the prediction and joint steps that follow it (`cycles`).  A call that computes
        several steps together counts for each of them in equal parts, as in the compiler's budgets; how long its first
        step waits for the others is `wait_seconds`.
"""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction
from functools import cached_property

from attrs import evolve, field, frozen

from nnac.entry import FRAME_MS, LABELS_PER_SECOND, steps_per_second
from nnac.errors import UserError
from nnac.isa.config import TILE_WORDS, MachineConfig
from nnac.language.coded import by_blocks, codecs, expected_bits, least_bits, sparsity
from nnac.language.cycles import frames, machine, read_passes, vectors_of, work
from nnac.language.placed import cpu_layers, seconds, width_of
from nnac.language.widths import output_bits, value_bits
from nnac.model.graph import Kernel, Layer, ModelGraph
from nnac.ops._work import Work
from nnac.plan import Plan

RQ_PARAMETERS = 8              # bytes a row: a bias, a multiplier and a shift


@frozen
class KernelCost:
    """One kernel: bits as encoded, expected and at the least; bytes that it takes in W, decoded; the share of it that
    stays there."""

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
    """See the module.

    fill       cycles of each entry before the first product and after the last, for one step
    languages  the language models beside the recogniser whose files the policy names, by their names there
    """

    plan: Plan
    kernels: dict[str, KernelCost] = field(repr=False)
    layers: dict[str, LayerCost] = field(repr=False)
    fill: dict[str, int]
    least_cycles: int
    wait_seconds: float
    languages: dict[str, Estimate] = field(factory=dict, repr=False)

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
    def largest_buffers(self) -> int:
        """What the largest layer reads and makes: of values, no program holds less at once."""
        return max((c.buffer_bytes for c in self.layers.values()), default=0)

    @property
    def parameter_bytes(self) -> int:
        """What brings sums to formats."""
        return RQ_PARAMETERS * sum(k.rows for layer in self.plan.graph for k in layer.kernels
                                   if not layer.operator.by_index and not (
            # one set for kernels that share a sum
            self.plan[layer.path].accumulate == "acc32" and k.name in layer.operator.shares_sum[1:]))

    @property
    def sram_bytes(self) -> int:
        return (self.pinned_bytes + self.stream_bytes + self.largest_buffers + self.state_bytes
                + self.parameter_bytes)

    @property
    def cycles(self) -> int:
        """Cycles of one encoder step with the prediction and joint steps that follow it, the CPU's part included."""
        cpu = sum((c.cpu_seconds for c in self.layers.values() if c.cpu_seconds is not None), Fraction(0))
        return sum(c.cycles
                   for c in self.layers.values()) + math.ceil(cpu * self.plan.target.clock) + sum(self.fill.values())

    @property
    def seconds(self) -> float:
        return float(Fraction(self.cycles, self.plan.target.clock))

    @property
    def call_seconds(self) -> float:
        """Computing from the last frame of a call to the result of its last step: all its encoder steps, then one of
        prediction and joint."""
        pace = self.plan.graph.entries[0].name
        steps, t = next((frames(self.plan, x) for x in self.plan.graph if x.entry == pace), 1), self.plan.target
        inside = [c for c in self.layers.values() if c.entry == pace]
        first = sum(c.cycles + float((c.cpu_seconds or 0) * t.clock) for c in inside) + self.fill.get(pace, 0)
        return (self.cycles + (steps - 1) * first) / t.clock

    @cached_property
    def searched(self) -> dict[str, float]:
        """Entry -> cycles for one frame, with what the policy's search asks of it; language models beside the
        recogniser where the policy names their files."""
        frames, hypotheses = 1000 / (self.plan.graph.frame_ms or FRAME_MS), self.plan.hypotheses
        beside = {name: c for name, e in self.languages.items() for c in e.asked(frames, hypotheses).values()}
        return self.asked(frames, hypotheses) | beside

    def asked(self, frames: float, hypotheses: int) -> dict[str, float]:
        """Entry -> cycles for one frame, of so many a second, with what a search asks that holds so many
        hypotheses."""
        t, out = self.plan.target, {}
        for e in self.plan.graph.entries:
            inside = [c for c in self.layers.values() if c.entry == e.name]
            cpu = sum((c.cpu_seconds for c in inside if c.cpu_seconds is not None), Fraction(0)) * t.clock
            calls, each = e.calls_per_second(frames, LABELS_PER_SECOND, hypotheses)
            moved = 2 * each * sum(c.state_bytes for c in inside) if hypotheses > 1 and e.each_hypothesis else 0
            cycles = sum(c.cycles for c in inside) + float(cpu) + self.fill.get(e.name, 0)
            out[e.name] = calls / frames * (cycles + moved * t.clock / t.cpu.transfer)
        return out

    @property
    def beside_share(self) -> float:
        """Of the cycles of a frame, how much the language models are."""
        return sum(self.searched[name] for name in self.languages) / sum(self.searched.values())

    @property
    def unknown(self) -> bool:
        """Whether the policy's search asks language models whose size it does not say."""
        return self.plan.decode is not None and bool(set(self.plan.decode.languages) - set(self.languages))

    @property
    def rtf(self) -> float:
        """The machine's time over the audio's, search included."""
        return sum(self.searched.values()) / self.plan.target.clock * 1000 / (self.plan.graph.frame_ms or FRAME_MS)

    def quantity(self, name: str) -> float:
        """What is expected of a budget's quantity."""
        return self.rtf if name == "rtf" else {
            "weights": self.weight_bytes, "sram": self.sram_bytes, "latency": self.seconds, "cycles": self.cycles,
            "bits_per_weight": self.bits_per_weight}[name]

    def least(self, name: str) -> float:
        """What a budget's quantity takes at the least: no program of this policy is below it."""
        t = self.plan.target
        here = [k for path, k in self.kernels.items()
                if self.layers[self.plan.graph.layer_of(path).path].cpu_seconds is None]
        size = sum(k.least_bits for k in here) // 8
        return 0.0 if name == "rtf" else {
            "weights": size, "sram": self.stream_bytes + self.state_bytes, "latency": self.least_cycles / t.clock,
            "cycles": self.least_cycles, "bits_per_weight": 8 * size / max(1, sum(k.weights for k in here))}[name]

    def contributors(self, name: str, count: int = 3) -> list[tuple[str, float]]:
        """The largest parts of a quantity, in its unit: kernels for bytes, layers for time and memory."""
        clock = self.plan.target.clock
        parts: dict[str, float] = {
            "rtf": {e: c / max(1.0, sum(self.searched.values())) * self.rtf for e, c in self.searched.items()},
            "weights": {k.path: k.bytes for k in self.kernels.values()},
            "bits_per_weight": {k.path: k.bits / max(1, k.weights) for k in self.kernels.values()},
            "sram": {c.path: c.buffer_bytes + c.state_bytes for c in self.layers.values()} | {
                "pinned weights": self.pinned_bytes, "stream buffers": self.stream_bytes},
            "cycles": {c.path: c.cycles + float((c.cpu_seconds or 0) * clock) for c in self.layers.values()},
            "latency": {c.path: c.cycles / clock + float(c.cpu_seconds or 0) for c in self.layers.values()},
        }[name]  # type: ignore[assignment]
        return sorted(parts.items(), key=lambda kv: -kv[1])[:count]


def whole(plan: Plan, model: ModelGraph) -> Estimate:
    """The cost of ``plan`` on its own target, with the language models whose files it names, as far as they can be
    read."""
    found = {}
    for name, path in plan.decode.files.items() if plan.decode is not None else ():
        from nnac.language.beside import described  # NumPy, which a policy without such files does not need

        with suppress(UserError):
            beside = described(path)
            found[name] = estimate(beside, beside.graph)
    return evolve(estimate(plan, model), languages=found)


def estimate(plan: Plan, model: ModelGraph) -> Estimate:
    """The cost of ``plan`` on its own target."""
    m = machine(plan.target)
    number = {layer.path: i for i, layer in enumerate(model)}
    sites = [plan[layer.path] for layer in model]
    values = {name: {i: getattr(s, name) for i, s in enumerate(sites)} for name in ("activations", "hidden", "place")}
    host = cpu_layers(model, values, number, plan.target)
    kernels = _kept(plan, model, {k.path: _kernel(plan, k, layer) for layer in model for k in layer.kernels}, host, m)
    layers, fill, least = {}, {}, Fraction(0)
    for entry in dict.fromkeys(layer.entry for layer in model):
        inside = [layer for layer in model if layer.entry == entry]
        steps = frames(plan, inside[0])
        works, cpus, streams = {}, {}, {}
        for layer in inside:
            site, vectors, here = plan[layer.path], vectors_of(plan, layer), layer.path not in host
            out_bits = output_bits(model, values, number, layer)
            ins = [(width_of(model, name), value_bits(model, values, number, name)) for name in layer.inputs]
            hidden_bits = site.hidden.bits if site.hidden else 8
            works[layer.path] = work(plan, layer, ins[0][1], m) if here else Work()
            streams[layer.path] = _streamed(plan, layer, kernels, m) if here else Fraction(0)
            if not here:
                cpus[layer.path] = seconds(plan.target, layer, ins, out_bits, hidden_bits, vectors)
            buffers = (sum(w for w, _ in ins) +
                       layer.width) * vectors * -(-out_bits // 8) + works[layer.path].buffer_bytes
            state = layer.operator.state_bytes(layer.attributes, layer.width, hidden_bits)
            layers[layer.path] = LayerCost(layer.path, entry, sum(kernels[k.path].bytes for k in layer.kernels), 0,
                                           buffers, state,
                                           None if here else cpus[layer.path] / steps)
        per_byte = plan.target.clock / Fraction(plan.target.dram.delivered)
        # the units run side by side and weights are loaded ahead: the longest of the sums is what counts, not the sum
        # of the longest
        bound = sum(streams.values()) * per_byte > sum(w.compute for w in works.values())
        for layer in inside:
            cost = streams[layer.path] * per_byte if bound else Fraction(works[layer.path].compute)
            layers[layer.path] = evolve(layers[layer.path], cycles=math.ceil(cost / steps))
        last = next((works[layer.path] for layer in reversed(inside) if layer.kernels), Work())
        fill[entry] = (plan.target.dram.latency + last.tail if bound else 0) // steps
        least += _least(plan, inside, works, cpus, kernels) / steps
    wait = (frames(plan, model.layers[0]) - 1) * (model.frame_ms or 0.0) / 1000
    return Estimate(plan, kernels, layers, fill, math.floor(least), wait)


def _kernel(plan: Plan, kernel: Kernel, layer: Layer) -> KernelCost:
    t, sites = plan.target, plan.gates(kernel.path)
    whole = plan[kernel.path]
    if all(s.settings == whole.settings for s in sites):
        sites = (whole,)
    rows = kernel.rows // len(sites)
    # held as rows of its output's integers, whatever its weights are
    if layer.operator.by_index:
        given = plan[layer.path].activations
        bits = 8 * kernel.weights * -(-(given.bits if given else 8) // 8)
        return KernelCost(kernel.path, kernel.weights, bits, 8 * kernel.weights, 0)
    joint = layer.operator.shares_sum
    finer = kernel.name in joint[1:] and plan[layer.path].accumulate == "acc32"
    # kernels settled alike are quantised as one matrix, on one scale
    if finer:
        other = kernel.path.removesuffix(kernel.name) + joint[0]
        finer = [s.weights for s in plan.gates(other)] == [s.weights for s in plan.gates(kernel.path)]
    # a stream is encoded in one way, whatever its gates say
    able = codecs(whole.codec, t.codecs)
    expected, least, live = 0.0, 0, Fraction(0)
    for site in sites:
        assert site.weights is not None
        grain = site.weights.granularity
        sharing = {"channel": kernel.cols, "group": grain.size or kernel.cols,
                   "gate": kernel.rows * kernel.cols // max(1, len(kernel.gates)),
                   "tensor": rows * kernel.cols}[grain.kind]
        expected += rows * kernel.cols * expected_bits(site, sharing, able, finer)
        least += rows * kernel.cols * least_bits(site, able)
        live += rows * (1 - sparsity(site) if by_blocks(site) and getattr(site.sparsity, "block", 1) >= t.lanes else 1)
    held = Fraction(-(-kernel.rows // t.lanes) * t.lanes * kernel.cols) * live / kernel.rows
    wide = any(s.weights is not None and s.weights.multiplied_bits > 8 for s in sites)
    return KernelCost(kernel.path, kernel.weights, math.ceil(expected), least, math.ceil(held) * (2 if wide else 1))


def _kept(plan: Plan, model: ModelGraph, kernels: dict[str, KernelCost], host: frozenset[str],
          m: MachineConfig) -> dict[str, KernelCost]:
    """The kernels with the share of each that stays on chip: those pinned, then those worth most traffic a second for a
    byte of SRAM."""
    free, out = plan.target.pinned, dict(kernels)
    steps = steps_per_second(model.entries, model.frame_ms)
    ranked = []
    for layer in model:
        for k in layer.kernels:
            site, cost = plan[k.path], kernels[k.path]
            if layer.operator.by_index or layer.path in host or site.pin == "never" or not cost.held_bytes:
                continue
            vectors = vectors_of(plan, layer)
            alone = layer.operator.meets[k.name] == "hidden"
            passes = Fraction(vectors) if alone else Fraction(vectors, min(vectors, m.columns * m.banks))
            rate = steps[layer.entry] / frames(plan, layer)
            ranked.append((site.pin != "always", -float(passes) * rate * cost.bytes / cost.held_bytes, k.path))
    for _, _, path in sorted(ranked):
        share = min(Fraction(1), Fraction(free, out[path].held_bytes))
        out[path] = evolve(out[path], kept=share)
        free -= math.floor(share * out[path].held_bytes)
    return out


def _streamed(plan: Plan, layer: Layer, kernels: dict[str, KernelCost], m: MachineConfig) -> Fraction:
    """Bytes that one call reads for a layer."""
    vectors = vectors_of(plan, layer)
    if layer.operator.by_index:
        return Fraction(layer.width + m.burst) * vectors
    total = Fraction(0)
    for k in layer.kernels:
        cost = kernels[k.path]
        moving = cost.bytes * (1 - cost.kept)
        # words that are read again: the stream buffers still hold all of them or, read in a ring, none
        stays = math.ceil(cost.held_bytes * (1 - cost.kept) / m.lanes) <= m.stream_words
        total += moving * (1 if stays else read_passes(m, layer, k, vectors))
    return total


def _least(plan: Plan, inside: list[Layer], works: dict[str, Work], cpus: dict[str, Fraction],
           kernels: dict[str, KernelCost]) -> Fraction:
    """Cycles that a call of an entry takes whatever the weights are: the longest of what its units cannot avoid."""
    t = plan.target
    cpu = sum(cpus.values(), Fraction(0)) * t.clock
    here = [x for x in inside if x.path not in cpus]
    vector, matrix = (sum(getattr(works[x.path], unit) for x in here) for unit in ("vector", "matrix_least"))
    streams = [kernels[k.path] for x in here if not x.operator.by_index for k in x.kernels]
    most = max((Fraction(k.least_bits, k.weights) for k in streams), default=Fraction(0))
    unread = Fraction(sum(k.least_bits for k in streams)) - most * t.pinned
    return max(unread / 8 * t.clock / t.dram.delivered, cpu + max(vector, matrix), Fraction(0))
