"""The decoder as the format's description says it, one bit, one lane, one step at a time, in plain Python.

Written from the docstrings of `nnac.codec` alone; shares no code with it.  It is the oracle of the vectorised decoder,
and the shape of the hardware: it counts the steps that it makes.
"""

from __future__ import annotations

import math


class Bits:
    def __init__(self, data: bytes):
        self.value, self.at, self.size = int.from_bytes(data, "little"), 0, 8 * len(data)

    def take(self, width: int) -> int:
        assert self.at + width <= self.size, "stream too short"
        self.at += width
        return self.value >> (self.at - width) & ((1 << width) - 1)

    def to_byte(self) -> None:
        assert self.take(-self.at % 8) == 0, "padding is not zero"

    def finish(self) -> None:
        self.to_byte()
        assert self.at == self.size, "stream too long"


def signed(byte: int, bits: int = 8) -> int: return byte - (1 << bits) if byte >> (bits - 1) else byte


def decode_tile(header: bytes, data: bytes, rows: int, cols: int, lanes: int) -> tuple[list[list[int]], int, int]:
    """(words [cols][lanes], live words, steps)."""
    first, table, block = header[0], header[1:], None
    if first & 0x80: block, table = (int.from_bytes(header[1:3], "little"), header[3]), header[4:]
    decoder = {0: raw, 1: packed, 2: codebook, 3: zero_run, 4: entropy}[first & 0x7F]
    return decoder(table, data, rows, cols, lanes, block)


def mask(bits: list[int], block, rows: int, cols: int):
    """active[word][lane]"""
    if block is None: return [[True] * rows for _ in range(cols)]
    high = math.ceil(rows / block[0])
    return [[bool(bits[k // block[1] * high + r // block[0]]) for r in range(rows)] for k in range(cols)]


def block_count(block, rows: int, cols: int) -> int:
    return math.ceil(rows / block[0]) * math.ceil(cols / block[1]) if block else 0


def fixed_width(value, width: int, data: bytes, rows: int, cols: int, lanes: int, block):
    stream = Bits(data)
    count = block_count(block, rows, cols)
    active = mask([stream.take(1) for _ in range(count)], block, rows, cols)
    stream.to_byte()
    words, live, steps = [], 0, math.ceil(count / rows)
    for k in range(cols):
        word = [0] * lanes
        for r in range(rows):
            if active[k][r]: word[r] = value(stream.take(width))
        live += any(active[k])
        words.append(word)
    stream.finish()
    return words, live, steps + live


def raw(table, data, rows, cols, lanes, block): return fixed_width(signed, 8, data, rows, cols, lanes, block)


def packed(table, data, rows, cols, lanes, block):
    return fixed_width(lambda v: signed(v, table[0]), table[0], data, rows, cols, lanes, block)


def codebook(table, data, rows, cols, lanes, block):
    values = [signed(b) for b in table[1:]]
    assert len(values) == table[0] + 1
    return fixed_width(lambda i: values[i], math.ceil(math.log2(len(values))), data, rows, cols, lanes, block)


def zero_run(table, data, rows, cols, lanes, block):
    run_bits, listed = table[0] & 15, table[0] >> 4
    values = [0] + [signed(b) for b in table[2:]] if listed else None
    value_bits = math.ceil(math.log2(len(values))) if listed else 8
    stream = Bits(data)
    count = block_count(block, rows, cols)
    active = mask([stream.take(1) for _ in range(count)], block, rows, cols)
    stream.to_byte()
    places = [(k, r) for k in range(cols) for r in range(rows) if active[k][r]]
    words, landed, at = [[0] * lanes for _ in range(cols)], [0] * cols, -1
    for _ in range((stream.size - stream.at) // (run_bits + value_bits)):
        at += stream.take(run_bits) + 1
        value = stream.take(value_bits)
        if at >= len(places): continue
        k, r = places[at]
        words[k][r] = values[value] if listed else signed(value)
        landed[k] += 1
    live = sum(any(word) for word in words)
    return words, live, math.ceil(count / rows) + sum(math.ceil(n / 16) for n in landed)


def machine(frequencies: list[int], n: int) -> list[tuple[int, int, int]]:
    """[2^n] (token, bits, base)"""
    size = 1 << n
    token, i = [0] * size, 0
    for t, f in enumerate(frequencies):
        for _ in range(f):
            token[int(format(i, f"0{n}b")[::-1], 2) if n else 0] = t
            i += 1
    assert i == size
    seen, out = [0] * len(frequencies), []
    for x in range(size):
        y = frequencies[token[x]] + seen[token[x]]
        seen[token[x]] += 1
        bits = n - int(math.log2(y))
        out.append((token[x], bits, (y << bits) - size))
    return out


def entropy(table, data, rows, cols, lanes, block):
    head = Bits(table)
    n, order, blocks, tokens, base = head.take(4), head.take(2), head.take(1), head.take(6) + 1, head.take(8)
    if order == 2: ranks = [signed(head.take(8)) for _ in range(head.take(8) + 1)]
    elif order == 1: ranks = sorted(range(-128, 128), key=lambda v: (abs(v), v > 0))
    else: ranks = list(range(-128, 128))
    ranges, frequencies = [], []
    for _ in range(tokens):
        extra = head.take(3)
        ranges.append((base, extra))
        base += 1 << extra
        frequencies.append(head.take(n + 1))
    values = machine(frequencies, n)
    assert blocks == (block is not None)
    live_share = head.take(n + 1) if blocks else 0
    masks = machine([(1 << n) - live_share, live_share], n) if blocks else []
    head.finish()

    stream = Bits(data)
    state = [stream.take(n) for _ in range(rows)]

    def step(states, busy: list[int]) -> dict[int, int]:
        was = {lane: states[state[lane]] for lane in busy}
        for lane in busy:
            _, bits, after = was[lane]
            state[lane] = after + stream.take(bits)
        return {lane: token for lane, (token, _, _) in was.items()}

    count, bits, steps = block_count(block, rows, cols), [], 0
    while len(bits) < count:
        bits += step(masks, list(range(min(rows, count - len(bits))))).values()
        steps += 1
    if n == 0: steps = 0                               # a single block bit, known from the table
    words, live, active = [], 0, mask(bits, block, rows, cols)
    rank_bits = (base - ranges[0][0] - 1).bit_length()
    alive = sum(any(word) for word in active)
    held = min(alive, n // rank_bits) if rank_bits else 0       # the last words lie in the last states
    for k in range(cols):
        word = [0] * lanes
        busy = [r for r in range(rows) if active[k][r]]
        if busy and live >= alive - held:
            for lane in busy:
                rank = state[lane] & ((1 << rank_bits) - 1)
                assert ranges[0][0] + rank < base
                word[lane] = ranks[ranges[0][0] + rank]
            for lane in range(rows):
                assert lane in busy or state[lane] & ((1 << rank_bits) - 1) == 0
                state[lane] >>= rank_bits
        elif busy:
            for lane, token in step(values, busy).items():
                first, extra = ranges[token]
                word[lane] = ranks[first + stream.take(extra)]
        live += bool(busy)
        steps += bool(busy)
        words.append(word)
    stream.finish()
    assert not any(state), "a lane does not end in state 0"
    return words, live, steps
