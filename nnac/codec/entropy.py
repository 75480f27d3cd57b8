"""entropy: interleaved table-driven asymmetric numeral systems (tANS), one state a lane, over tokens with extra bits.

**Model.**  A weight's *rank* is value + 128, or its place in a list of the values that occur.  A *token* is a range of 2^e ranks
from a base; the token is entropy-coded, its e low bits follow as they are.  So tails and smooth histograms need few tokens
(at most 64) and a small table of 2^n states, n = 5..10; the split is chosen by dynamic programming over all ranges.
With a block bitmap the block bits are coded by the same lanes and states with a second table of two tokens.

**Table** (header), a bit string, least significant bit first:

    n: 4 | listed: 1 | blocks: 1 | tokens - 1: 6 | first rank: 8 | if listed: values - 1: 8, values: 8 each (int8, increasing)
    per token: e: 3, frequency: n + 1 bits    ranges follow each other from the first rank; frequencies sum to 2^n; 0: unused range
    if blocks: frequency of "live": n + 1 bits (dead: 2^n - that)
    n = 0: a single token without extra bits and a single block bit: the tiles take no bytes at all

**States.**  State x in 0..2^n-1.  Tokens are spread over the states in bit-reversed order: token 0 takes the states
reverse(0), reverse(1), ... reverse(f0 - 1), token 1 the next f1, and so on.  The k-th smallest state of a token
with frequency f decodes as: y = f + k; bits = n - floor(log2 y); next state = (y << bits) - 2^n + (those bits from the stream).
Decoder table: 2^n entries of token 6, bits 4, base n; per token base rank 8, e 3.  n = 9: 19 x 512 bits a lane (or two lanes on a
dual-port memory), filled in 2^(n+1) cycles by one sequencer for all lanes: that is `table_steps`.

**Tile.**  Lanes form groups of four; each group owns a bit string.  Step -1 reads the first state (n bits) of each lane in use.
Then mask steps (each lane in use takes one block bit, in the order of the bits; after the last bit lanes idle), then
one value step for each live word (lanes whose block is dead idle).  In a step each busy lane of a group, lowest
first, reads its state bits, then its e extra bits: at most 14 bits, so a group at most 56.  A group that lacks bits
takes the fewest bytes that suffice from the tile, groups in order: the tile is the sequence of bytes as they are taken.  Nothing is
fetched ahead, so nothing is wasted: at the end a group holds at most 7 zero bits.  Every lane ends in state 0: a damaged stream is noticed.
Throughput: one word a cycle: 64 table reads, sums of four lengths, one prefix sum over 16 groups of 0..7 bytes, 16 byte shifters.

Source  tANS: Duda, arXiv 1311.2540.  Tokens with extra bits as in JPEG XL.  Interleaving by time of need: our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.codec.base import Blocks, Codec, CodecError, Stream, Survey, Words
from nnac.codec.bits import pack_streams

GROUP = 4
MAX_BITS = 14           # a lane's bits in one step; four lanes and seven old bits fit 64
MAX_TOKENS = 64
STATE_BITS = (8, 9, 10)   # the encoder's choice; a decoder takes 5..10


@frozen
class Token:
    base: int           # first rank
    extra: int          # e
    frequency: int


@frozen
class EntropyTable:
    state_bits: int
    values: bytes | None            # listed values (int8), or None: rank = value + 128
    tokens: tuple[Token, ...]
    live: int | None = None         # frequency of a live block; None: no bitmap


def _state_bits_read(frequency: int, state_bits: int) -> int:
    """The most bits that a token reads."""
    return state_bits - frequency.bit_length() + 1


# ------------------------------------------------------------------------------------------------------------------ the model


def split(count: NDArray[np.float64], state_bits: int, token_bits: float = 4) -> list[tuple[int, int]]:
    """Ranges (base, extra bits) that code ``count`` [ranks] in the fewest bits: shortest path over the ranks.

    The price of a range: its weights' ideal code, the states it takes from the others beyond its share, its header bits.
    """
    size, total, states = count.size, max(1.0, float(count.sum())), 1 << state_bits
    prefix = np.concatenate([[0.0], np.cumsum(count)])
    prices = []
    for extra in range(8):
        if 1 << extra > size: break
        inside = prefix[1 << extra:] - prefix[: size + 1 - (1 << extra)]
        share = np.maximum(inside / total, _least(state_bits, extra) / states)
        bits = inside * (extra - np.log2(share)) + 1.4427 * total * (share - inside / total)
        bits += 0.06 * total / states / (share * states)                          # rounding of the frequency
        prices.append((np.where(inside == 0, 0, bits) + token_bits + state_bits).tolist())
    best, via = [0.0] + [math.inf] * size, [0] * (size + 1)
    for rank in range(size):
        here = best[rank]
        for extra, price in enumerate(prices):
            end = rank + (1 << extra)
            if end > size: break
            cost = here + price[rank]
            if cost < best[end]: best[end], via[end] = cost, extra
    out, rank = [], size
    while rank:
        extra = via[rank]
        rank -= 1 << extra
        out.append((rank, extra))
    # too many tokens for the decoder: make each one dearer
    return out[::-1] if len(out) <= MAX_TOKENS else split(count, state_bits, 4 * token_bits + 0.001 * total / states)


def _least(state_bits: int, extra: int) -> int:
    """The least frequency with which a token of ``extra`` bits keeps to MAX_BITS a step."""
    return 1 << max(0, state_bits + extra - MAX_BITS)


def frequencies(count: Sequence[int], least: Sequence[int], states: int) -> list[int]:
    """Integers that sum to ``states``, as near to ``count`` in code length as can be; unused tokens get 0."""
    total = sum(count)
    out = [0 if c == 0 else max(low, round(c * states / total)) for c, low in zip(count, least, strict=True)]
    while sum(out) != states:
        if sum(out) < states:
            gain = [c * math.log2((f + 1) / f) if c else -1.0 for c, f in zip(count, out, strict=True)]
            out[gain.index(max(gain))] += 1
        else:
            loss = [c * math.log2(f / (f - 1)) if f > low else math.inf for c, f, low in zip(count, out, least, strict=True)]
            out[loss.index(min(loss))] -= 1
    return out


def _model(survey: Survey, state_bits: int) -> EntropyTable:
    histogram = survey.histogram
    used = np.flatnonzero(histogram)
    live = None
    if survey.blocks:
        live = frequencies([survey.blocks - survey.live_blocks, survey.live_blocks], [1, 1], 1 << state_bits)[1]
    listed = used.size <= MAX_TOKENS and used[-1] - used[0] >= used.size
    first = 0 if listed else int(used[0])
    count = histogram[used] if listed else histogram[first: used[-1] + 1]
    ranges = split(count.astype(np.float64), state_bits)
    inside = [int(count[base: base + (1 << extra)].sum()) for base, extra in ranges]
    shares = frequencies(inside, [_least(state_bits, extra) for _, extra in ranges], 1 << state_bits)
    tokens = tuple(Token(first + base, extra, f) for (base, extra), f in zip(ranges, shares, strict=True))
    return EntropyTable(state_bits, (used - 128).astype(np.int8).tobytes() if listed else None, tokens, live)


# ------------------------------------------------------------------------------------------------------------------ the tables


@frozen(eq=False)
class States:
    """One frequency table as a state machine: [2^n] token, bits to read, next state before those bits are added."""

    token: NDArray[np.int64]
    bits: NDArray[np.int64]
    base: NDArray[np.int64]


@lru_cache(maxsize=64)
def state_machine(frequency: tuple[int, ...], state_bits: int) -> States:
    size = 1 << state_bits
    reverse = np.array([int(f"{i:0{state_bits}b}"[::-1], 2) if state_bits else 0 for i in range(size)])
    token = np.empty(size, np.int64)
    token[reverse] = np.repeat(np.arange(len(frequency)), frequency)
    share = np.array(frequency)
    order = np.argsort(token, kind="stable")
    first = np.concatenate([[0], np.cumsum(share)[:-1]])
    y = np.empty(size, np.int64)
    y[order] = np.arange(size) - first[token[order]] + share[token[order]]
    bits = state_bits - (np.frexp(y)[1] - 1)
    return States(token, bits, (y << bits) - size)


# the encoder's entry: next state 10 bits | state bits 4 | all bits 4 | the state bits' value 10
_BITS, _ALL, _LOW, _STATE = 10, 14, 18, 1023


def _encoder_rows(machine: States, tokens: int, extra: NDArray[np.int64], state_bits: int) -> NDArray[np.int64]:
    """[tokens, 2^n]: for each token and state after it, the state before it and the bits that lead from there to here."""
    size = 1 << state_bits
    rows = np.zeros((tokens, size), np.int64)
    order = np.lexsort((machine.base, machine.token))
    bits = machine.bits[order]
    entry = order | bits << _BITS | (bits + extra[machine.token[order]]) << _ALL
    span = np.repeat(entry, 1 << bits)
    low = np.arange(span.size) - np.repeat(np.cumsum(1 << bits) - (1 << bits), 1 << bits)
    used = np.unique(machine.token)
    rows[used] = (span | low << _LOW).reshape(used.size, size)
    return rows


@frozen(eq=False)
class Coder:
    """What encode and decode look up.  Rows: value tokens, then dead and live block, then idle."""

    state_bits: int
    idle: int
    token_of: bytes                     # [256] (value + 128) -> token
    extra_of: bytes                     # [256] (value + 128) -> extra bits' value
    encode: NDArray[np.int64]           # [rows * 2^n]
    values: States
    blocks: States | None
    rank: NDArray[np.int64]             # [tokens] first rank
    extra: NDArray[np.int64]            # [tokens] e
    value: NDArray[np.uint8]            # [256] rank -> byte of the value


@lru_cache(maxsize=64)
def coder(table: EntropyTable) -> Coder:
    n, count = table.state_bits, len(table.tokens)
    values = state_machine(tuple(t.frequency for t in table.tokens), n)
    blocks = None if table.live is None else state_machine(((1 << n) - table.live, table.live), n)
    extra = np.array([t.extra for t in table.tokens])
    idle = np.arange(1 << n)[None]
    parts = [_encoder_rows(values, count, extra, n)]
    if blocks is not None: parts.append(_encoder_rows(blocks, 2, np.zeros(2, np.int64), n))
    symbol = np.arange(256) if table.values is None else np.frombuffer(table.values, np.uint8) ^ 128
    token_of, extra_of, value = np.zeros(256, np.uint8), np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    value[: symbol.size] = symbol ^ 128
    for i, token in enumerate(table.tokens):
        ranks = symbol[token.base: token.base + (1 << token.extra)]
        token_of[ranks], extra_of[ranks] = i, np.arange(ranks.size)
    rows = np.concatenate([*parts, idle]).reshape(-1)
    return Coder(n, sum(p.shape[0] for p in parts), token_of.tobytes(), extra_of.tobytes(), rows, values, blocks,
                 np.array([t.base for t in table.tokens]), extra, value)


# ------------------------------------------------------------------------------------------------------------------ the codec


class Entropy(Codec):
    name, code, summary = "entropy", 4, "interleaved tANS, one state a lane"

    def fit(self, survey: Survey) -> EntropyTable | None:
        mixed = 0 < survey.live_blocks < survey.blocks
        live = None if not survey.blocks else int(survey.live_blocks > 0)
        used = np.flatnonzero(survey.histogram)
        if used.size <= 1 and not mixed:
            return EntropyTable(0, None, (Token(int(used[0]) if used.size else 128, 0, 1),), live)
        if used.size == 0: return None                      # no weights and yet live blocks: cannot be
        return min((_model(survey, n) for n in STATE_BITS), key=lambda table: self.estimate(table, survey))

    def estimate(self, table: EntropyTable, survey: Survey) -> float:
        states = 1 << table.state_bits
        at = coder(table)
        count = np.bincount(np.frombuffer(at.token_of, np.uint8), weights=survey.histogram, minlength=len(table.tokens))
        share = np.array([max(1, t.frequency) for t in table.tokens])
        bits = float((count * (table.state_bits - np.log2(share) + at.extra)).sum())
        if table.live is not None:
            for blocks, share_of in ((survey.live_blocks, table.live), (survey.blocks - survey.live_blocks, states - table.live)):
                if blocks: bits += blocks * (table.state_bits - math.log2(share_of))
        pad = 3.5 * math.ceil(survey.lane_words / GROUP) if table.state_bits else 0
        return bits + survey.lane_words * table.state_bits + pad + 8 * len(self.write(table))

    def table_steps(self, table: EntropyTable) -> int: return 2 << table.state_bits

    # ---- header

    def write(self, table: EntropyTable) -> bytes:
        n = table.state_bits
        fields = [(n, 4), (table.values is not None, 1), (table.live is not None, 1), (len(table.tokens) - 1, 6), (table.tokens[0].base, 8)]
        if table.values is not None: fields += [(len(table.values) - 1, 8), *((v, 8) for v in table.values)]
        for token in table.tokens: fields += [(token.extra, 3), (token.frequency, n + 1)]
        if table.live is not None: fields.append((table.live, n + 1))
        bits = at = 0
        for value, width in fields:
            bits |= int(value) << at
            at += width
        return bits.to_bytes((at + 7) // 8, "little")

    def read(self, data: bytes) -> EntropyTable:
        bits, at = int.from_bytes(data, "little"), 0

        def take(width: int) -> int:
            nonlocal at
            at += width
            if at > 8 * len(data): raise CodecError("entropy: the stream header ends inside its table")
            return bits >> at - width & (1 << width) - 1

        n, listed, blocked, count, first = take(4), take(1), take(1), take(6) + 1, take(8)
        if n and not 5 <= n <= 10: raise CodecError(f"entropy: a table of 2^{n} states; 2^5 to 2^10 are possible")
        values = bytes(take(8) for _ in range(take(8) + 1)) if listed else None
        signed = [] if values is None else np.frombuffer(values, np.int8).tolist()
        if any(a >= b for a, b in zip(signed, signed[1:], strict=False)): raise CodecError("entropy: the listed values do not increase")
        tokens = []
        for _ in range(count):
            tokens.append(Token(first, take(3), take(n + 1)))
            first += 1 << tokens[-1].extra
        live = take(n + 1) if blocked else None
        if first > (256 if values is None else len(values)): raise CodecError(f"entropy: the tokens reach beyond the last rank, to {first}")
        if sum(t.frequency for t in tokens) != 1 << n: raise CodecError(f"entropy: token frequencies do not sum to 2^{n}")
        if live is not None and live > 1 << n: raise CodecError(f"entropy: frequency {live} of 2^{n} for a live block")
        if any(t.frequency and _least(n, t.extra) > t.frequency for t in tokens) or (n == 0 and max(t.extra for t in tokens)):
            raise CodecError(f"entropy: a token reads more than {MAX_BITS} bits")
        if bits >> at or len(data) != (at + 7) // 8: raise CodecError("entropy: the stream header goes on after its table")
        return EntropyTable(n, values, tuple(tokens), live)

    # ---- encode

    def encode(self, table: EntropyTable, tiles: Sequence[Words]) -> list[bytes]:
        if table.state_bits == 0: return [b""] * len(tiles)
        out: list[bytes] = []
        for part in _chunks(tiles): out += _encode(coder(table), part)
        return out

    # ---- decode

    def decode(self, table: EntropyTable, blocks: Blocks | None, tiles: Sequence[Stream], lanes: int) -> list[NDArray[np.int8]]:
        if (blocks is None) != (table.live is None): raise CodecError("entropy: block bitmap in the header but not in the table, or the reverse")
        out: list[NDArray[np.int8]] = []
        for part in _chunks(tiles): out += _decode(coder(table), blocks, part, lanes)
        return out


def _chunks(tiles: Sequence, weights: int = 1 << 21) -> list[Sequence]:
    """Runs of tiles that are worked on together: wide vectors, and the work arrays stay within tens of MB."""
    out, start, size = [], 0, 0
    for i, tile in enumerate(tiles):
        more = tile.cols * 64
        if i > start and size + more > weights: out.append(tiles[start: i]); start, size = i, 0
        size += more
    return [*out, tiles[start:]] if tiles else []


def _tokens(at: Coder, tiles: Sequence[Words], lanes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Tokens and extra bits of each step: uint8 [steps, tiles, lanes], idle where a lane has nothing to do."""
    masks = [0 if t.live is None else math.ceil(t.live.size / t.rows) for t in tiles]
    steps = [m + (t.cols if t.active is None else int(t.active.any(axis=1).sum())) for m, t in zip(masks, tiles, strict=True)]
    token = np.full((max(steps), len(tiles), lanes), at.idle, np.uint8)
    extra = np.zeros(token.shape, np.uint8)
    for i, (mask, tile) in enumerate(zip(masks, tiles, strict=True)):
        symbols = (tile.words[:, : tile.rows].view(np.uint8) ^ np.uint8(128))
        if tile.active is not None:
            dealt = np.full(mask * tile.rows, at.idle, np.uint8)
            dealt[: tile.live.size] = tile.live.view(np.uint8) + np.uint8(at.idle - 2)
            token[:mask, i, : tile.rows] = dealt.reshape(mask, tile.rows)
            keep = tile.active.any(axis=1)
            symbols, active = symbols[keep], tile.active[keep]
        raw = symbols.tobytes()
        ids = np.frombuffer(raw.translate(at.token_of), np.uint8).reshape(symbols.shape)
        low = np.frombuffer(raw.translate(at.extra_of), np.uint8).reshape(symbols.shape)
        if tile.active is not None: ids, low = np.where(active, ids, np.uint8(at.idle)), np.where(active, low, np.uint8(0))
        token[mask: mask + len(ids), i, : tile.rows] = ids
        extra[mask: mask + len(ids), i, : tile.rows] = low
    return token, extra


def _encode(at: Coder, tiles: Sequence[Words]) -> list[bytes]:
    lanes = -(-tiles[0].words.shape[1] // GROUP) * GROUP
    token, extra = _tokens(at, tiles, lanes)
    steps, width = token.shape[0], len(tiles) * lanes
    row = token.reshape(steps, width).astype(np.int64) << at.state_bits
    state, index = np.zeros(width, np.int64), np.empty(width, np.int64)
    trail = np.empty((steps, width), np.int64)
    for t in range(steps - 1, -1, -1):                  # last weight first: the decoder undoes it from the first
        np.add(row[t], state, out=index)
        np.take(at.encode, index, out=trail[t], mode="clip")
        np.bitwise_and(trail[t], _STATE, out=state)

    # the bits of each lane and step: state bits, then extra bits; step -1 is the first state itself
    value = np.empty((steps + 1, len(tiles), lanes // GROUP, GROUP), np.int64)
    need = np.empty(value.shape, np.int64)
    flat = value[1:].reshape(steps, width)
    np.left_shift(extra.reshape(steps, width), (trail >> _BITS) & 15, out=flat, dtype=np.int64)
    flat |= trail >> _LOW
    np.bitwise_and(trail >> _ALL, 15, out=need[1:].reshape(steps, width))
    used = np.array([t.rows for t in tiles])[:, None] > np.arange(lanes)
    value[0] = state.reshape(value.shape[1:])
    need[0] = (used * at.state_bits).reshape(value.shape[1:])

    # four lanes to a group, then each group's bits end to end
    offset = np.cumsum(need, axis=3)
    joined = value[..., 0] | value[..., 1] << offset[..., 0] | value[..., 2] << offset[..., 1] | value[..., 3] << offset[..., 2]
    streams = len(tiles) * (lanes // GROUP)
    ends = np.cumsum(np.ascontiguousarray(offset[..., 3].reshape(steps + 1, streams).T), axis=1)
    octets, first = pack_streams(np.ascontiguousarray(joined.reshape(steps + 1, streams).T).view(np.uint64), ends)

    # bytes in the order in which they are needed: step by step, group by group
    loaded = (ends + 7) >> 3
    taken = np.diff(loaded, axis=1, prepend=0)
    source = loaded - taken + first[:, None]
    shape = (len(tiles), lanes // GROUP, steps + 1)
    taken = taken.reshape(shape).transpose(0, 2, 1).reshape(-1)
    source = source.reshape(shape).transpose(0, 2, 1).reshape(-1)
    end = np.cumsum(taken)
    order = np.repeat(source - (end - taken), taken) + np.arange(end[-1])
    data = octets[order].tobytes()
    cuts = [0, *end.reshape(len(tiles), -1)[:, -1].tolist()]
    return [data[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


class _Reader:
    """The decoder's state while it runs over several tiles at once: arrays [GROUP, streams], stream = tile * groups + group."""

    def __init__(self, at: Coder, tiles: Sequence[Stream], lanes: int):
        self.at, self.tiles, self.groups = at, len(tiles), lanes // GROUP
        self.streams = self.tiles * self.groups
        sizes = [len(t.data) for t in tiles]
        self.start = np.concatenate([[0], np.cumsum(sizes)])
        raw = b"".join(t.data for t in tiles)
        room = (len(raw) // 8 + 2) * 8
        raw += bytes(room + 8 - len(raw))
        # the seven bytes from each byte on, as one integer
        windows = np.stack([np.frombuffer(raw, "<i8", room // 8, offset) for offset in range(8)], axis=1)
        self.windows = windows.reshape(-1) & ((1 << 56) - 1)
        self.pointer = self.start[:-1].copy()
        self.buffer, self.have = np.zeros(self.streams, np.int64), np.zeros(self.streams, np.int64)
        self.state = np.zeros((GROUP, self.streams), np.int64)
        used = np.array([t.rows for t in tiles])[:, None] > np.arange(lanes)
        self.used = self.lanes_in(used)
        self.state[:] = self.fields(np.where(self.used, at.state_bits, 0)) & ((1 << np.where(self.used, at.state_bits, 0)) - 1)

    def lanes_in(self, array: NDArray) -> NDArray:
        """[..., tiles, lanes] -> [..., GROUP, streams]."""
        array = array.reshape(*array.shape[:-2], self.streams, GROUP)
        return np.ascontiguousarray(np.moveaxis(array, -1, -2))

    def lanes_out(self, array: NDArray) -> NDArray:
        """[..., GROUP, streams] -> [..., tiles, lanes]."""
        return np.moveaxis(array, -2, -1).reshape(*array.shape[:-2], self.tiles, self.groups * GROUP)

    def fields(self, need: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take ``need`` bits [GROUP, streams]; returns the group's bits shifted so that each lane's are lowest (higher ones remain)."""
        offset = np.zeros((GROUP, self.streams), np.int64)
        for i in range(1, GROUP): np.add(offset[i - 1], need[i - 1], out=offset[i])
        total = offset[-1] + need[-1]
        take = (total - self.have + 7) >> 3
        sums = np.cumsum(take.reshape(self.tiles, self.groups), axis=1)
        begin = (sums + self.pointer[:, None]).reshape(-1) - take
        self.pointer += sums[:, -1]
        fresh = self.windows.take(begin, mode="clip") & ((1 << (take << 3)) - 1)
        self.buffer |= fresh << self.have
        self.have += (take << 3) - total
        out = self.buffer >> offset
        self.buffer >>= total
        return out

    def run(self, machine: States, extra: NDArray[np.int64], steps: int, active: NDArray[np.bool_] | None,
            rank: NDArray[np.int64]) -> NDArray[np.uint8]:
        """``steps`` steps, ``active`` [steps, GROUP, streams] or all used lanes; returns ranks uint8 [steps, GROUP, streams]."""
        # decoder entry: all bits 4 | state bits 4 | next state 12 | token
        table = machine.bits + extra[machine.token] | machine.bits << 4 | machine.base << 8 | machine.token << 20
        entries = np.empty((steps, GROUP, self.streams), np.int64)
        fields = np.empty_like(entries)
        if active is None and not self.used.all(): active = np.broadcast_to(self.used, entries.shape)
        for t in range(steps):
            entry = entries[t]
            np.take(table, self.state, out=entry, mode="clip")
            if active is not None: entry *= active[t]
            fields[t] = bits = self.fields(entry & 15)
            after = (entry >> 8 & 4095) + (bits & ((1 << (entry >> 4 & 15)) - 1))
            if active is None: self.state = after
            else: np.copyto(self.state, after, where=active[t])
        token = entries >> 20
        fields >>= entries >> 4 & 15
        return (rank[token] + (fields & (1 << extra[token]) - 1)).astype(np.uint8)

    def finish(self) -> None:
        for i, (at, end) in enumerate(zip(self.pointer.tolist(), self.start[1:].tolist(), strict=True)):
            if at != end:
                raise CodecError(f"entropy: tile {i} of the call has {end - self.start[i]} bytes, its weights take {at - self.start[i]}")
        if self.state.any() or self.buffer.any(): raise CodecError("entropy: the stream is damaged: a lane does not end in state 0")


def _decode(at: Coder, blocks: Blocks | None, tiles: Sequence[Stream], lanes: int) -> list[NDArray[np.int8]]:
    wide = -(-lanes // GROUP) * GROUP
    if at.state_bits == 0:
        if any(tile.data for tile in tiles): raise CodecError("entropy: bytes in a tile of a constant tensor")
        constant = at.value[at.rank[0]: at.rank[0] + 1].view(np.int8)[0]
        if blocks is not None and not at.blocks.token[0]: constant = np.int8(0)     # the only block bit there is says dead
        out = [np.zeros((tile.cols, lanes), np.int8) for tile in tiles]
        for tile, words in zip(tiles, out, strict=True): words[:, : tile.rows] = constant
        return out
    reader = _Reader(at, tiles, wide)
    actives: list[NDArray[np.bool_]] = [np.ones((tile.cols, tile.rows), np.bool_) for tile in tiles]
    if blocks is not None:
        counts = [blocks.count(tile.rows, tile.cols) for tile in tiles]
        masks = [math.ceil(count / tile.rows) for count, tile in zip(counts, tiles, strict=True)]
        busy = np.zeros((max(masks), len(tiles), wide), np.bool_)
        for i, tile in enumerate(tiles):
            busy[: masks[i], i, : tile.rows].reshape(-1)[: counts[i]] = True
            flags = np.zeros(masks[i] * tile.rows, np.bool_)
            flags[: counts[i]] = True
            busy[: masks[i], i, : tile.rows] = flags.reshape(masks[i], tile.rows)
        bits = reader.lanes_out(reader.run(at.blocks, np.zeros(2, np.int64), max(masks), reader.lanes_in(busy), np.arange(2)))
        for i, tile in enumerate(tiles):
            live = bits[: masks[i], i, : tile.rows].reshape(-1)[: counts[i]].astype(np.bool_)
            actives[i] = blocks.spread(live, tile.rows, tile.cols)
    keeps = [active.any(axis=1) for active in actives]
    steps = max(int(keep.sum()) for keep in keeps)
    busy_values = None
    if blocks is not None or len({tile.cols for tile in tiles}) > 1:
        busy = np.zeros((steps, len(tiles), wide), np.bool_)
        for i, (tile, active, keep) in enumerate(zip(tiles, actives, keeps, strict=True)):
            busy[: int(keep.sum()), i, : tile.rows] = active[keep]
        busy_values = reader.lanes_in(busy)
    ranks = reader.run(at.values, at.extra, steps, busy_values, at.rank)
    reader.finish()
    values = reader.lanes_out(np.frombuffer(ranks.tobytes().translate(at.value.tobytes()), np.int8).reshape(ranks.shape))
    out = []
    for i, (tile, active, keep) in enumerate(zip(tiles, actives, keeps, strict=True)):
        words = np.zeros((tile.cols, lanes), np.int8)
        words[keep, : tile.rows] = np.where(active[keep], values[: int(keep.sum()), i, : tile.rows], 0)
        out.append(words)
    return out
