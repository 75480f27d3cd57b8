"""What a plan will cost, estimated from shapes alone: bytes, SRAM, time of a step.  For lint, `nnac diff` and hover.

It is an estimate: no schedule is made.  Time takes, layer by layer, the larger of weight streaming and multiplying, as if the two
overlapped perfectly within a layer and not at all between layers; the compiler's own figures replace it once a program exists.

Bytes  stored bits of each weight (index width of a codebook), times the share that lives, plus a bitmap for sparse kernels, plus
       codebooks (an int8 entry each) and scales (4 bytes each: multiplier and shift).
SRAM   what stays (states, pinned weights) plus what a layer needs at once (input, output, sums) plus the stream buffers.
Time   per step of an entry point; input-side kernels are read once per `frames` steps, recurrent ones at each.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property

from attrs import field, frozen

from nnac.model.graph import Kernel, Layer, ModelGraph
from nnac.plan import Plan, SitePlan
from nnac.target import Target

SCALE_BYTES = 4
BITMAP_BLOCK = 16


@frozen
class KernelCost:
    """One kernel: stored bits (codebooks, scales and bitmaps included) and the multiply-accumulates that remain."""

    path: str
    weights: int
    bits: int
    macs: Fraction

    @property
    def bytes(self) -> int:
        return -(-self.bits // 8)


@frozen
class LayerCost:
    """One layer, for one step of its entry point.  ``seconds`` None: it runs on the CPU at ``cpu_seconds``."""

    path: str
    entry: str
    bytes: int
    cycles: int
    buffer_bytes: int
    state_bytes: int
    cpu_seconds: Fraction | None = None


@frozen(eq=False)
class Estimate:
    """See the module.  Everything but the kernels and layers is summed up from them."""

    plan: Plan
    kernels: dict[str, KernelCost] = field(repr=False)
    layers: dict[str, LayerCost] = field(repr=False)

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
        """Weights that stay on chip: those the policy pins, then as many others as fit."""
        free = self.plan.target.pinned
        always = sum(self.kernels[s.path].bytes for s in self.plan if s.kind == "kernel" and s.pin == "always")
        able = sum(self.kernels[s.path].bytes for s in self.plan if s.kind == "kernel" and s.pin == "auto")
        return max(always, min(free, always + able))

    @property
    def sram_bytes(self) -> int:
        t = self.plan.target
        stream = t.stream_buffers * t.lanes * 64                      # a tile: 64 weights for each lane
        largest = max((c.buffer_bytes for c in self.layers.values()), default=0)
        return self.pinned_bytes + stream + largest + sum(c.state_bytes for c in self.layers.values())

    @property
    def cycles(self) -> int:
        """Cycles of one encoder step with the prediction and joint steps that follow it, the CPU's part included."""
        cpu = sum((c.cpu_seconds for c in self.layers.values() if c.cpu_seconds is not None), Fraction(0))
        return sum(c.cycles for c in self.layers.values()) + math.ceil(cpu * self.plan.target.clock)

    @property
    def seconds(self) -> float:
        return float(Fraction(self.cycles, self.plan.target.clock))

    def quantity(self, name: str) -> float:
        """The estimate of a budget's quantity."""
        return {"weights": self.weight_bytes, "sram": self.sram_bytes, "latency": self.seconds, "cycles": self.cycles,
                "bits_per_weight": self.bits_per_weight}[name]

    def contributors(self, name: str, count: int = 3) -> list[tuple[str, float]]:
        """The largest parts of a quantity, in its unit: kernels for bytes, layers for time and memory."""
        clock = self.plan.target.clock
        parts: dict[str, float] = {
            "weights": {k.path: k.bytes for k in self.kernels.values()},
            "bits_per_weight": {k.path: k.bits / max(1, k.weights) for k in self.kernels.values()},
            "sram": {c.path: c.buffer_bytes + c.state_bytes for c in self.layers.values()} | {"pinned weights": self.pinned_bytes},
            "cycles": {c.path: c.cycles + float((c.cpu_seconds or 0) * clock) for c in self.layers.values()},
            "latency": {c.path: c.cycles / clock + float(c.cpu_seconds or 0) for c in self.layers.values()},
        }[name]  # type: ignore[assignment]
        return sorted(parts.items(), key=lambda kv: -kv[1])[:count]


def estimate(plan: Plan, model: ModelGraph) -> Estimate:
    """The cost of ``plan`` on its own target."""
    kernels = {k.path: _kernel(plan, k, layer) for layer in model for k in layer.kernels}
    pinned, free = set(), plan.target.pinned
    order = sorted((s for s in plan if s.kind == "kernel"), key=lambda s: (s.pin != "always", -_reads(plan, model.layer_of(s.path),
                                                                                                      s.path)))
    for site in order:
        if site.pin != "never" and (site.pin == "always" or kernels[site.path].bytes <= free):
            pinned.add(site.path)
            free -= kernels[site.path].bytes
    return Estimate(plan, kernels, {layer.path: _layer(plan, model, layer, kernels, pinned) for layer in model})


def _kernel(plan: Plan, kernel: Kernel, layer: Layer) -> KernelCost:
    sites = plan.gates(kernel.path)
    whole = plan[kernel.path]
    if all(s.settings == whole.settings for s in sites):
        sites = (whole,)                       # one tensor, with one scale or codebook where that is its granularity
    rows = kernel.rows // len(sites)
    gates = max(1, len(kernel.gates)) if len(sites) == 1 else 1
    bits, macs = 0, Fraction(0)
    for site in sites:
        dense = rows * kernel.cols
        alive = 1 - sparsity(site)
        bits += stored_bits(site, rows, kernel.cols, gates)
        skipped = site.sparsity is not None and getattr(site.sparsity, "block", 1) % BITMAP_BLOCK == 0
        macs += dense * (alive if skipped else 1)
    return KernelCost(kernel.path, kernel.weights, bits, Fraction(0) if layer.kind == "embedding" else macs)


def sparsity(site: SitePlan) -> Fraction:
    """The share of a site's weights that become zero."""
    how = site.sparsity
    if how is None:
        return Fraction(0)
    target = getattr(how, "target", None)
    if target is not None:
        return Fraction(target).limit_denominator(10**6)
    n, m = getattr(how, "n", 1), getattr(how, "m", 1)
    return 1 - Fraction(n, m)


def stored_bits(site: SitePlan, rows: int, cols: int, gates: int = 1) -> int:
    """Bits of ``rows`` x ``cols`` weights, of so many gates, as stored."""
    w = site.weights
    assert w is not None
    dense = rows * cols
    alive = 1 - sparsity(site)
    payload = dense * w.bits
    if alive < 1:
        block = BITMAP_BLOCK if getattr(site.sparsity, "block", 1) % BITMAP_BLOCK == 0 else 1
        payload = min(payload, math.ceil(payload * alive) + -(-dense // block))
    if w.method is None:
        return payload
    codebook = type(w.method).codebook
    scales = {"tensor": 1, "gate": gates, "channel": rows, "group": rows * -(-cols // (w.granularity.size or cols))}[w.granularity.kind]
    tables = scales * (8 << w.bits) if codebook else 0
    return payload + tables + scales * SCALE_BYTES * 8


def _reads(plan: Plan, layer: Layer, path: str) -> Fraction:
    """How often a kernel's weights are read in one step of its entry point."""
    if layer.kind == "embedding":
        return Fraction(0)
    frames = plan.frames(layer.entry) if layer.recurrent and not path.endswith("recurrent") else 1
    together = layer.rate * frames if not path.endswith("recurrent") and (layer.rate > 1 or frames > 1) else 1
    passes = -(-together // min(plan.target.columns, max(1, together))) if together > 1 else layer.rate
    return Fraction(passes, frames)


def _layer(plan: Plan, model: ModelGraph, layer: Layer, kernels: dict[str, KernelCost], pinned: set[str]) -> LayerCost:
    t: Target = plan.target
    site = plan[layer.path]
    out_bits = site.activations.bits if site.activations else 8
    source = model.by_path.get(layer.inputs[0]) if layer.inputs else None
    width_in = source.width if source is not None else sum(model.inputs.get(i, 0) for i in layer.inputs)
    cells = layer.attributes.get("cells", 0) * (2 if layer.attributes.get("bidirectional") else 1)
    state = cells * (site.cell.bits if site.cell else 0) // 8 + (layer.width * out_bits // 8 if layer.recurrent else 0)
    sums = max((k.rows for k in layer.kernels), default=0) * 4 if layer.kind != "embedding" else 0
    buffers = (width_in + layer.width * layer.rate) * out_bits // 8 + sums
    size = sum(kernels[k.path].bytes for k in layer.kernels)
    if site.place == "cpu" or layer.kind not in t.operators:
        return LayerCost(layer.path, layer.entry, size, 0, buffers, state, cpu_seconds(t, layer, width_in, out_bits))
    cycles = Fraction(0)
    for k in layer.kernels:
        cost, reads = kernels[k.path], _reads(plan, layer, k.path)
        streamed = Fraction(cost.bytes) * reads * t.clock / t.dram.bandwidth if k.path not in pinned else Fraction(0)
        decoded = Fraction(cost.weights) * reads / t.decoder
        rate = t.multiply.get(_width(plan, k, t) or "", Fraction(1))
        columns = Fraction(layer.rate) / max(Fraction(1, t.columns), reads) if reads else Fraction(1)
        computed = cost.macs * layer.rate / (t.lanes * rate * max(Fraction(1), columns))
        cycles += max(streamed, decoded, computed)
        cycles += t.dram.latency if reads and k.path not in pinned else 0
    vector = Fraction(layer.width * layer.rate * (8 if layer.recurrent else 2), t.lanes)
    return LayerCost(layer.path, layer.entry, size, math.ceil(cycles + vector), buffers, state)


def _width(plan: Plan, kernel: Kernel, t: Target) -> str | None:
    widths = [s.weights for s in plan.gates(kernel.path) if s.weights is not None]
    bits = max((w.multiplied_bits for w in widths), default=8)
    return t.multiply_width(bits, widths[0].width.number if widths else "int")


def cpu_seconds(t: Target, layer: Layer, width_in: int, bits: int) -> Fraction:
    """What one step of a layer costs on the CPU: waking it, moving values there and back, computing."""
    moved = Fraction((width_in + layer.width) * layer.rate * bits, 8)
    work = layer.macs or layer.width * layer.rate
    return t.cpu.wake + moved / t.cpu.transfer + Fraction(work, t.cpu.macs)
