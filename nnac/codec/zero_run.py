"""zero_run: (run of zeros, value) pairs of fixed width.

Table: u8 r (run bits, 1..8) + 16 * mode; mode 0: values are int8 (v = 8 bits); mode 1: u8 number of values - 1, then
the values (int8, increasing, at most 63, none of them zero): a value is an index of v = ceil(log2(1 + number)) bits, 0
means zero. Tile: block bits, if there is a bitmap; then pairs of r + v bits, run in the low bits: "skip so many zeros,
then this value".  A run of 2^r or more is broken by pairs (2^r - 1, 0).  Zeros after the last pair are not stored.
Pairs go over the weights that take bits, in stream order.  The number of pairs is floor(8 * bytes / (r + v)); so the
zero bits that fill the last byte may read as pairs (0, 0): they count, unless they lie beyond the last weight.
Steps: 16 pairs a step, so 16 a cycle (a prefix sum over 16 runs), all landing in one word; a word in which no pair
lands costs nothing: mask steps + sum over words of ceil(pairs landing in the word / 16), where a pair lands at the
weight that its value is, zero or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.codec.base import Codec, Stream, Survey, Words, check_live, place, read_mask
from nnac.codec.bits import pack_fixed, pack_streams
from nnac.codec.names import Blocks, CodecError

PAIRS_PER_CYCLE = 16


@frozen
class ZeroRunTable:
    run_bits: int
    values: bytes | None    # None: int8

    @property
    def value_bits(self) -> int: return 8 if self.values is None else len(self.values).bit_length()

    @property
    def width(self) -> int: return self.run_bits + self.value_bits


class ZeroRun(Codec):
    name, code = "zero_run", 3

    def fit(self, survey: Survey) -> ZeroRunTable | None:
        used = np.flatnonzero(survey.histogram)
        used = used[used != 128]
        values = None if used.size > 63 else (used - 128).astype(np.int8).tobytes() or b"\1"
        return min((ZeroRunTable(r, values) for r in range(1, 9)), key=lambda table: self.estimate(table, survey))

    def estimate(self, table: ZeroRunTable, survey: Survey) -> float:
        stored = survey.weights - int(survey.histogram[128])
        if not survey.weights: return survey.blocks + 8.0 * len(self.write(table))
        long = (1 - stored / survey.weights) ** (1 << table.run_bits)    # zeros taken as independent
        extra = long / (1 - long) * stored if long < 1 else 0
        return survey.blocks + (stored + extra) * table.width + 4 * survey.tiles + 8 * len(self.write(table))

    def write(self, table: ZeroRunTable) -> bytes:
        if table.values is None: return bytes([table.run_bits])
        return bytes([table.run_bits + 16, len(table.values) - 1]) + table.values

    def read(self, data: bytes) -> ZeroRunTable:
        if not data or not 1 <= data[0] & 15 <= 8 or data[0] >> 4 > 1:
            raise CodecError("zero_run: the stream header gives no run width of 1..8 bits")
        if data[0] >> 4 == 0:
            if len(data) != 1: raise CodecError(f"zero_run: {len(data) - 1} bytes too many in the stream header")
            return ZeroRunTable(data[0], None)
        if len(data) < 2 or data[1] > 62 or len(data) != data[1] + 3:
            raise CodecError(f"zero_run: the stream header of {len(data)} bytes does not hold the 1..63 values it "
                             f"announces")
        return ZeroRunTable(data[0] & 15, data[2:])

    def _pairs(self, table: ZeroRunTable, tile: Words) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """(position of each pair's value among the stored weights, the pair's bits)."""
        symbols = tile.symbols()
        at = np.flatnonzero(symbols != 128)
        gap = np.diff(at, prepend=-1) - 1
        breaks = gap >> table.run_bits
        index = np.arange(256, dtype=np.uint64)
        if table.values is None: index ^= np.uint64(128)
        else: index[np.frombuffer(table.values, np.uint8) ^ 128] = np.arange(1, len(table.values) + 1)
        last = np.cumsum(breaks + 1) - 1                   # the pair that carries the value; its breaks come before it
        size = int(last[-1]) + 1 if at.size else 0
        bits = np.full(size, (1 << table.run_bits) - 1, np.uint64)
        bits[last] = (gap & ((1 << table.run_bits) -
                             1)).astype(np.uint64) | index[symbols[at]] << np.uint64(table.run_bits)
        step = np.full(size, 1 << table.run_bits)
        step[last] = (gap & ((1 << table.run_bits) - 1)) + 1
        return np.cumsum(step) - 1, bits

    def encode(self, table: ZeroRunTable, tiles: Sequence[Words]) -> list[bytes]:
        out = []
        for tile in tiles:
            _, bits = self._pairs(table, tile)
            ends = np.arange(1, bits.size + 1) * table.width
            packed, _ = pack_streams(bits[None], ends[None])
            mask = b"" if tile.blocks is None else pack_fixed(tile.live.view(np.uint8), 1)
            out.append(mask + packed[: (bits.size * table.width + 7) // 8].tobytes())
        return out

    def decode(self, table: ZeroRunTable, blocks: Blocks | None, tiles: Sequence[Stream],
               lanes: int) -> list[NDArray[np.int8]]:
        lookup = np.zeros(256, np.uint8)
        if table.values is None: lookup[:] = np.arange(256)
        else: lookup[1: len(table.values) + 1] = np.frombuffer(table.values, np.uint8)
        known = 256 if table.values is None else len(table.values) + 1
        out = []
        for tile in tiles:
            active, start = read_mask(blocks, tile)
            count = tile.rows * tile.cols if active is None else int(active.sum())
            raw = np.frombuffer(tile.data, np.uint8)[start:]
            pairs = raw.size * 8 // table.width
            # a pair of at most 16 bits lies within the 24 bits from its first byte
            wide = np.zeros(raw.size + 3, np.uint32)
            wide[: raw.size] = raw
            wide = wide[:-2] | wide[1:-1] << np.uint32(8) | np.append(wide[2:-1], np.uint32(0)) << np.uint32(16)
            first = np.arange(pairs) * table.width
            bits = (wide[first >> 3] >> (first & 7).astype(np.uint32)) & np.uint32((1 << table.width) - 1)
            run = (bits & np.uint32((1 << table.run_bits) - 1)).astype(np.int64)
            index = (bits >> np.uint32(table.run_bits)).astype(np.int64)
            at = np.cumsum(run + 1) - 1
            inside = at < count
            if bits[~inside].any(): raise CodecError(f"zero_run: a run ends beyond the {count} weights of the tile")
            if pairs * table.width < raw.size * 8 - 7 or (~inside).sum() * table.width > 7:
                raise CodecError(f"zero_run: {raw.size} bytes are more than the tile's {count} weights need")
            if pairs and int(index.max()) >= known:
                raise CodecError(f"zero_run: index {int(index.max())} in a table of {known} values")
            symbols = np.zeros(count, np.uint8)
            symbols[at[inside]] = lookup[index[inside]]
            out.append(place(symbols.view(np.int8), active, tile, lanes))
            check_live(blocks, active, out[-1], tile.rows)
        return out

    def cost(self, table: ZeroRunTable, tile: Words) -> tuple[int, int]:
        at, _ = self._pairs(table, tile)
        used = np.ones((tile.cols, tile.rows), np.bool_) if tile.active is None else tile.active
        word = np.repeat(np.arange(tile.cols), used.sum(axis=1))
        # the bits that fill the last byte may read as pairs of zero: the decoder cannot tell, so they count
        fill = (-at.size * table.width) % 8 // table.width
        last = int(at[-1]) if at.size else -1
        at = np.append(at, np.arange(last + 1, min(last + 1 + fill, word.size)))
        pairs = np.bincount(word[at], minlength=tile.cols)
        return int((tile.words != 0).any(axis=1).sum()), tile.mask_steps + int((-(-pairs // PAIRS_PER_CYCLE)).sum())
