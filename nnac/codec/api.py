"""Encode, decode, choose: tensors in, weight streams out, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

# each module registers its codec
from nnac.codec import codebook, entropy, packed, raw, zero_run  # noqa: F401
from nnac.codec.base import (
    Blocks,
    Codec,
    CodecError,
    Encoded,
    Stream,
    Survey,
    Tile,
    Words,
    block_shapes,
    check_matrix,
    cut,
    full_name,
    parse_name,
    read_header,
    survey,
    with_blocks,
    write_header,
)


def encode(matrix: NDArray[np.int8], codec: str, lanes: int = 64, tile_cols: int | None = None) -> Encoded:
    """``matrix`` int8 [rows, cols] as weight streams.

    codec      raw | packed | codebook | zero_run | entropy, also ``block_bitmap+...`` (the shape of the blocks that leaves the
               fewest live weights) and ``block_bitmap[16x1]+...``; ``block_bitmap`` alone carries raw values
    tile_cols  columns of a tile; None: all
    CodecError: the codec cannot carry these values (says why), or there is no such codec.
    """
    matrix = check_matrix(matrix, lanes)
    name = parse_name(codec)
    payload = Codec.registry[name.payload or "raw"]
    tiles = cut(matrix, lanes, tile_cols)
    blocks = name.shape
    if name.blocks and blocks is None: blocks = _best_blocks([words for _, _, words in tiles], lanes)
    if blocks is not None: tiles = [(r, c, with_blocks(words, blocks)) for r, c, words in tiles]
    return _encode(payload, blocks, tiles, matrix.shape, lanes)


def _best_blocks(tiles: Sequence[Words], lanes: int) -> Blocks:
    def price(blocks: Blocks) -> int:
        flagged = [with_blocks(tile, blocks) for tile in tiles]
        return sum(8 * int(t.active.sum()) + t.live.size for t in flagged)
    return min(block_shapes(lanes), key=price)


def _encode(payload: Codec, blocks: Blocks | None, tiles: list[tuple[int, int, Words]], shape: tuple[int, int], lanes: int,
            table: object = None) -> Encoded:
    words = [tile for _, _, tile in tiles]
    if table is None: table = payload.fit(survey(words))
    if table is None:
        raise CodecError(f"{payload.name} cannot carry these weights: {np.unique(np.concatenate([w.symbols() for w in words])).size} "
                         f"different values; it is {payload.summary}")
    data = payload.encode(table, words)
    costs = [payload.cost(table, tile) for tile in words]
    out = tuple(Tile(r, c, w.rows, w.cols, d, *cost) for (r, c, w), d, cost in zip(tiles, data, costs, strict=True))
    return Encoded(full_name(payload, blocks), write_header(payload, blocks, table), out, shape, lanes, payload.table_steps(table))


def decode_tiles(header: bytes, tiles: Sequence[tuple[bytes, int, int]], lanes: int) -> list[NDArray[np.int8]]:
    """Words int8 [cols, lanes] of several tiles (data, rows, cols) of one tensor; much faster than one by one."""
    codec, blocks, table = read_header(bytes(header))
    streams = [Stream(bytes(data), rows, cols) for data, rows, cols in tiles]
    for tile in streams:
        if not 1 <= tile.rows <= lanes or tile.cols < 0: raise CodecError(f"a tile of {tile.rows} rows x {tile.cols} words on {lanes} lanes")
    return codec.decode(table, blocks, streams, lanes)


def decode_tile(header: bytes, data: bytes, rows: int, cols: int, lanes: int) -> NDArray[np.int8]:
    """Words int8 [cols, lanes] of one tile; lanes from ``rows`` on are zero."""
    return decode_tiles(header, [(data, rows, cols)], lanes)[0]


def decode(encoded: Encoded) -> NDArray[np.int8]:
    """The matrix int8 [rows, cols].  CodecError: damaged."""
    rows, cols = encoded.shape
    matrix = np.zeros((rows, cols), np.int8)
    words = decode_tiles(encoded.header, [(t.data, t.rows, t.cols) for t in encoded.tiles], encoded.lanes)
    for tile, got in zip(encoded.tiles, words, strict=True):
        if tile.row + tile.rows > rows or tile.col + tile.cols > cols:
            raise CodecError(f"tile at ({tile.row}, {tile.col}) of {tile.rows}x{tile.cols} lies outside the matrix {rows}x{cols}")
        matrix[tile.row: tile.row + tile.rows, tile.col: tile.col + tile.cols] = got[:, : tile.rows].T
    return matrix


def skips_dead_words(header: bytes) -> bool:
    """Does the decoder tell the MV unit which words are all zero (block bitmap, zero_run), so that it skips them?"""
    codec, blocks, _ = read_header(bytes(header))
    return blocks is not None or codec.name == "zero_run"


# ------------------------------------------------------------------------------------------------------------------- choose


@frozen
class Candidate:
    """One codec's price.  ``bits`` a weight, estimated, or measured where ``measured``; None: cannot carry these values."""

    codec: str
    bits: float | None
    live_words: int
    measured: bool = False
    note: str = ""


@frozen
class Choice:
    encoded: Encoded
    candidates: tuple[Candidate, ...]
    forced: str | None = None

    @property
    def codec(self) -> str: return self.encoded.codec

    def __str__(self) -> str:
        """The table of candidates, best first."""
        lines = [f"{'codec':<34} {'bits/weight':>11} {'live words':>10}"]
        for c in self.candidates:
            bits = c.note if c.bits is None else f"{c.bits:11.4f}{'' if c.measured else ' ~'}"
            lines.append(f"{c.codec:<34} {bits:>11} {c.live_words:>10}{'   <- chosen' if c.codec == self.codec else ''}")
        return "\n".join(lines)


def choose(matrix: NDArray[np.int8], lanes: int = 64, allowed: Iterable[str] | None = None, forced: str | None = None,
           tile_cols: int | None = None) -> Choice:
    """The codec with the fewest bits, and with equal bits the fewest live words.

    allowed  names of payload codecs and ``block_bitmap`` that the target decodes (None: all)
    forced   the policy's word: a name as `encode` takes it; ``block_bitmap`` alone leaves the payload open
    Candidates are priced from histograms; the best two are encoded and measured.
    """
    matrix = check_matrix(matrix, lanes)
    can = set(allowed) if allowed is not None else {*Codec.registry, "block_bitmap"}
    wish = parse_name(forced) if forced else None
    if wish: can &= {wish.payload or "", "block_bitmap"} if wish.payload else can | {"block_bitmap"}
    plain = cut(matrix, lanes, tile_cols)
    shapes: list[Blocks | None] = [] if wish and wish.blocks else [None]
    if "block_bitmap" in can and (wish is None or wish.blocks): shapes += [wish.shape] if wish and wish.shape else block_shapes(lanes)
    priced = []
    for shape in shapes:
        tiles = plain if shape is None else [(r, c, with_blocks(w, shape)) for r, c, w in plain]
        facts = survey([w for _, _, w in tiles])
        if shape is not None and not (wish and wish.blocks) and facts.live_blocks > 0.98 * facts.blocks: continue
        for name, codec in Codec.registry.items():
            if name in can: priced.append(_price(codec, shape, tiles, facts, matrix.size))
    usable = sorted((p for p in priced if p[0].bits is not None), key=lambda p: (p[0].bits, p[0].live_words))
    if not usable: raise CodecError(f"no codec that is allowed ({', '.join(sorted(can))}) can carry these weights")
    measured = []
    for candidate, codec, shape, tiles, table in usable[:2]:
        encoded = _encode(codec, shape, tiles, matrix.shape, lanes, table)
        bits = 8 * encoded.bytes / max(1, matrix.size)
        measured.append((Candidate(candidate.codec, bits, encoded.live_words, True), encoded))
    measured.sort(key=lambda m: (m[0].bits, m[0].live_words))
    rest = [p[0] for p in usable[2:]] + [p[0] for p in priced if p[0].bits is None]
    return Choice(measured[0][1], (*(m[0] for m in measured), *rest), forced)


def _price(codec: Codec, shape: Blocks | None, tiles: list[tuple[int, int, Words]], facts: Survey, size: int) -> tuple:
    name, table = full_name(codec, shape), codec.fit(facts)
    live = sum(codec.cost(table, w)[0] for _, _, w in tiles) if table is not None else 0
    bits = None if table is None else codec.estimate(table, facts) / max(1, size)
    return Candidate(name, bits, live, note="cannot carry" if table is None else ""), codec, shape, tiles, table
