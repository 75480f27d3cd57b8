"""The entropy coder's model and tables: which tokens, how often, and the state machine that follows (tANS).

In: what is known of a tensor (`Survey`).
Out: an `EntropyTable` (what the header holds) and a `Coder` (what is looked up).
The stream format is described in `nnac.codec.entropy`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.codec.base import Survey

MAX_TOKENS = 64
STATE_BITS = (9, 8, 10)   # the encoder's choice; a decoder takes 5..10
INCREASING, ZIGZAG, LISTED = 0, 1, 2
_RANK = np.arange(256)
ORDERS = (_RANK, 128 + np.where(_RANK & 1, -(_RANK + 1) // 2, _RANK // 2))     # rank -> value + 128


@frozen
class Token:
    base: int           # first rank
    extra: int          # e
    frequency: int


@frozen
class EntropyTable:
    state_bits: int
    order: int                      # of the ranks: INCREASING, ZIGZAG or LISTED
    values: bytes                   # listed values (int8)
    tokens: tuple[Token, ...]
    live: int | None = None         # frequency of a live block; None: no bitmap

    @property
    def rank_bits(self) -> int:
        """Bits of a rank, counted from the first."""
        last = self.tokens[-1]
        return (last.base + (1 << last.extra) - self.tokens[0].base - 1).bit_length()

    @property
    def tail(self) -> int:
        """Words at the end of a tile whose ranks the last states hold."""
        return self.state_bits // self.rank_bits if self.rank_bits else 0

    @property
    def symbols(self) -> NDArray[np.int64]:
        """[ranks] value + 128."""
        return np.frombuffer(self.values,
                             np.int8).astype(np.int64) + 128 if self.order == LISTED else ORDERS[self.order]


# ------------------------------------------------------------------------------------------------------------ the model


def split(count: NDArray[np.float64], state_bits: int, token_bits: float = 4) -> list[tuple[int, int]]:
    """Ranges (base, extra bits) that code ``count`` [ranks] in the fewest bits: shortest path over the ranks.

    The price of a range: its weights' ideal code, the states it takes from the others beyond its share, its header
    bits.
    """
    size, total, states = count.size, max(1.0, float(count.sum())), 1 << state_bits
    prefix = np.concatenate([[0.0], np.cumsum(count)])
    prices = []
    for extra in range(8):
        if 1 << extra > size: break
        inside = prefix[1 << extra:] - prefix[: size + 1 - (1 << extra)]
        share = np.maximum(inside / total, 1 / states)
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


def information(count: NDArray[np.int64]) -> float:
    """Bits of an ideal zero-order code for these counts."""
    count = count[count > 0].astype(np.float64)
    return float(-(count * np.log2(count / count.sum())).sum())


def frequencies(count: Sequence[int], states: int) -> list[int]:
    """Integers that sum to ``states``, as near to ``count`` in code length as can be; unused tokens get 0."""
    total = sum(count)
    out = [0 if c == 0 else max(1, round(c * states / total)) for c in count]
    while sum(out) != states:
        if sum(out) < states:
            gain = [c * math.log2((f + 1) / f) if c else -1.0 for c, f in zip(count, out, strict=True)]
            out[gain.index(max(gain))] += 1
        else:
            loss = [c * math.log2(f / (f - 1)) if f > 1 else math.inf for c, f in zip(count, out, strict=True)]
            out[loss.index(min(loss))] -= 1
    return out


def model(survey: Survey, state_bits: int, order: int) -> EntropyTable:
    """The table for these weights: ranks in the given order, listed if only few of them occur."""
    ranks = ORDERS[order]
    used = np.flatnonzero(survey.histogram[ranks])
    live = None
    if survey.blocks:
        live = frequencies([survey.blocks - survey.live_blocks, survey.live_blocks], 1 << state_bits)[1]
    listed = used.size <= MAX_TOKENS and used[-1] - used[0] >= used.size
    first = 0 if listed else int(used[0])
    count = survey.histogram[ranks[used] if listed else ranks[first: used[-1] + 1]]
    ranges = split(count.astype(np.float64), state_bits)
    inside = [int(count[base: base + (1 << extra)].sum()) for base, extra in ranges]
    shares = frequencies(inside, 1 << state_bits)
    tokens = tuple(Token(first + base, extra, f) for (base, extra), f in zip(ranges, shares, strict=True))
    values = (ranks[used] - 128).astype(np.int8).tobytes() if listed else b""
    return EntropyTable(state_bits, LISTED if listed else order, values, tokens, live)


# ----------------------------------------------------------------------------------------------------------- the tables


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


# the encoder's entry: next state 10 bits | state bits 4 | their value 10
BITS, LOW, STATE = 10, 14, 1023


def _encoder_rows(machine: States, tokens: int, state_bits: int) -> NDArray[np.int32]:
    """[tokens, 2^n]: for each token and state after it, the state before it and the bits that lead from there to
    here."""
    size = 1 << state_bits
    rows = np.zeros((tokens, size), np.int32)
    order = np.lexsort((machine.base, machine.token))
    bits = machine.bits[order]
    span = np.repeat(order | bits << BITS, 1 << bits)
    low = np.arange(span.size) - np.repeat(np.cumsum(1 << bits) - (1 << bits), 1 << bits)
    used = np.unique(machine.token)
    rows[used] = (span | low << LOW).reshape(used.size, size)
    return rows


@frozen(eq=False)
class Coder:
    """What encode and decode look up.  Rows of `encode`: value tokens, then dead and live block, then idle."""

    state_bits: int
    idle: int
    token_of: bytes                     # [256] (value + 128) -> token
    low_of: bytes                       # [256] (value + 128) -> value of the extra bits
    extra_of: bytes                     # [256] (value + 128) -> number of extra bits
    rank_of: bytes                      # [256] (value + 128) -> rank, from the first
    rank_bits: int
    tail: int
    encode: NDArray[np.int32]           # [rows * 2^n]
    values: States
    blocks: States | None
    rank: NDArray[np.int64]             # [tokens] first rank
    extra: NDArray[np.int64]            # [tokens] e
    value: NDArray[np.uint8]            # [256] rank -> byte of the value


@lru_cache(maxsize=64)
def coder(table: EntropyTable) -> Coder:
    n = table.state_bits
    values = state_machine(tuple(t.frequency for t in table.tokens), n)
    blocks = None if table.live is None else state_machine(((1 << n) - table.live, table.live), n)
    parts = [_encoder_rows(values, len(table.tokens), n)]
    if blocks is not None: parts.append(_encoder_rows(blocks, 2, n))
    symbol = table.symbols
    token_of, low_of, extra_of, rank_of, value = (np.zeros(256, np.uint8) for _ in range(5))
    value[: symbol.size] = symbol ^ 128
    rank_of[symbol] = np.arange(symbol.size) - table.tokens[0].base & 255
    for i, token in enumerate(table.tokens):
        ranks = symbol[token.base: token.base + (1 << token.extra)]
        token_of[ranks], low_of[ranks], extra_of[ranks] = i, np.arange(ranks.size), token.extra
    rows = np.concatenate([*parts, np.arange(1 << n, dtype=np.int32)[None]]).reshape(-1)
    return Coder(n, sum(p.shape[0] for p in parts), token_of.tobytes(), low_of.tobytes(), extra_of.tobytes(),
                 rank_of.tobytes(), table.rank_bits, table.tail, rows, values, blocks,
                 np.array([t.base for t in table.tokens]), np.array([t.extra for t in table.tokens]), value)
