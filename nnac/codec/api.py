"""Encode, decode, choose: tensors in, weight streams out, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

# each module registers its codec
from nnac.codec import codebook, entropy, packed, raw, zero_run  # noqa: F401
from nnac.codec.base import (
    Codec,
    Encoded,
    Stream,
    Survey,
    Tile,
    Words,
    block_shapes,
    check_matrix,
    cut,
    full_name,
    read_header,
    survey,
    write_header,
)
from nnac.codec.names import BLOCK_BITMAP, PAYLOADS, Blocks, CodecError, parse_name


def encode(matrix: NDArray[np.int8], codec: str, lanes: int = 64, tile_cols: int | None = None) -> Encoded:
    """``matrix`` int8 [rows, cols] as weight streams.

    codec      raw | packed | codebook | zero_run | entropy, also ``block_bitmap+...`` (the shape of the blocks that
               leaves the fewest live weights) and ``block_bitmap[16x1]+...``; ``block_bitmap`` alone carries raw values
    tile_cols  columns of a tile; None: all
    CodecError: the codec cannot carry these values (says why), or there is no such codec.
    """
    matrix = check_matrix(matrix, lanes)
    name = parse_name(codec)
    places = cut(matrix, lanes, tile_cols)
    plans = [_plan(matrix, places, shape) for shape in ([name.blocks] if name.blocks or not name.bitmap
                                                        else block_shapes(lanes))]
    plan = min(plans, key=lambda plan: 8 * plan.facts.weights + plan.facts.blocks)
    payload = Codec.registry[name.payload or "raw"]
    table = payload.fit(plan.facts)
    if table is None:
        raise CodecError(f"{payload.name} cannot carry these weights: {_spread(matrix)}; it is {payload.summary}")
    return _encode(plan, payload, table, matrix.shape, lanes)


def _spread(matrix: NDArray[np.int8]) -> str:
    return f"{np.unique(matrix).size} different values from {matrix.min()} to {matrix.max()}"


@frozen(eq=False)
class _Plan:
    """A tensor cut into tiles, with or without blocks."""

    blocks: Blocks | None
    tiles: list[tuple[int, int, Words]]
    facts: Survey


def _plan(matrix: NDArray[np.int8], places: list[tuple[int, int, Words]], blocks: Blocks | None) -> _Plan:
    tiles = places if blocks is None else [(r, c, Words(w.words, w.rows, blocks)) for r, c, w in places]
    return _Plan(blocks, tiles, survey(matrix, [w for _, _, w in tiles]))


def _encode(plan: _Plan, payload: Codec, table: Any, shape: tuple[int, int], lanes: int) -> Encoded:
    words = [w for _, _, w in plan.tiles]
    data = payload.encode(table, words)
    out = tuple(Tile(r, c, w.rows, w.cols, d, *payload.cost(table, w))
                for (r, c, w), d in zip(plan.tiles, data, strict=True))
    header = write_header(payload, plan.blocks, table)
    return Encoded(full_name(payload, plan.blocks), header, out, shape, lanes, payload.table_steps(table))


def decode_tiles(header: bytes, tiles: Sequence[tuple[bytes, int, int]], lanes: int) -> list[NDArray[np.int8]]:
    """Words int8 [cols, lanes] of several tiles (data, rows, cols) of one tensor; much faster than one by one."""
    codec, blocks, table = read_header(bytes(header))
    streams = [Stream(bytes(data), rows, cols) for data, rows, cols in tiles]
    for tile in streams:
        if not 1 <= tile.rows <= lanes or tile.cols < 1:
            raise CodecError(f"a tile cannot have {tile.rows} rows and {tile.cols} words on {lanes} lanes")
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
            raise CodecError(f"tile at ({tile.row}, {tile.col}) of {tile.rows}x{tile.cols} lies outside the matrix "
                             f"{rows}x{cols}")
        matrix[tile.row: tile.row + tile.rows, tile.col: tile.col + tile.cols] = got[:, : tile.rows].T
    return matrix


def skips_dead_words(header: bytes) -> bool:
    """Does the decoder know which words are all zero (block bitmap, zero_run), so that they are neither written nor
    multiplied?

    `live_mask` says which; with the other codecs all words are live.
    """
    codec, blocks, _ = read_header(bytes(header))
    return blocks is not None or codec.name == "zero_run"


def live_mask(header: bytes, words: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which decoded ``words`` [cols, lanes] are written and multiplied: bool [cols].

    A word counts as live if one of its blocks is, even if its own weights in that block are zero: the decoder sees
    block bits, not values.
    """
    codec, blocks, _ = read_header(bytes(header))
    return live_words(codec, blocks, words)


def live_words(codec: Codec, blocks: Blocks | None, words: NDArray[np.int8]) -> NDArray[np.bool_]:
    """`live_mask` for a header that is read already."""
    some = np.asarray(words.any(axis=1))
    if codec.name == "zero_run": return some
    if blocks is None: return np.ones(len(words), np.bool_)
    strips = np.logical_or.reduceat(some, np.arange(0, len(some), blocks.cols))
    return np.repeat(strips, blocks.cols)[: len(some)]


# --------------------------------------------------------------------------------------------------------------- choose


# share of the cycles within which prices leave it open which codec is faster: bursts weigh more where streams are
# short, in sparse kernels and most in small ones, and to try more encodings of those costs little
RIVAL, RIVAL_SPARSE, RIVAL_SMALL, SMALL = 0.01, 0.05, 0.5, 1 << 17


@frozen
class Candidate:
    """One codec's price: ``bits`` a weight and ``steps`` of the decoder.

    known: ``measured`` (encoded), ``estimated`` (from histograms, good to a per mille; zero_run to some per cent),
    ``at least`` (a bound that was already too much), ``cannot carry`` (then bits is infinite)
    """

    codec: str
    bits: float
    live_words: int
    steps: int
    known: str

    def cycles(self, weights: int, bytes_per_cycle: float) -> float:
        """Cycles to read and to decode, whichever takes longer."""
        return max(self.bits * weights / 8 / bytes_per_cycle, self.steps)


@frozen
class Choice:
    """``rivals``: what else was encoded, since its price leaves open which is better."""

    encoded: Encoded
    candidates: tuple[Candidate, ...]
    forced: str | None = None
    rivals: tuple[Encoded, ...] = ()

    @property
    def codec(self) -> str: return self.encoded.codec

    def __str__(self) -> str:
        """The table of candidates, best first."""
        lines = [f"{'codec':<34} {'bits/weight':>11}  {'':<12} {'live words':>10} {'steps':>9}"]
        for c in self.candidates:
            bits = "" if c.bits == math.inf else f"{c.bits:.4f}"
            mark = "" if c.codec != self.codec else "   <- the policy's" if self.forced else "   <- chosen"
            lines.append(f"{c.codec:<34} {bits:>11}  {c.known:<12} {c.live_words:>10} {c.steps:>9}{mark}")
        return "\n".join(lines)


def choose(matrix: NDArray[np.int8], lanes: int = 64, allowed: Iterable[str] | None = None, forced: str | None = None,
           tile_cols: int | None = None, bytes_per_cycle: float | None = None) -> Choice:
    """The codec with the fewest bits; of those within a per mille of it, the fewest live words, then one without tables
    to load.

    allowed          names of payload codecs and ``block_bitmap`` that the target decodes (None: all)
    forced           the policy's word: a name as `encode` takes it; ``block_bitmap`` alone leaves the payload open
    bytes_per_cycle  of the DRAM: the fewest cycles (reading or decoding, whichever takes longer) instead of the fewest
                     bits
    Candidates are priced from one histogram and the block bits; the best is encoded, and the next where that may change
    the order.  Cycles depend on more than what is priced here (bursts, the order of loads): where they are asked for,
    all near the best (`RIVAL`; five at the most, more where few weights are not zero) are encoded, and are the choice's
    rivals.
    """
    matrix = check_matrix(matrix, lanes)
    # few weights are encoded soon, and what else a step takes is the greater part of it, however large the kernel
    alive = np.count_nonzero(matrix)
    few = alive <= SMALL
    rival = RIVAL_SMALL if few else RIVAL_SPARSE if 2 * alive < matrix.size else RIVAL
    margin = 0.999 if bytes_per_cycle is None else 1 - rival
    most = 4 if bytes_per_cycle is None or not few else 24
    can = set(allowed) if allowed is not None else {*PAYLOADS, BLOCK_BITMAP}
    wish = parse_name(forced) if forced else None
    needed = {part for part in (wish.payload, BLOCK_BITMAP if wish.bitmap else None) if part} if wish else set()
    if not needed <= can:
        raise CodecError(f"the target does not decode `{'`, `'.join(sorted(needed - can))}`; it decodes "
                         f"{', '.join(sorted(can))}")
    payloads = {name: Codec.registry[name] for name in PAYLOADS if name in can
                and (not wish or wish.payload in (None, name))}
    places = cut(matrix, lanes, tile_cols)
    plans = [] if wish and wish.bitmap else [_plan(matrix, places, None)]
    if BLOCK_BITMAP in can and (not wish or wish.bitmap):
        plans += [_plan(matrix, places, shape) for shape in ([wish.blocks] if wish and wish.blocks
                                                             else block_shapes(lanes))]
        # a bitmap that finds next to nothing dead saves no bits worth pricing; where cycles count, a dead word is one
        some_dead = 0.99 if bytes_per_cycle is None else 1
        if not wish: plans = [p for p in plans if p.blocks is None or p.facts.live_blocks < some_dead * p.facts.blocks]

    def score(candidate: Candidate) -> float:
        return candidate.bits if bytes_per_cycle is None else candidate.cycles(matrix.size, bytes_per_cycle)

    some = sum(int(w.words.any(axis=1).sum()) for _, _, w in places)

    def live(facts: Survey, codec: Codec) -> int:
        """Words that the codec writes, at least: zero_run knows dead ones without a bitmap."""
        return min(some, facts.live_words) if codec.name == "zero_run" else facts.live_words

    size = max(1, matrix.size)
    priced: list[tuple[Candidate, _Plan, Codec, Any]] = []
    best = math.inf
    bounded = ((codec.floor(plan.facts) / size, plan, codec) for plan in plans for codec in payloads.values())
    for floor, plan, codec in sorted(bounded, key=lambda x: x[0]):
        facts = plan.facts
        known, table = "at least", None
        bits = floor
        written = live(facts, codec)
        if score(Candidate("", floor, 0, written + facts.mask_steps, "")) * margin <= best:
            table = codec.fit(facts)
            bits, known = (math.inf, "cannot carry") if table is None else (codec.estimate(table, facts) / size,
                                                                            "estimated")
        candidate = Candidate(full_name(codec, plan.blocks), bits, written, written + facts.mask_steps, known)
        priced.append((candidate, plan, codec, table))
        # what rules others out is no hope: zero_run takes more steps than its live words where a word has many pairs
        if table is not None: best = min(best, score(evolve(candidate, steps=facts.live_words + facts.mask_steps)))
    usable = sorted((p for p in priced if p[3] is not None), key=lambda p: (score(p[0]), p[0].live_words))
    if not usable:
        raise CodecError(f"none of {', '.join(payloads) or 'no codecs'} can carry these weights: {_spread(matrix)}")
    tried: list[tuple[Candidate, Encoded]] = []
    others = [p[0] for p in priced if p[3] is None]
    for candidate, plan, codec, table in usable:
        # the estimate of zero_run takes the zeros as independent
        slack = min(0.9, margin) if codec.name == "zero_run" else margin
        if tried and (len(tried) > most or score(candidate) * slack > min(score(t[0]) for t in tried) + 0.001):
            others.append(candidate)
            continue
        encoded = _encode(plan, codec, table, matrix.shape, lanes)
        steps = sum(tile.steps for tile in encoded.tiles)
        tried.append((Candidate(candidate.codec, 8 * encoded.size_bytes / size, encoded.live_words, steps, "measured"),
                      encoded))
    limit = min(score(t[0]) for t in tried) * 1.001 + 0.001
    words = max(1, sum(w.cols for _, _, w in places))
    near = (t for t in tried if score(t[0]) <= limit)
    chosen = min(near, key=lambda t: (round(t[0].live_words / words, 2), t[1].table_steps > 0, t[0].bits))
    table_of = sorted([*(t[0] for t in tried), *others], key=lambda c: (c is not chosen[0], score(c)))
    rivals = tuple(e for c, e in tried if e is not chosen[1] and score(c) * margin <= score(chosen[0])
                   and bytes_per_cycle is not None)
    return Choice(chosen[1], tuple(table_of), forced, rivals)
