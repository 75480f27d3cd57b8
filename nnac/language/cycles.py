"""What a step costs on the machine, from shapes: cycles of each unit, layer by layer, expected and at the least.

    vector   exact: every requantisation, cell update and normalisation that is emitted: each operator's `work`
             (`nnac.ops`), by the instructions' own formulas (`nnac.isa.beats`)
    matrix   weight words, each met by as many vectors as there are columns
    stream   bytes of encoded weights that do not stay on chip, over the bandwidth
    cpu      layers that run there, with all else at rest
The three units work side by side and the compiler loads ahead, so a call takes the longest of the three sums, and what
fills and empties the pipelines: that is what is printed.  At the least it takes the longest of what no weights, however
kind, could shorten.
"""

from __future__ import annotations

from attrs import evolve

from nnac.isa.config import MachineConfig
from nnac.language.coded import ZERO_FINDING, codecs
from nnac.model.graph import Kernel, Layer
from nnac.ops._work import Job, Product, Work
from nnac.plan import Plan
from nnac.target import Target

ROOMY = 1 << 30                                                 # bytes: an SRAM that holds anything


def machine(t: Target) -> MachineConfig:
    """The machine of a target.  Cycles do not depend on the SRAM, so one that is too small is no hindrance here; the
    compiler refuses it."""
    try:
        return MachineConfig.of(t)
    except ValueError:
        return MachineConfig.of(evolve(t, sram=t.sram + ROOMY, lanes=min(t.lanes, 256), columns=min(t.columns, 16)))


def frames(plan: Plan, layer: Layer) -> int:
    """Steps of a layer's entry that are computed together."""
    return plan.frames(layer.entry) if plan.graph.entry(layer.entry).frames else 1


def vectors_of(plan: Plan, layer: Layer) -> int:
    """Output frames of a layer in one call of its entry: those of all steps computed together."""
    return layer.rate * frames(plan, layer)


def read_passes(m: MachineConfig, layer: Layer, kernel: Kernel, vectors: int) -> int:
    """How often a kernel's weights are read in a call: for every frame if they meet the layer's own state, others once
    for as many as the banks hold."""
    return vectors if layer.operator.meets[kernel.name] == "hidden" else -(-vectors // (m.columns * m.banks))


def job(plan: Plan, layer: Layer, in_bits: int) -> Job:
    """What a layer has to do in one call of its entry."""
    site = plan[layer.path]
    directions: dict[str, dict[str, Product]] = {}
    for k in layer.kernels:
        bits = max((s.weights.multiplied_bits for s in plan.gates(k.path) if s.weights is not None), default=8)
        skips = any(c in ZERO_FINDING for c in codecs(plan[k.path].codec, plan.target.codecs))
        directions.setdefault(k.path.rpartition(".")[0], {})[k.name] = Product(k.rows, k.cols, bits, skips)
    return Job(vectors_of(plan, layer), layer.width, in_bits, site.hidden.bits if site.hidden else 8,
               site.accumulate == "sum16",
               tuple(directions.values()), layer.attributes)


def work(plan: Plan, layer: Layer, in_bits: int, m: MachineConfig) -> Work:
    """The units' cycles of a layer that runs on the machine."""
    return layer.operator.work(job(plan, layer, in_bits), m)
