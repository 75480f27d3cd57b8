"""Kernels: weight matrices as encoded tiles, and the per-row parameters that bring their sums to a format.

A kernel's rows are already in band order (`tiling`).  Its columns fall into *parts*, one for each piece of the vector it multiplies; a part has
its own stream header (codebook) and is cut into chunks that are loaded one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac import codec
from nnac.ir import Node, QGraph
from nnac.isa import MachineConfig
from nnac.isa.dtypes import ADD_DTYPE, LN_DTYPE, LSTM_DTYPE, LUT_DTYPE, MUL_DTYPE, RQ_DTYPE, RQ_HEADER_DTYPE, RQ_WIDE_DTYPE
from nnac.isa.vector import LN_RSQRT
from nnac.ops import operator
from nnac.ops._table import TableOperator
from nnac.schedule.tiling import Band, chunks_of, gate_order

W8, W16, W4, W2, W1 = range(5)         # codes of MVM's field ``weights``
NARROWER = ((W1, 1), (W2, 2), (W4, 4))


@frozen(eq=False)
class Chunk:
    """Columns that one LDW loads: ``offset`` bytes into the vector, ``span`` inputs; ``part`` names the header."""

    part: int
    offset: int
    span: int


@frozen(eq=False)
class Kernel:
    """A weight matrix ready to be streamed.  ``tiles[band][chunk]``; ``headers[part]`` with the steps that loading it takes."""

    path: str
    layer: str
    rows: int
    cols: int
    bands: tuple[Band, ...]
    chunks: tuple[Chunk, ...]
    tiles: tuple[tuple[codec.Tile, ...], ...]
    headers: tuple[tuple[bytes, int], ...]
    codec: str
    weights: int                   # MVM's code
    act16: bool

    @property
    def bytes(self) -> int:
        return sum(len(h) for h, _ in self.headers) + sum(len(t.data) for band in self.tiles for t in band)

    @property
    def words(self) -> int:
        return sum(t.live_words for band in self.tiles for t in band)


@frozen(eq=False)
class Parameters:
    """Constant bytes that vector instructions read.  ``blocks``: one for each band (or just one)."""

    key: str
    blocks: tuple[bytes, ...]
    path: str


def interleaved(lanes: int) -> bool:
    """Whether a band can hold whole cells whose results start at multiples of 4 elements."""
    return lanes % 16 == 0


def bands_of(rows: int, lanes: int) -> tuple[Band, ...]:
    return tuple(Band(i, first, min(lanes, rows - first)) for i, first in enumerate(range(0, rows, lanes)))


def row_order(node: Node, lanes: int) -> NDArray:
    """Order of the gate rows of an LSTM's kernels."""
    cells = node.attributes["cells"]
    return gate_order(cells, lanes) if interleaved(lanes) else np.arange(4 * cells)


def kernel(path: str, layer: str, weight: NDArray, order: NDArray | None, segments: Sequence[tuple[int, int]], config: MachineConfig, act16: bool,
           size: int, allowed: Sequence[str], forced: str | None, rates: Sequence[int]) -> Kernel:
    """Encode one matrix [rows, cols] that multiplies a vector lying in ``segments``.

    size  bytes of an activation      allowed, forced  codecs, as `codec.choose` takes them      rates  MVM codes that this machine speeds up
    """
    if order is not None:
        weight = weight[order]
    wide = weight.dtype != np.int8
    code = W16 if wide else _code(weight, rates)
    per_input = 2 if wide else 1
    limit = max(1, chunk_words(weight, config) // per_input)
    bands = bands_of(len(weight), config.lanes)
    speed = float(config.burst / config.burst_cycles)
    chunks: list[Chunk] = []
    headers, names = [], []
    tiles: list[list[codec.Tile]] = [[] for _ in bands]
    first = 0
    for part, (offset, width) in enumerate(segments):
        piece = weight[:, first:first + width]
        pieces = chunks_of(width, limit)
        matrix = _bytes_apart(piece) if wide else np.ascontiguousarray(piece)
        encoded = codec.choose(matrix, config.lanes, allowed, forced, pieces[0].count * per_input, speed).encoded
        chunks += [Chunk(part, offset + c.first * size, c.count) for c in pieces]
        for i, tile in enumerate(encoded.tiles):
            tiles[i // len(pieces)].append(tile)
        headers.append((encoded.header, encoded.table_steps))
        names.append(encoded.codec)
        first += width
    rows, cols = weight.shape
    return Kernel(path, layer, rows, cols, bands, tuple(chunks), tuple(map(tuple, tiles)), tuple(headers),
                  "|".join(dict.fromkeys(names)), code, act16)


def chunk_words(weight: NDArray, config: MachineConfig) -> int:
    """Words of a tile.  Large tiles are fewer instructions; small ones keep DRAM busy when a tile streams in less time than it takes to
    free its place: decode, multiply, and the latency of the next request (2 words a word, and the latency).

    W holds n tiles of c words, so n - 1 of them must last that long: (n - 1) c d >= 2 c + latency + 16, with d DRAM cycles a word, from the
    entropy of a sample.
    """
    sample = weight[:: max(1, len(weight) // 256)].astype(np.int16)
    counts = np.bincount(sample.ravel() & 255).astype(np.float64)
    share = counts[counts > 0] / max(1, sample.size)
    bits = max(0.5, float(-(share * np.log2(share)).sum()))
    cycles = config.lanes * bits / 8 / config.burst * float(config.burst_cycles)
    for n in (4, 8):
        c = config.stream_words // n
        if (n - 1) * c * cycles >= 1.25 * (2 * c + config.latency + 16):
            return c
    return max(1, config.stream_words // 8)


def _code(weight: NDArray, rates: Sequence[int]) -> int:
    """The narrowest format that holds the values and that the machine multiplies faster than int8."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    for code, bits in NARROWER:
        if code in rates and low >= -(1 << (bits - 1)) and high < 1 << (bits - 1):
            return code
    return W8


def _bytes_apart(weight: NDArray) -> NDArray:
    """int16 [rows, cols] as int8 [rows, 2 cols]: low bytes in even columns, high bytes in odd ones."""
    return np.ascontiguousarray(weight).astype("<i2").view(np.int8).reshape(len(weight), -1)


# ----------------------------------------------------------------------------------------------------------- parameter blocks

def requantise_blocks(bands: Sequence[Band], bias: NDArray, multiplier: NDArray, shift: NDArray, zero_point: int, bits: int,
                      wide: bool) -> tuple[bytes, ...]:
    """RQ's parameters for every band; arrays [rows] in band order."""
    head = np.array((zero_point, bits, 0, 0), RQ_HEADER_DTYPE).tobytes()
    rows = np.zeros(len(bias), RQ_WIDE_DTYPE if wide else RQ_DTYPE)
    if wide:
        rows["low"], rows["high"] = bias & 0xFFFFFFFF, bias >> 32
        rows["m0"], rows["m1"], rows["shift"] = multiplier & 0xFFFF, multiplier >> 16, shift
    else:
        rows["bias"], rows["multiplier"] = bias, multiplier | shift << 24
    return tuple(head + rows[b.first:b.first + b.count].tobytes() for b in bands)


def linear_parameters(node: Node, graph: QGraph, kernel_: Kernel) -> Parameters:
    c, out = node.constants, graph.values[node.output]
    blocks = requantise_blocks(kernel_.bands, c["bias"], c["multiplier"], c["shift"], out.zero_point, out.bits,
                               kernel_.act16 or kernel_.weights == W16)
    return Parameters(f"{node.path}.requantise", blocks, node.path)


def lstm_parameters(node: Node, lanes: int, slots: Mapping[str, int]) -> dict[str, Parameters]:
    """By role: ``gates`` (acc32) or ``input``, ``recurrent`` (sum16), ``cell``, ``project``."""
    a, c, out = node.attributes, node.constants, {}
    order = row_order(node, lanes)
    bands = bands_of(len(order), lanes)
    zero = np.zeros(len(order), np.int64)
    if a["variant"] == "acc32":
        sets = dict(gates=(c["bias"], c["multiplier"], c["shift"]))
    else:
        sets = dict(input=(c["bias"], c["input_multiplier"], c["input_shift"]),
                    recurrent=(zero, c["recurrent_multiplier"], c["recurrent_shift"]))
    for role, (b, m, s) in sets.items():
        out[role] = requantise_blocks(bands, b[order], m[order], s[order], 0, 16, False)
    bits = a["cell_output_bits"] if a.get("project") else a["hidden_bits"]
    record = (int(c["hidden_multiplier"]), int(c["hidden_shift"]), bits, a["fraction"], slots["sigmoid"], slots["tanh"], slots["tanh_cell"], 0)
    out["cell"] = (np.array(record, LSTM_DTYPE).tobytes(),)
    if a.get("project"):
        out["project"] = requantise_blocks(bands_of(len(c["project_bias"]), lanes), c["project_bias"], c["project_multiplier"],
                                           c["project_shift"], 0, a["hidden_bits"], False)
    return {role: Parameters(f"{node.path}.{role}.parameters", blocks, node.path) for role, blocks in out.items()}


def vector_parameters(node: Node, graph: QGraph, slot: int = 0) -> Parameters:
    """The single block of add, multiply, lookup, layer_norm."""
    c, out = node.constants, graph.values[node.output]
    if node.op == "add":
        (m0, m1), (s0, s1) = c["multiplier"], c["shift"]
        block = np.array((m0, m1, s0, s1, out.bits, 0), ADD_DTYPE).tobytes()
    elif node.op == "multiply":
        block = np.array((c["multiplier"], c["shift"], out.bits, out.zero_point), MUL_DTYPE).tobytes()
    elif isinstance(table := operator(node.op), TableOperator):
        symmetry = dict(odd=0, complement=1)[table.symmetry]
        block = np.array((c["multiplier"], c["shift"], out.bits, out.zero_point, slot, symmetry, 0), LUT_DTYPE).tobytes()
    else:
        head = np.array((c["epsilon"], c["root_width"], c["multiplier"], c["shift"], out.bits, out.zero_point, 0), LN_DTYPE).tobytes()
        gain = c["gain"].astype("<i2").tobytes()
        block = (head + c["rsqrt"].astype("<u2").tobytes().ljust(LN_RSQRT, b"\0") + gain.ljust(-(-len(gain) // 4) * 4, b"\0")
                 + c["bias"].astype("<i4").tobytes())
    return Parameters(f"{node.path}.parameters", (block,), node.path)


