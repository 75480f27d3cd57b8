"""Kernels: weight matrices as encoded tiles, and the per-row parameters that bring their sums to a format.

A kernel's rows are already in band order (`tiling`).  Its columns fall into *parts*, one for each piece of the vector
it multiplies; a part has its own stream header (codebook) and is cut into chunks that are loaded one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac import codec
from nnac.isa import LDW, MachineConfig, beats
from nnac.isa.vector import RQ_HEAD, RQ_ROW, RQ_WIDE_ROW
from nnac.schedule.tiling import Band, chunks_of
from nnac.vectors import align

W8, W16, W4, W2, W1 = range(5)         # codes of MVM's field ``weights``
TAIL = 64                      # cycles from a step's last product to the next one's first: RQ, LSTM, semaphores
SMALLEST, PIECES = 32, 8       # words of a small kernel's tile, and into how many it is cut (our choice)
MOST_BYTES = next(f.greatest for f in LDW.fields if f.name == "bytes")             # of a tile's stream
NARROWER = ((W1, 1), (W2, 2), (W4, 4))


@frozen(eq=False)
class Chunk:
    """Columns that one LDW loads: ``offset`` bytes into the vector, ``span`` inputs; ``part`` names the header."""

    part: int
    offset: int
    span: int


@frozen(eq=False)
class Kernel:
    """A weight matrix ready to be streamed.  ``tiles[band][chunk]``; ``headers[part]`` with the steps that loading it
    takes."""

    path: str
    layer: str
    name: str                      # within its layer: ``weight``, ``input``, ``recurrent`` …
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
    def int16(self) -> bool:
        """Whether its weights take 16 bits."""
        return self.weights == W16

    @property
    def bytes(self) -> int:
        return sum(len(h) for h, _ in self.headers) + sum(len(t.data) for band in self.tiles for t in band)

    @property
    def words(self) -> int:
        return sum(t.live_words for band in self.tiles for t in band)

    def cycles(self, config: MachineConfig) -> int:
        """Of MV, for its products with as many vectors as meet a weight at once."""
        return sum(beats.multiply(config, t.live_words, self.weights, self.act16)
                   for band in self.tiles for t in band if t.live_words)

    def ahead(self, config: MachineConfig) -> int:
        """Words of it that DRAM delivers from the end of one reading to the first tile of the next that is not there:
        the last tile's products, a request, the first tile's products."""
        moving = [t for band in self.tiles for t in band if t.live_words]
        words, data = sum(t.live_words for t in moving), sum(len(t.data) for t in moving)
        if not data:
            return 0
        cycles = config.latency + 2 * words // len(moving) + TAIL
        return math.ceil(cycles * words * config.burst / (data * config.burst_cycles))

    def granule(self, config: MachineConfig) -> int:
        """Where its tiles may begin in W: at multiples of a part of the stream that holds any of them.  Parts are as
        many as streams can be under way, or halves of those where tiles are small, so that W holds the more of them; or
        where tiles are of one length, and cannot drift, of whatever size W holds the most with."""
        largest = max((t.live_words for band in self.tiles for t in band), default=1)
        part = max(1, config.stream_words // config.outstanding)
        while part % 2 == 0 and part // 2 >= largest:
            part //= 2
        if len({t.live_words for band in self.tiles for t in band}) > 1:
            return part
        halves = [part >> k for k in range(5) if part % (1 << k) == 0]
        return max(halves, key=lambda p: (config.stream_words // align(largest, p), p))

    def stays(self, config: MachineConfig) -> int:
        """Words of it that are still in W when it is read again at once."""
        return max(0, config.stream_words - self.ahead(config))


@frozen(eq=False)
class Parameters:
    """Constant bytes that vector instructions read.  ``blocks``: one for each band (or just one)."""

    key: str
    blocks: tuple[bytes, ...]
    path: str


def bands_of(rows: int, lanes: int) -> tuple[Band, ...]:
    return tuple(Band(i, first, min(lanes, rows - first)) for i, first in enumerate(range(0, rows, lanes)))


def variants(layer: str, name: str, weight: NDArray, order: NDArray | None, segments: Sequence[tuple[int, int]],
             config: MachineConfig, act16: bool,
             size: int, allowed: Sequence[str], forced: str | None, rates: Sequence[int]) -> tuple[Kernel, ...]:
    """Encode one matrix [rows, cols] that multiplies a vector lying in ``segments``: by the codec with the lowest
    price, and by those whose price is so near that only their cycles decide (`nnac.schedule.contest`).

    size  bytes of an activation      allowed, forced  codecs, as `codec.choose` takes them
    rates  MVM codes that this machine speeds up
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
    choices: list[codec.Choice] = []
    first = 0
    for part, (offset, width) in enumerate(segments):
        piece = weight[:, first:first + width]
        pieces = chunks_of(width, limit)
        matrix = _bytes_apart(piece) if wide else np.ascontiguousarray(piece)
        choices.append(codec.choose(matrix, config.lanes, allowed, forced, pieces[0].count * per_input, speed))
        chunks += [Chunk(part, offset + c.first * size, c.count) for c in pieces]
        first += width

    rows, cols = weight.shape

    def of(parts: Sequence[codec.Encoded]) -> Kernel:
        tiles: list[list[codec.Tile]] = [[] for _ in bands]
        for encoded in parts:
            each = len(encoded.tiles) // max(1, len(bands))
            for i, tile in enumerate(encoded.tiles):
                tiles[i // each].append(tile)
        return Kernel(f"{layer}.{name}", layer, name, rows, cols, bands, tuple(chunks), tuple(map(tuple, tiles)),
                      tuple((e.header, e.table_steps) for e in parts), "|".join(dict.fromkeys(e.codec for e in parts)),
                      code, act16)

    names = dict.fromkeys(e.codec for c in choices for e in c.rivals)
    return of([c.encoded for c in choices]), *(
        of([next((e for e in c.rivals if e.codec == name), c.encoded) for c in choices]) for name in names)


def chunk_words(weight: NDArray, config: MachineConfig) -> int:
    """Words of a tile.  Large tiles are fewer instructions; small ones keep DRAM busy when a tile streams in less time
    than it takes to free its place: decode, multiply, and the latency of the next request (2 words a word, and the
    latency).

    W holds n tiles of c words, so n - 1 of them must last that long: (n - 1) c d >= 2 c + latency + 16, with d DRAM
    cycles a word, from the entropy of a sample.  A small kernel is cut in pieces none the less: whoever waits for all
    of it waits for the last piece to be decoded and multiplied, after the last byte has come.  And a tile's stream is
    no longer than one instruction can name, raw, with a block bitmap.
    """
    sample = weight[:: max(1, len(weight) // 256)].astype(np.int16)
    counts = np.bincount(sample.ravel() & 255).astype(np.float64)
    share = counts[counts > 0] / max(1, sample.size)
    bits = max(0.5, float(-(share * np.log2(share)).sum()))
    cycles = config.lanes * bits / 8 / config.burst * float(config.burst_cycles)
    total = len(bands_of(len(weight), config.lanes)) * weight.shape[1]
    most = MOST_BYTES // config.lanes
    few = min(max(SMALLEST, -(-total // PIECES)), most)
    for n in (4, 8):
        c = config.stream_words // n
        if c <= most and (n - 1) * c * cycles >= 1.25 * (2 * c + config.latency + 16):
            return min(c, few)
    return max(1, min(config.stream_words // 8, few))


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


# ----------------------------------------------------------------------------------------------------- parameter blocks

def requantise_blocks(bands: Sequence[Band], bias: NDArray, multiplier: NDArray, shift: NDArray, zero_point: int,
                      bits: int,
                      wide: bool) -> tuple[bytes, ...]:
    """RQ's parameters for every band; arrays [rows] in band order."""
    head, row = RQ_HEAD.pack(zero_point=zero_point, bits=bits), RQ_WIDE_ROW if wide else RQ_ROW
    rows = row.pack(bias=bias, multiplier=multiplier, shift=shift)
    return tuple(head + rows[row.bytes * b.first: row.bytes * (b.first + b.count)] for b in bands)
