"""entropy: interleaved table-driven asymmetric numeral systems (tANS), one state a lane, over tokens with extra bits.

**Model.**  A weight's *rank* is its place in the order 0, -1, 1, -2, 2 ... -128, or in -128 ... 127, or in a list of
the values that occur.  A *token* is a range of 2^e ranks from a base; the token is entropy-coded, its e low bits follow
as they are (in the first order the sign is one of them).  So tails and smooth histograms need few tokens (at most 64)
and a small table of 2^n states, n = 5..10.
With a block bitmap the block bits are coded by the same lanes and states with a second table of two tokens.

**Table** (header), a bit string, least significant bit first:

    n: 4 | order: 2 (0 increasing, 1 zigzag, 2 listed) | blocks: 1 | tokens - 1: 6 | first rank: 8
    if listed: values - 1: 8, values: 8 each (int8, all different)
    per token: e: 3, frequency: n + 1 bits
    ranges follow each other from the first rank; frequencies sum to 2^n; 0: unused range
    if blocks: frequency of "live": n + 1 bits (dead: 2^n - that)
    n = 0: a single token without extra bits and a single block bit: the tiles take no bytes at all

**States.**  State x in 0..2^n-1.  Tokens are spread over the states in bit-reversed order: token 0 takes the states
reverse(0), reverse(1), ... reverse(f0 - 1), token 1 the next f1, and so on (block bits likewise: dead, then live).  The
k-th smallest state of a token (k from 0) with frequency f decodes as: y = f + k; b = n - floor(log2 y); next state = (y
<< b) - 2^n + the next b bits of the stream.

**Tile.**  One bit string.  Step -1: the first state (n bits) of each lane in use, lowest lane first.  Then mask steps
(each lane in use takes one block bit, in the order of the bits; after the last bit lanes idle), then one value step for
each live word (lanes whose block is dead idle).  A step is the state bits of its busy lanes, lowest lane first, then
their extra bits, lowest lane first.  At most 7 zero bits at the end.
The last m = floor(n / k) live words (or all, if there are fewer) read nothing: the states left after the words before
them hold their ranks, counted from the first rank, in fields of k bits, the earliest word lowest; k = bits of (last
rank of the last token - first rank), and if that is 0, m = 0 and all of these weights have the first rank.  A field of
a lane that idles in its word, and all bits above, are zero. n = 0: every weight of a live block has the first rank,
every block is live if the frequency of "live" is 1 and dead if it is 0, a tile has no bytes, and it takes no mask
steps. Errors besides: a tile that takes more or fewer bytes than it has, and last states that cannot be.

**Decoder.**  One word a cycle.  A lane: table RAM of 2^n entries of token 6, bits 4, base n (n = 9: 19 x 512 bits; two
lanes share a dual-port RAM).  One sequencer fills all lanes' tables, one state a step (2^n steps): the token of state x
is the one whose range of cumulative frequencies holds reverse(x), y comes from a counter a token.  The loop of a cycle:
table read, prefix sum over the lanes' bit counts (64 of 0..10), one shifter a lane, an addition.  The extra bits lie
behind the state bits, outside the loop: they are taken in a second pipeline stage, with 64 registers of base rank 8, e
3. Input: at most lanes * (n + 7) bits a step, on average what the stream's bits a weight say.

Source  tANS: Duda, arXiv 1311.2540.  Tokens with extra bits as in JPEG XL.  Interleaving by step and the tables' form:
        our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnac.codec.ans import (
    BITS,
    INCREASING,
    LISTED,
    LOW,
    STATE,
    STATE_BITS,
    ZIGZAG,
    Coder,
    EntropyTable,
    States,
    Token,
    coder,
    information,
    model,
)
from nnac.codec.base import Codec, Stream, Survey, Words, block_count, check_live, spread_bits
from nnac.codec.bits import pack_streams
from nnac.codec.names import Blocks, CodecError

GROUP = 4                       # lanes whose fields are handled as one 64-bit integer here; not part of the format
_SHIFT = 40                     # two sums in one integer: state bits below, extra bits from here
_HIGH = 1 << _SHIFT


class Entropy(Codec):
    name, code = "entropy", 4

    def fit(self, survey: Survey) -> EntropyTable | None:
        mixed = 0 < survey.live_blocks < survey.blocks
        live = None if not survey.blocks else int(survey.live_blocks > 0)
        used = np.flatnonzero(survey.histogram)
        if used.size <= 1 and not mixed:
            return EntropyTable(0, INCREASING, b"", (Token(int(used[0]) if used.size else 128, 0, 1),), live)
        if used.size == 0: return None                      # no weights and yet live blocks: cannot be

        def price(table: EntropyTable) -> float: return self.estimate(table, survey)
        order = min((INCREASING, ZIGZAG), key=lambda order: price(model(survey, STATE_BITS[0], order)))
        return min((model(survey, n, order) for n in STATE_BITS), key=price)

    def estimate(self, table: EntropyTable, survey: Survey) -> float:
        n, ranks = table.state_bits, survey.histogram[table.symbols]
        bits = 0.0
        for token in table.tokens:
            count = int(ranks[token.base: token.base + (1 << token.extra)].sum())
            if count: bits += count * (n - math.log2(token.frequency) + token.extra)
        if survey.weights:      # the weights that the last states hold
            each = bits / survey.weights
            density = survey.weights * survey.tiles / (survey.live_words * survey.states)
            held = min(survey.weights, table.tail * survey.states * density)
            bits -= held * min(each, table.rank_bits)
        if table.live is not None:
            for blocks, share in ((survey.live_blocks, table.live),
                                  (survey.blocks - survey.live_blocks, (1 << n) - table.live)):
                if blocks: bits += blocks * (n - math.log2(share))
        return bits + survey.states * n + 3.5 * survey.tiles + 8 * len(self.write(table))

    def floor(self, survey: Survey) -> float:
        # the states at the beginning are paid for, at most, by the weights that the states at the end hold
        return information(survey.histogram) + information(np.array([survey.blocks - survey.live_blocks,
                                                                     survey.live_blocks]))

    def cost(self, table: EntropyTable, tile: Words) -> tuple[int, int]:
        if table.state_bits or table.live is None: return super().cost(table, tile)
        return tile.live_words, tile.live_words         # one and the same bit for all blocks is not read

    def table_steps(self, table: EntropyTable) -> int: return 1 << table.state_bits

    # ---- header

    def write(self, table: EntropyTable) -> bytes:
        n = table.state_bits
        fields = [(n, 4), (table.order, 2), (table.live is not None, 1), (len(table.tokens) - 1, 6),
                  (table.tokens[0].base, 8)]
        if table.order == LISTED: fields += [(len(table.values) - 1, 8), *((v, 8) for v in table.values)]
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

        n, order, blocked, count, first = take(4), take(2), take(1), take(6) + 1, take(8)
        if n and not 5 <= n <= 10: raise CodecError(f"entropy: a table of 2^{n} states; 2^5 to 2^10 are possible")
        if order > LISTED: raise CodecError(f"entropy: the stream header names order {order} of the ranks; there are "
                                            f"0, 1, 2")
        values = bytes(take(8) for _ in range(take(8) + 1)) if order == LISTED else b""
        if len(set(values)) < len(values): raise CodecError("entropy: a listed value occurs twice")
        tokens = []
        for _ in range(count):
            tokens.append(Token(first, take(3), take(n + 1)))
            first += 1 << tokens[-1].extra
        live = take(n + 1) if blocked else None
        if first > (len(values) or 256): raise CodecError(f"entropy: the tokens reach beyond the last rank, to {first}")
        if sum(t.frequency
               for t in tokens) != 1 << n: raise CodecError(f"entropy: token frequencies do not sum to 2^{n}")
        if live is not None and live > 1 << n: raise CodecError(f"entropy: frequency {live} of 2^{n} for a live block")
        if n == 0 and max(t.extra for t in tokens): raise CodecError("entropy: extra bits in a table without states")
        if bits >> at or len(data) != (at +
                                       7) // 8: raise CodecError("entropy: the stream header goes on after its table")
        return EntropyTable(n, order, values, tuple(tokens), live)

    # ---- encode

    def encode(self, table: EntropyTable, tiles: Sequence[Words]) -> list[bytes]:
        if table.state_bits == 0: return [b""] * len(tiles)
        out: list[bytes] = []
        for part in _chunks(tiles): out += _encode(coder(table), part)
        return out

    # ---- decode

    def decode(self, table: EntropyTable, blocks: Blocks | None, tiles: Sequence[Stream],
               lanes: int) -> list[NDArray[np.int8]]:
        if (blocks is None) != (table.live is None):
            raise CodecError("entropy: the stream header has block shape or block frequency, but not both")
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


def _steps(at: Coder, tiles: Sequence[Words], lanes: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Of each step that is read: token (idle: nothing to do), number of extra bits, their value; each uint8 [steps,
    tiles, lanes].

    And the states in which the lanes end: int64 [tiles, lanes].
    """
    masks = [t.mask_steps for t in tiles]
    keeps = [slice(None) if t.active is None else t.active.any(axis=1) for t in tiles]
    used = [t.words[keep, : t.rows].view(np.uint8) ^ np.uint8(128) for t, keep in zip(tiles, keeps, strict=True)]
    reads = [max(0, len(u) - at.tail) for u in used]
    shape = (max(m + r for m, r in zip(masks, reads, strict=True)), len(tiles), lanes)
    token, extra, low = np.full(shape, at.idle, np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    last = np.zeros(shape[1:], np.int64)
    for i, (tile, mask, keep, symbols, read) in enumerate(zip(tiles, masks, keeps, used, reads, strict=True)):
        raw, place = symbols[:read].tobytes(), (slice(mask, mask + read), i, slice(tile.rows))
        for array, lookup in ((token, at.token_of), (extra, at.extra_of), (low, at.low_of)):
            array[place] = np.frombuffer(raw.translate(lookup), np.uint8).reshape(read, tile.rows)
        ranks = np.frombuffer(symbols[read:].tobytes().translate(at.rank_of), np.uint8).reshape(-1,
            tile.rows).astype(np.int64)
        if tile.active is not None:
            idle = ~tile.active[keep]
            token[place][idle[:read]], extra[place][idle[:read]], low[place][idle[:read]] = at.idle, 0, 0
            ranks[idle[read:]] = 0
            dealt = np.full(mask * tile.rows, at.idle, np.uint8)
            dealt[: tile.live.size] = tile.live.view(np.uint8) + np.uint8(at.idle - 2)
            token[:mask, i, : tile.rows] = dealt.reshape(mask, tile.rows)
        for j, rank in enumerate(ranks): last[i, : tile.rows] |= rank << j * at.rank_bits
    return token, extra, low, last


def _grouped(array: NDArray, count: int) -> NDArray:
    """[..., tiles, lanes] -> [..., count, groups of all tiles], so that one lane of all groups lies in a row."""
    return np.ascontiguousarray(np.moveaxis(array.reshape(*array.shape[:-2], math.prod(array.shape[-2:]) // count,
                                                          count), -1, -2))


def _join(values: NDArray, widths: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join the fields along the last axis but one: the first is lowest."""
    joined, at = values[..., 0, :].astype(np.int64), widths[..., 0, :].astype(np.int64)
    for i in range(1, values.shape[-2]):
        joined |= values[..., i, :].astype(np.int64) << at
        at += widths[..., i, :]
    return joined, at


def _encode(at: Coder, tiles: Sequence[Words]) -> list[bytes]:
    lanes = -(-tiles[0].words.shape[1] // 8) * 8
    token, extra, low, last = _steps(at, tiles, lanes)
    steps, count, groups = len(token), len(tiles), lanes // GROUP
    parts = [groups, lanes // 8] if at.extra.any() else [groups]
    # a tile's fields, in its order: the first states, then for each step the state bits and the extra bits
    fields, widths = (np.empty((count, groups + steps * sum(parts)), np.int64) for _ in range(2))
    by_step = (count, steps, sum(parts))
    fields_of, widths_of = fields[:, groups:].reshape(by_step), widths[:, groups:].reshape(by_step)

    def put(start: int, end: int, part: int, values: NDArray, sizes: NDArray) -> None:
        joined, size = _join(values, sizes)
        shape, place = (end - start, count, parts[part]), slice(sum(parts[:part]), sum(parts[: part + 1]))
        fields_of[:, start:end, place] = joined.reshape(shape).swapaxes(0, 1)
        widths_of[:, start:end, place] = size.reshape(shape).swapaxes(0, 1)

    token, extra, low = _grouped(token, GROUP), _grouped(extra, 8), _grouped(low, 8)
    state, index = _grouped(last, GROUP), np.empty(token.shape[1:], np.int64)
    block = max(1, (1 << 15) // state.size)             # steps whose arrays stay in the cache
    for end in range(steps, 0, -block):                 # last weight first: the decoder undoes it from the first
        start = max(0, end - block)
        rows = token[start:end].astype(np.int64) << at.state_bits
        trail = np.empty(rows.shape, np.int32)
        for t in range(end - start - 1, -1, -1):
            np.add(rows[t], state, out=index)
            np.take(at.encode, index, out=trail[t], mode="clip")
            np.bitwise_and(trail[t], STATE, out=state)
        put(start, end, 0, trail >> LOW, (trail >> BITS) & 15)
        if len(parts) > 1: put(start, end, 1, low[start:end], extra[start:end])

    used = np.array([t.rows for t in tiles])[:, None] > np.arange(lanes)
    first, size = _join(state, _grouped(used, GROUP) * at.state_bits)
    fields[:, :groups], widths[:, :groups] = first.reshape(count, groups), size.reshape(count, groups)
    ends = np.cumsum(widths, axis=1)
    octets, begin = pack_streams(fields.view(np.uint64), ends)
    return [octets[b: b + s].tobytes() for b, s in zip(begin.tolist(), ((ends[:, -1] + 7) >> 3).tolist(), strict=True)]


class _Reader:
    """The decoder's state while it runs over several tiles at once: arrays [GROUP, groups of all tiles]."""

    def __init__(self, at: Coder, tiles: Sequence[Stream], lanes: int):
        self.at, self.tiles, self.groups = at, len(tiles), lanes // GROUP
        self.streams = self.tiles * self.groups
        self.start = np.concatenate([[0], np.cumsum([len(t.data) for t in tiles])])
        raw = b"".join(t.data for t in tiles)
        room = (len(raw) // 8 + 2) * 8
        raw += bytes(room + 8 - len(raw))
        # the seven bytes from each byte on, as one integer
        windows = np.stack([np.frombuffer(raw, "<i8", room // 8, offset) for offset in range(8)], axis=1)
        self.windows = windows.reshape(-1) & ((1 << 56) - 1)
        self.bit = self.start[:-1] * 8                      # [tiles] the next bit to read
        self.used = _grouped(np.array([t.rows for t in tiles])[:, None] > np.arange(lanes), GROUP)
        need = np.where(self.used, at.state_bits, 0)
        bits, size = self.fields(need)
        self.state = bits & ((1 << need) - 1)
        self.bit += size

    def fields(self, need: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fields of the tiles' next bits, lane by lane.  need [GROUP, streams]: bits of a lane + _HIGH * bits that come
        later.

        returns  ([GROUP, streams] each lane's bits lowest, others above them;  [tiles] sum of ``need``)
        """
        offset = np.empty_like(need)
        offset[0] = 0
        for i in range(1, GROUP): np.add(offset[i - 1], need[i - 1], out=offset[i])
        total = offset[-1] + need[-1]
        sums = total.reshape(self.tiles, self.groups).cumsum(axis=1)
        begin = ((sums + self.bit[:, None]).reshape(-1) - total) & (_HIGH - 1)
        window = self.windows.take(begin >> 3, mode="clip") >> (begin & 7)
        return window >> (offset & 63), sums[:, -1]

    def run(self, machine: States, extra: NDArray[np.int64], steps: int, active: NDArray[np.bool_] | None,
            ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """``steps`` steps, ``active`` [steps, GROUP, streams] or all lanes in use.

        returns  (token, value of the extra bits), each [steps, tiles, lanes]
        """
        # decoder entry: next state 10 bits | state bits at 16 | extra bits at 16 + _SHIFT
        table = machine.base | machine.bits << 16 | extra[machine.token] << 16 + _SHIFT
        token_of = machine.token.astype(np.uint8)
        tokens = np.empty((steps, GROUP, self.streams), np.uint8)
        later = np.empty((steps, self.tiles), np.int64)     # where the extra bits of a step begin
        if active is None and not self.used.all(): active = np.broadcast_to(self.used, tokens.shape)
        entry, need, low = (np.empty(tokens.shape[1:], np.int64) for _ in range(3))
        for t in range(steps):
            np.take(token_of, self.state, out=tokens[t], mode="clip")
            np.take(table, self.state, out=entry, mode="clip")
            if active is not None: entry *= active[t]
            np.right_shift(entry, 16, out=need)
            bits, size = self.fields(need)
            need &= 15
            np.left_shift(1, need, out=low)
            low -= 1
            low &= bits
            entry &= STATE
            if active is None: np.add(low, entry, out=self.state)
            else: np.add(low, entry, out=self.state, where=active[t])
            np.add(self.bit, size & (_HIGH - 1), out=later[t])
            np.add(later[t], size >> _SHIFT, out=self.bit)
        lanes = self.groups * GROUP
        token = np.moveaxis(tokens, 1, 2).reshape(steps, self.tiles, lanes)
        value = np.zeros(token.shape, np.uint8)
        if not extra.any(): return token, value
        width_of = np.zeros(256, np.uint8)
        width_of[: extra.size] = extra
        widths = np.frombuffer(token.tobytes().translate(width_of.tobytes()), np.uint8).reshape(token.shape)
        if active is not None: widths = widths * np.moveaxis(active, 1, 2).reshape(token.shape)
        block = max(1, (1 << 15) // (self.tiles * lanes))
        for start in range(0, steps, block):
            width = widths[start: start + block].astype(np.int64)
            begin = np.cumsum(width, axis=2)
            begin += later[start: start + block, :, None]
            begin -= width
            window = self.windows.take(begin >> 3, mode="clip")
            begin &= 7
            window >>= begin
            value[start: start + block] = window & ((1 << width) - 1)
        return token, value

    def finish(self) -> None:
        for i, (at, end) in enumerate(zip(self.bit.tolist(), self.start[1:].tolist(), strict=True)):
            size, taken = end - int(self.start[i]), (at + 7) // 8 - int(self.start[i])
            if taken != size: raise CodecError(f"entropy: tile {i} of the call has {size} bytes, its weights take "
                                               f"{taken}")
            if at & 7 and (int(self.windows[end - 1]) & 255) >> (at & 7):
                raise CodecError("entropy: the stream is damaged: the last bits are not zero")


def _decode(at: Coder, blocks: Blocks | None, tiles: Sequence[Stream], lanes: int) -> list[NDArray[np.int8]]:
    if at.state_bits == 0:
        if any(tile.data for tile in tiles): raise CodecError("entropy: bytes in a tile of a constant tensor")
        constant = at.value[at.rank[0]: at.rank[0] + 1].view(np.int8)[0]
        # the only block bit there is says dead
        if at.blocks is not None and not at.blocks.token[0]: constant = np.int8(0)
        elif at.blocks is not None and not constant: raise CodecError("entropy: every block is said to be live and "
                                                                      "every weight is zero")
        out = [np.zeros((tile.cols, lanes), np.int8) for tile in tiles]
        for tile, words in zip(tiles, out, strict=True): words[:, : tile.rows] = constant
        return out
    wide = -(-lanes // GROUP) * GROUP
    reader = _Reader(at, tiles, wide)
    actives: list[NDArray[np.bool_]] = [np.ones((tile.cols, tile.rows), np.bool_) for tile in tiles]
    if at.blocks is not None and blocks is not None:
        counts = [block_count(blocks, tile.rows, tile.cols) for tile in tiles]
        masks = [math.ceil(count / tile.rows) for count, tile in zip(counts, tiles, strict=True)]
        busy = np.zeros((max(masks), len(tiles), wide), np.bool_)
        for i, tile in enumerate(tiles):
            busy[: masks[i], i, : tile.rows] = (np.arange(masks[i] * tile.rows) < counts[i]).reshape(masks[i],
                tile.rows)
        bits, _ = reader.run(at.blocks, np.zeros(2, np.int64), max(masks), _grouped(busy, GROUP))
        for i, tile in enumerate(tiles):
            live = bits[: masks[i], i, : tile.rows].reshape(-1)[: counts[i]].astype(np.bool_)
            actives[i] = spread_bits(blocks, live, tile.rows, tile.cols)
    keeps = [active.any(axis=1) for active in actives]
    reads = [max(0, int(keep.sum()) - at.tail) for keep in keeps]
    busy_lanes = None
    if blocks is not None or len({tile.cols for tile in tiles}) > 1:
        busy = np.zeros((max(reads), len(tiles), wide), np.bool_)
        for i, (tile, active, keep) in enumerate(zip(tiles, actives, keeps, strict=True)):
            busy[: reads[i], i, : tile.rows] = active[keep][: reads[i]]
        busy_lanes = _grouped(busy, GROUP)
    token, low = reader.run(at.values, at.extra, max(reads), busy_lanes)
    reader.finish()
    rank_of = np.zeros(256, np.uint8)
    rank_of[: at.rank.size] = at.rank
    ranks = np.frombuffer(token.tobytes().translate(rank_of.tobytes()), np.uint8).reshape(token.shape) + low
    values = np.frombuffer(ranks.tobytes().translate(at.value.tobytes()), np.int8).reshape(ranks.shape)
    last = np.moveaxis(reader.state, 0, 1).reshape(len(tiles), wide)
    out = []
    for i, (tile, active, keep) in enumerate(zip(tiles, actives, keeps, strict=True)):
        tail = _tail(at, last[i, : tile.rows], active[keep][reads[i]:])
        words = np.zeros((tile.cols, lanes), np.int8)
        words[keep, : tile.rows] = np.where(active[keep], np.concatenate([values[: reads[i], i, : tile.rows], tail]), 0)
        check_live(blocks, active, words, tile.rows)
        out.append(words)
    return out


def _tail(at: Coder, state: NDArray[np.int64], active: NDArray[np.bool_]) -> NDArray[np.int8]:
    """The weights [words, rows] that the last states [rows] of a tile hold; zero where not ``active``."""
    shifts = np.arange(len(active))[:, None] * at.rank_bits
    ranks = state >> shifts & ((1 << at.rank_bits) - 1)
    size = int(at.rank[-1]) + (1 << int(at.extra[-1])) - int(at.rank[0])
    if (state >> len(active) * at.rank_bits).any() or ranks[~active].any() or (ranks.size and int(ranks.max()) >= size):
        raise CodecError("entropy: the stream is damaged: a lane ends in a state that it cannot end in")
    return at.value[ranks + at.rank[0]].view(np.int8)
