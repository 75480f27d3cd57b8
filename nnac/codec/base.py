"""Weight streams: what every codec shares.

**Words and tiles.**  An int8 matrix [rows, cols] (rows = outputs, cols = inputs) is cut into tiles of at most L rows (L
lanes) and some columns.  A *weight word* is one column of a tile: L outputs of one input.  A tile holds its words in
order of the input, and in a word the weights of lanes 0, 1, ... rows-1.  Lanes beyond the tile's rows take no bits and
decode to zero.  Each tile is encoded alone: random access, its byte length and its decoder steps are known when the
program is made.

**Bits.**  Little-endian throughout: the first bit is bit 0 of byte 0, every field has its least significant bit first.

**The stream header** of a tensor (once; the decoder's registers and tables are loaded from it):

    byte 0      bits 0-3 payload codec (0 raw, 1 packed, 2 codebook, 3 zero_run, 4 entropy), bit 7 block bitmap, others
                zero
    if bit 7:   u16 block rows, u8 block cols   (little-endian, 1 at least)
    then        the payload codec's table, as its page says, to the end of the header

**Block bitmap.**  A tile is covered by blocks of block rows x block cols weights, from the corner (0, 0); blocks that
stick out are cut off. One bit a block, 1 = live; number = strip * blocks_per_strip + block row, where a strip is block
cols columns wide and blocks_per_strip = ceil(rows / block rows).  A dead block's weights are zero and take no bits.
Any shape is legal, also 1x1 and 3x5; the useful ones: 1x16 (one output, 16 inputs: saves bytes), 16x1, and L x 1 (whole
words: saves bytes and MV cycles).  The bits come before the tile's values: with raw, packed, codebook and zero_run as
they are, filled up with zeros to whole bytes; entropy codes them. The decoder keeps them: ceil(rows / block rows) *
ceil(cols / block cols) bits, at worst rows * cols.

**Dead words.**  With a block bitmap a word none of whose blocks is live is dead, and with zero_run (bitmap or not) a
word whose weights are all zero.  The decoder writes nothing for it and MVM does not see it.  All others are live,
whatever their values.

The byte length of a tile stands in the instruction that loads it, not in the stream.

**Steps.**  The decoder makes one word a step.  A tile takes its mask steps, ceil(blocks / rows) with a bitmap and 0
without, and one value step for each live word; zero_run and entropy say where they differ.  A header (LDT) takes 2^n
steps with entropy and 0 with every other codec. A step takes F cycles: 1, or ceil(L / weights that the decoder takes in
a cycle).

**Errors.**  A header that names no codec, has a reserved bit or another length than its table; a tile of another length
than its weights need, or with bits that are not zero after the last; a live block without a weight that is not zero.
"""

from __future__ import annotations

import math
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.codec.bits import pack_fixed, packed_bytes, unpack_fixed
from nnac.codec.names import PAYLOADS, Blocks, CodecError


def block_count(blocks: Blocks, rows: int, cols: int) -> int:
    """Blocks in a tile of rows x cols."""
    return math.ceil(rows / blocks.rows) * math.ceil(cols / blocks.cols)


def block_bits(blocks: Blocks, words: NDArray[np.int8], rows: int) -> NDArray[np.bool_]:
    """Which blocks of a tile ``words`` [cols, lanes] are live: bool [block_count]."""
    some = words[:, :rows] != 0
    if blocks.rows > 1: some = np.logical_or.reduceat(some, np.arange(0, rows, blocks.rows), axis=1)
    if blocks.cols > 1: some = np.logical_or.reduceat(some, np.arange(0, words.shape[0], blocks.cols), axis=0)
    return some.reshape(-1)


def spread_bits(blocks: Blocks, live: NDArray[np.bool_], rows: int, cols: int) -> NDArray[np.bool_]:
    """Which weights [cols, rows] lie in a live block."""
    bits = live.reshape(math.ceil(cols / blocks.cols), math.ceil(rows / blocks.rows))
    return np.repeat(np.repeat(bits, blocks.cols, axis=0)[:cols], blocks.rows, axis=1)[:, :rows]


@frozen(eq=False, slots=False)      # slots=False: room for what is worked out once
class Words:
    """One tile on its way into a codec: words int8 [cols, lanes], of which ``rows`` lanes are in use."""

    words: NDArray[np.int8]
    rows: int
    blocks: Blocks | None = None

    @property
    def cols(self) -> int: return self.words.shape[0]

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """The block bits."""
        assert self.blocks is not None, "a tile without a block bitmap has no block bits"
        return block_bits(self.blocks, self.words, self.rows)

    @cached_property
    def active(self) -> NDArray[np.bool_] | None:
        """Which weights [cols, rows] take bits; None: all."""
        return None if self.blocks is None else spread_bits(self.blocks, self.live, self.rows, self.cols)

    @property
    def live_words(self) -> int:
        """Words with a live block: they are written and multiplied."""
        if self.blocks is None: return self.cols
        grid, _, wide = self._grid(self.blocks)
        return int(wide @ grid.any(axis=1))

    @property
    def live_weights(self) -> int:
        if self.blocks is None: return self.cols * self.rows
        grid, high, wide = self._grid(self.blocks)
        return int(wide @ grid @ high)

    def _grid(self, blocks: Blocks) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        """Block bits [strips, block rows], and the blocks' heights and widths: those at the edges are cut off."""
        wide = np.diff([*range(0, self.cols, blocks.cols), self.cols])
        high = np.diff([*range(0, self.rows, blocks.rows), self.rows])
        return self.live.reshape(wide.size, high.size), high, wide

    @property
    def mask_steps(self) -> int: return 0 if self.blocks is None else math.ceil(self.live.size / self.rows)

    def symbols(self) -> NDArray[np.uint8]:
        """The weights that take bits, in stream order, as value + 128."""
        used = self.words[:, : self.rows]
        return (used.reshape(-1) if self.active is None else used[self.active]).view(np.uint8) ^ np.uint8(128)


@frozen
class Stream:
    """One tile on its way out: its bytes and its size (valid rows, words)."""

    data: bytes
    rows: int
    cols: int


@frozen
class Survey:
    """What a codec must know of a tensor to set up its tables and to price itself.

    histogram int64 [256]  of (value + 128) over the weights that take bits
    states                 lanes in use, summed over the tiles (the entropy coder keeps one state each)
    blocks, live_blocks    in the bitmap (0, 0 without);   mask_steps, live_words: summed over the tiles
    """

    histogram: NDArray[np.int64] = field(eq=False)
    tiles: int
    states: int
    live_words: int
    blocks: int = 0
    live_blocks: int = 0
    mask_steps: int = 0

    @property
    def weights(self) -> int: return int(self.histogram.sum())


class Codec(ABC):
    """A payload codec: symbols to bytes and back.  One subclass a file; `registry` finds it by name, `by_code` by
    number."""

    name: ClassVar[str]
    code: ClassVar[int]
    summary: ClassVar[str]
    registry: ClassVar[dict[str, Codec]] = {}
    by_code: ClassVar[dict[int, Codec]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__: return
        assert cls.name in PAYLOADS, f"weight codec {cls.name} is missing in nnac/codec/names.py"
        cls.summary = PAYLOADS[cls.name]
        Codec.registry[cls.name] = Codec.by_code[cls.code] = cls()

    @abstractmethod
    def fit(self, survey: Survey) -> Any:
        """The table for these values, or None: this codec cannot carry them."""

    @abstractmethod
    def estimate(self, table: Any, survey: Survey) -> float:
        """Bits of all tiles and the header, to a fraction of a per cent."""

    def floor(self, survey: Survey) -> float:
        """A lower bound of `estimate` that is cheap; 0: `fit` is cheap itself."""
        return 0.0

    @abstractmethod
    def write(self, table: Any) -> bytes:
        """The table as header bytes."""

    @abstractmethod
    def read(self, data: bytes) -> Any:
        """The table from header bytes.  CodecError: damaged."""

    @abstractmethod
    def encode(self, table: Any, tiles: Sequence[Words]) -> list[bytes]:
        """The bytes of each tile, bitmap included."""

    @abstractmethod
    def decode(self, table: Any, blocks: Blocks | None, tiles: Sequence[Stream], lanes: int) -> list[NDArray[np.int8]]:
        """The words [cols, lanes] of each tile.  CodecError: damaged."""

    def cost(self, table: Any, tile: Words) -> tuple[int, int]:
        """(live words, steps of a decoder that is as wide as the word)."""
        return tile.live_words, tile.mask_steps + tile.live_words

    def table_steps(self, table: Any) -> int:
        """Cycles that set the decoder up, once its header is there."""
        return 0


class FixedWidth(Codec):
    """Shared by the codecs whose symbols all take ``bits`` bits: [block bits][symbols of live weights], tile padded to
    bytes."""

    @abstractmethod
    def bits(self, table: Any) -> int: ...

    @abstractmethod
    def to_index(self, table: Any) -> NDArray[np.uint8]:
        """[256] (value + 128) -> index."""

    @abstractmethod
    def to_value(self, table: Any) -> NDArray[np.uint8]:
        """[<= 256] index -> the byte of the value; a shorter table means that larger indices are errors."""

    def estimate(self, table: Any, survey: Survey) -> float:
        pad = 4 * survey.tiles * (2 if survey.blocks else 1)
        return survey.blocks + survey.weights * self.bits(table) + pad + 8 * len(self.write(table))

    def encode(self, table: Any, tiles: Sequence[Words]) -> list[bytes]:
        index = self.to_index(table).tobytes()
        width = self.bits(table)
        out = []
        for tile in tiles:
            symbols = np.frombuffer(tile.symbols().tobytes().translate(index), np.uint8)
            mask = b"" if tile.blocks is None else pack_fixed(tile.live.view(np.uint8), 1)
            out.append(mask + pack_fixed(symbols, width))
        return out

    def decode(self, table: Any, blocks: Blocks | None, tiles: Sequence[Stream], lanes: int) -> list[NDArray[np.int8]]:
        width = self.bits(table)
        values = self.to_value(table)
        lookup = np.zeros(256, np.uint8)
        lookup[: values.size] = values
        out = []
        for tile in tiles:
            active, at = read_mask(blocks, tile)
            count = tile.rows * tile.cols if active is None else int(active.sum())
            expect_length(tile, at + packed_bytes(count, width))
            symbols = unpack_fixed(tile.data[at:], count, width)
            if values.size < 1 << width and count and int(symbols.max()) >= values.size:
                raise CodecError(f"{self.name}: index {int(symbols.max())} in a table of {values.size} values")
            out.append(place(np.frombuffer(symbols.tobytes().translate(lookup.tobytes()), np.int8), active, tile,
                             lanes))
            check_live(blocks, active, out[-1], tile.rows)
        return out


def read_mask(blocks: Blocks | None, tile: Stream) -> tuple[NDArray[np.bool_] | None, int]:
    """Uncoded block bits at the head of a tile: (active [cols, rows] or None, bytes read)."""
    if blocks is None: return None, 0
    count = block_count(blocks, tile.rows, tile.cols)
    size = packed_bytes(count, 1)
    if len(tile.data) < size: raise CodecError(f"tile of {len(tile.data)} bytes ends inside its block bitmap of {size} "
                                               f"bytes")
    bits = unpack_fixed(tile.data[:size], count, 1).view(np.bool_)
    return spread_bits(blocks, bits, tile.rows, tile.cols), size


def expect_length(tile: Stream, size: int) -> None:
    if len(tile.data) != size:
        raise CodecError(f"tile of {tile.rows} rows x {tile.cols} words needs {size} bytes, has {len(tile.data)}")


def check_live(blocks: Blocks | None, active: NDArray[np.bool_] | None, words: NDArray[np.int8], rows: int) -> None:
    """CodecError: a block that is said to be live (``active`` [cols, rows]) has no weight, so the bits and the values
    disagree on dead words."""
    if blocks is None or active is None: return
    if (spread_bits(blocks, block_bits(blocks, words, rows), rows, len(words)) != active).any():
        raise CodecError(f"a block of {blocks} is said to be live and has no weight that is not zero")


def place(values: NDArray[np.int8], active: NDArray[np.bool_] | None, tile: Stream, lanes: int) -> NDArray[np.int8]:
    """Decoded weights, in stream order, back to words [cols, lanes]; zero where nothing was stored."""
    words = np.zeros((tile.cols, lanes), np.int8)
    if active is None: words[:, : tile.rows] = values.reshape(tile.cols, tile.rows)
    else: words[:, : tile.rows][active] = values
    return words


# -------------------------------------------------------------------------------------------------------------- tensors


@frozen
class Tile:
    """An encoded tile: where it belongs, its bytes, and the numbers the schedule needs."""

    row: int
    col: int
    rows: int
    cols: int
    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    live_words: int
    steps: int

    @property
    def words(self) -> int: return self.cols


@frozen
class Encoded:
    """A tensor as weight streams.  ``codec`` is the full name, ``header`` the decoder's set-up, shared by the tiles."""

    codec: str
    header: bytes
    tiles: tuple[Tile, ...]
    shape: tuple[int, int]
    lanes: int
    table_steps: int = 0

    @property
    def size_bytes(self) -> int: return len(self.header) + sum(len(tile.data) for tile in self.tiles)

    @property
    def words(self) -> int: return sum(tile.words for tile in self.tiles)

    @property
    def live_words(self) -> int: return sum(tile.live_words for tile in self.tiles)

    def image(self, align: int = 16) -> tuple[bytes, tuple[int, ...]]:
        """Stream header and tiles as they lie in memory, each from a multiple of ``align`` bytes: (bytes, the tiles'
        offsets)."""
        parts, offsets, at = [], [], 0
        for data in (self.header, *(tile.data for tile in self.tiles)):
            offsets.append(at)
            parts.append(data + bytes(-len(data) % align))
            at += len(parts[-1])
        return b"".join(parts), tuple(offsets[1:])

    def to_bytes(self) -> bytes: return _to_bytes(self)

    @staticmethod
    def from_bytes(data: bytes) -> Encoded: return _from_bytes(data)


def bits_per_weight(encoded: Encoded) -> float:
    """Header, tables, bitmaps and padding included; over the weights of the matrix, not of the padded tiles."""
    return 8 * encoded.size_bytes / max(1, encoded.shape[0] * encoded.shape[1])


def decode_cycles(tile: Tile, lanes: int, weights_per_cycle: int | None = None) -> int:
    """Cycles the decoder is busy with a tile (DRAM time not included): steps x ceil(lanes / weights_per_cycle)."""
    return tile.steps * math.ceil(lanes / (weights_per_cycle or lanes))


def block_shapes(lanes: int) -> tuple[Blocks, ...]:
    """The block shapes that are tried: whole words first, since they also save MV cycles.

    Words of 64 are those that networks are pruned in (`csp(…, block=64, along=outputs)`): a machine of more lanes finds
    them, too.
    """
    return tuple(dict.fromkeys([Blocks(lanes, 1), Blocks(min(64, lanes), 1), Blocks(1, 16), Blocks(min(16, lanes), 1)]))


def check_matrix(matrix: NDArray[np.int8], lanes: int) -> NDArray[np.int8]:
    matrix = np.asarray(matrix)
    if matrix.dtype != np.int8 or matrix.ndim != 2:
        raise CodecError(f"weights must be an int8 matrix [rows, cols], not {matrix.dtype} {list(matrix.shape)}")
    if lanes < 1: raise CodecError(f"a word needs at least one lane, not {lanes}")
    return matrix


def cut(matrix: NDArray[np.int8], lanes: int, tile_cols: int | None = None) -> list[tuple[int, int, Words]]:
    """(row, col, words) of each tile, row bands first; the words are views into one transposed, zero-padded copy."""
    rows, cols = matrix.shape
    bands = math.ceil(rows / lanes)
    turned = np.zeros((cols, bands * lanes), np.int8)
    turned[:, :rows] = matrix.T
    width = tile_cols or max(cols, 1)
    return [(r, c, Words(turned[c: c + width, r: r + lanes], min(lanes, rows - r)))
            for r in range(0, rows, lanes) for c in range(0, cols, width)]


def survey(matrix: NDArray[np.int8], tiles: Sequence[Words]) -> Survey:
    """What the codecs must know; ``tiles`` cover ``matrix``, all with the same blocks or without."""
    histogram = np.roll(np.bincount(matrix.reshape(-1).view(np.uint8), minlength=256), 128)
    histogram[128] -= matrix.size - sum(tile.live_weights for tile in tiles)        # dead blocks are all zeros
    bits = [tile.live for tile in tiles if tile.blocks is not None]
    return Survey(histogram, len(tiles), sum(tile.rows for tile in tiles), sum(tile.live_words for tile in tiles),
                  sum(b.size for b in bits), sum(int(b.sum()) for b in bits), sum(tile.mask_steps for tile in tiles))


def write_header(codec: Codec, blocks: Blocks | None, table: Any) -> bytes:
    head = struct.pack("<B", codec.code) if blocks is None else struct.pack("<BHB", codec.code | 128, blocks.rows,
                                                                            blocks.cols)
    return head + codec.write(table)


def read_header(header: bytes) -> tuple[Codec, Blocks | None, Any]:
    """(codec, blocks, table).  CodecError: empty, unknown, damaged."""
    if not header: raise CodecError("empty stream header")
    first = header[0]
    if first & 0x70 or first & 15 not in Codec.by_code: raise CodecError(f"stream header names no codec: first byte "
                                                                         f"{first:#04x}")
    codec = Codec.by_code[first & 15]
    if not first & 128: return codec, None, codec.read(header[1:])
    if len(header) < 4: raise CodecError("stream header ends inside the block shape")
    rows, cols = struct.unpack_from("<HB", header, 1)
    if not rows or not cols: raise CodecError(f"stream header gives blocks of {rows}x{cols}")
    return codec, Blocks(rows, cols), codec.read(header[4:])


# ------------------------------------------------------------------------------------------------------------ container

_MAGIC = b"NWS1"
_HEAD = struct.Struct("<4sIIHHII")       # magic, rows, cols, lanes, header bytes, tiles, table steps
_ENTRY = struct.Struct("<IIHIIII")       # row, col, rows, cols, bytes, live words, steps


def _to_bytes(encoded: Encoded) -> bytes:
    """Self-contained file form: head, stream header, directory, tiles, CRC-32 of all before it."""
    parts = [_HEAD.pack(_MAGIC, *encoded.shape, encoded.lanes, len(encoded.header), len(encoded.tiles),
                        encoded.table_steps),
             encoded.header]
    parts += [_ENTRY.pack(t.row, t.col, t.rows, t.cols, len(t.data), t.live_words, t.steps) for t in encoded.tiles]
    parts += [t.data for t in encoded.tiles]
    body = b"".join(parts)
    return body + struct.pack("<I", zlib.crc32(body))


def _from_bytes(data: bytes) -> Encoded:
    data = bytes(data)
    if len(data) < _HEAD.size + 4: raise CodecError(f"weight stream of {len(data)} bytes is too short for its head")
    magic, rows, cols, lanes, header_bytes, count, table_steps = _HEAD.unpack_from(data)
    if magic != _MAGIC: raise CodecError(f"not a weight stream: starts with {magic!r}, expected {_MAGIC!r}")
    if zlib.crc32(data[:-4]) != struct.unpack("<I",
        data[-4:])[0]: raise CodecError("weight stream is damaged: checksum differs")
    at = _HEAD.size
    header = data[at: at + header_bytes]
    at += header_bytes
    if at + count * _ENTRY.size + 4 > len(data): raise CodecError(f"weight stream ends inside its directory of {count} "
                                                                  f"tiles")
    body = at + count * _ENTRY.size
    tiles = []
    for i in range(count):
        row, col, tile_rows, tile_cols, size, alive, steps = _ENTRY.unpack_from(data, at + i * _ENTRY.size)
        tiles.append(Tile(row, col, tile_rows, tile_cols, data[body: body + size], alive, steps))
        body += size
    if body + 4 != len(data): raise CodecError(f"weight stream has {len(data)} bytes, its directory needs {body + 4}")
    codec, blocks, _ = read_header(header)
    return Encoded(full_name(codec, blocks), header, tuple(tiles), (rows, cols), lanes, table_steps)


def full_name(codec: Codec, blocks: Blocks | None) -> str:
    return codec.name if blocks is None else f"{blocks}+{codec.name}"
