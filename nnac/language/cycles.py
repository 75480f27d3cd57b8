"""What a step costs on the machine, from shapes: cycles of each unit, layer by layer, expected and at the least.

    vector   exact: every requantisation, cell update and normalisation that the emitter makes (`nnac.schedule.emit`; formulas in the manual
             of the instructions)
    matrix   weight words, each met by as many vectors as there are columns
    stream   bytes of encoded weights that do not stay on chip, over the bandwidth
    cpu      layers that run there, with all else at rest
The three units work side by side and the compiler loads ahead, so a call takes the longest of the three sums, and what fills and empties the
pipelines: that is what is printed.  At the least it takes the longest of what no weights, however kind, could shorten.
This module restates numbers of `MachineConfig`, for lint imports no machine; `tests/test_language_estimate.py` holds the two together.
"""

from __future__ import annotations

import math
from fractions import Fraction

from attrs import frozen

from nnac.language.coded import ZERO_FINDING, codecs
from nnac.model.graph import Kernel, Layer
from nnac.plan import Plan
from nnac.target import Target

MV_DRAIN, VX_FILL, BANKS, TILE_WORDS = 4, 8, 4, 256             # see MachineConfig
ELEMENTS = 4096                                                 # of one vector instruction


@frozen
class Work:
    """Cycles of one layer in one call of its entry, of each unit.  ``tail``: after the last product, before the next layer can begin."""

    vector: int = 0
    matrix: int = 0
    matrix_least: int = 0              # if every word that may be found zero is
    tail: int = 0

    @property
    def compute(self) -> int:
        return max(self.vector, self.matrix) + self.tail


def vectors_of(plan: Plan, layer: Layer) -> int:
    """Output frames of a layer in one call of its entry: those of all steps computed together."""
    return layer.rate * (plan.frames("encoder") if layer.entry == "encoder" else 1)


def read_passes(t: Target, layer: Layer, kernel: Kernel, vectors: int) -> int:
    """How often a kernel's weights are read in a call: a recurrent one for every frame, others once for as many as the banks hold."""
    return vectors if layer.recurrent and kernel.name != "input" else -(-vectors // (t.columns * BANKS))


def stays(t: Target, words: int) -> bool:
    """Whether the stream buffers still hold words when they are read again: all of them or, read in a ring, none."""
    return words <= t.stream_buffers * TILE_WORDS


def work(plan: Plan, layer: Layer, width_in: int, in_bits: int, out_bits: int) -> Work:
    """The units' cycles of a layer that runs on the machine."""
    t = plan.target
    vector = max(1, t.lanes // 4)
    vectors = vectors_of(plan, layer)
    beats = lambda n: -(-n // vector)  # noqa: E731
    if layer.kind == "lstm":
        return _lstm(plan, layer, vectors, vector)
    if layer.kernels and layer.kind not in ("embedding", "gru", "lstm_coupled", "lstm_normed"):
        kernel = layer.kernels[0]
        wide = in_bits > 8 or _weight_bits(plan, kernel) > 8
        passes, matrix = -(-vectors // t.columns), _words(plan, kernel, in_bits)
        rows = _bands(kernel.rows, t.lanes)
        requantise = sum(passes * VX_FILL + vectors * beats(n) * (2 if wide else 1) for n in rows)
        return Work(requantise, passes * matrix[0], passes * matrix[1], MV_DRAIN + VX_FILL + beats(rows[-1]))
    pieces = vectors * -(-layer.width // ELEMENTS)
    each = {"layer_norm": vectors * (VX_FILL + 24) + 3 * vectors * beats(layer.width),
            "add": pieces * VX_FILL + 2 * vectors * beats(layer.width), "multiply": pieces * VX_FILL + vectors * beats(layer.width),
            "tanh": pieces * VX_FILL + vectors * beats(layer.width), "sigmoid": pieces * VX_FILL + vectors * beats(layer.width)}
    own = each.get(layer.kind, 0)
    return Work(vector=own, tail=t.dram.latency if layer.kind == "embedding" else 0)


def _lstm(plan: Plan, layer: Layer, vectors: int, vector: int) -> Work:
    t, out = plan.target, Work()
    cells = layer.attributes["cells"]
    site = plan[layer.path]
    separate = site.accumulate == "sum16"
    beats = lambda n: -(-n // vector)  # noqa: E731
    bands = _bands(4 * cells, t.lanes)
    interleaved = t.lanes % 16 == 0
    requantise = sum(VX_FILL + beats(n) for n in bands)
    update = sum(VX_FILL + 5 * beats(n // 4) for n in bands) if interleaved else VX_FILL + 5 * beats(cells)
    parked = vectors > 1
    groups = -(-vectors // t.columns)
    park = sum(groups * VX_FILL + vectors * beats(n) for n in bands) if parked else 0
    hidden_bits = site.hidden.bits if site.hidden else 8
    directions = 2 if layer.attributes.get("bidirectional") else 1
    for first in range(0, len(layer.kernels), len(layer.kernels) // directions):
        own = {k.name: k for k in layer.kernels[first:first + len(layer.kernels) // directions]}
        x = _words(plan, own["input"], 8)
        h = _words(plan, own["recurrent"], hidden_bits)
        project, extra = _words(plan, own["project"], 8) if "project" in own else (0, 0), 0
        if "project" in own:
            rows = _bands(own["project"].rows, t.lanes)
            extra = sum(VX_FILL + beats(n) for n in rows)
        step = requantise * (2 if separate and not parked else 1) + update + extra
        each, least = h[0] + project[0], h[1] + project[1]
        n = groups if parked else 1
        drain = MV_DRAIN + 2 * VX_FILL + beats(bands[-1]) + 5 * beats(max(1, bands[-1] // 4) if interleaved else cells) + extra
        # frames follow each other: each waits for the hidden state of the one before
        matrix, vx = n * x[0] + vectors * each, park + vectors * step
        bound = max(n * x[0], park) + vectors * (max(each, step) + drain) if parked else max(matrix, vx) + vectors * drain
        out = Work(out.vector + vx, out.matrix + matrix, out.matrix_least + n * x[1] + vectors * least,
                   out.tail + bound - max(matrix, vx))
    return out


def _bands(rows: int, lanes: int) -> list[int]:
    """Rows of each band."""
    return [min(lanes, rows - first) for first in range(0, rows, lanes)]


def _weight_bits(plan: Plan, kernel: Kernel) -> int:
    return max((s.weights.multiplied_bits for s in plan.gates(kernel.path) if s.weights is not None), default=8)


def _words(plan: Plan, kernel: Kernel, in_bits: int) -> tuple[int, int]:
    """Cycles in which a kernel's words are multiplied with one group of vectors: (expected, at the least)."""
    t = plan.target
    bits = _weight_bits(plan, kernel)
    words = -(-kernel.rows // t.lanes) * kernel.cols * (2 if bits > 8 else 1)
    act16 = t.multiply.get("int16")
    slow = (-(-act16.denominator // act16.numerator) if act16 else 2) if in_bits > 8 else 1
    fast = max([Fraction(1), *(r for w, r in t.multiply.items() if w.startswith("int") and int(w[3:]) <= 8)])
    rate = Fraction(1)
    if bits <= 8:
        able = [(int(w[3:]), r) for w, r in t.multiply.items() if w.startswith("int") and max(bits, 1) <= int(w[3:]) <= 8]
        rate = max(Fraction(1), min(able)[1]) if able and bits < 8 else max(Fraction(1), t.multiply.get("int8", Fraction(1)))
    skips = any(c in ZERO_FINDING for c in codecs(plan[kernel.path].codec, t.codecs))
    return math.ceil(words * slow / rate), 0 if skips else math.floor(words * slow / fast)
