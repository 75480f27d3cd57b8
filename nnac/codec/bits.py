"""Bits in bytes: little-endian, the first bit is bit 0 of byte 0, every field has its least significant bit first.

Everything here is vectorised: fixed-width fields go eight at a time through one 64-bit word, variable-width fields are
placed by a running sum of their lengths and joined by OR, word by word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` fields of ``bits`` bits take."""
    return (count * bits + 7) // 8


def pack_fixed(values: NDArray[np.uint8], bits: int) -> bytes:
    """``values`` [n], each < 2^bits, as n fields of ``bits`` (0..8) bits; the last byte is filled up with zeros."""
    if bits == 0 or values.size == 0: return b""
    if bits == 8: return values.astype(np.uint8, copy=False).tobytes()
    if bits == 1: return np.packbits(values, bitorder="little").tobytes()
    size = packed_bytes(values.size, bits)
    octets = np.zeros(((values.size + 7) // 8, 8), np.uint8)
    octets.reshape(-1)[: values.size] = values
    word = np.zeros(octets.shape[0], "<u8")
    for i in range(8):                              # eight fields fill exactly `bits` bytes
        word |= octets[:, i].astype(np.uint64) << np.uint64(i * bits)
    return word.view(np.uint8).reshape(-1, 8)[:, :bits].tobytes()[:size]


def unpack_fixed(data: bytes | NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint8]:
    """The inverse of `pack_fixed`: ``count`` fields; ``data`` must hold at least `packed_bytes(count, bits)` bytes."""
    raw = np.frombuffer(data, np.uint8)
    if bits == 0: return np.zeros(count, np.uint8)
    if bits == 8: return raw[:count]
    if bits == 1: return np.unpackbits(raw, count=count, bitorder="little")
    groups = (count + 7) // 8
    octets = np.zeros((groups, 8), np.uint8)
    whole = np.zeros(groups * bits, np.uint8)
    used = min(raw.size, whole.size)
    whole[:used] = raw[:used]
    octets[:, :bits] = whole.reshape(groups, bits)
    word = octets.reshape(-1).view("<u8")
    fields = np.empty((groups, 8), np.uint8)
    for i in range(8):
        fields[:, i] = (word >> np.uint64(i * bits)) & np.uint64((1 << bits) - 1)
    return fields.reshape(-1)[:count]


def pack_streams(values: NDArray[np.uint64], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Concatenate variable-width fields, many streams at once.

    values [streams, fields]  each field's bits, right-aligned, nothing above its width (<= 56 bits)
    ends   [streams, fields]  running sum of the widths along a stream
    returns  (bytes of all streams, each stream from an 8-byte boundary; [streams] offset of each stream's first byte)
    """
    streams = values.shape[0]
    words = (ends[:, -1] >> 6) + 2 if values.shape[1] else np.full(streams, 1)
    first = np.concatenate([[0], np.cumsum(words)[:-1]])
    buffer = np.zeros(int(words.sum()), "<u8")
    if values.size:
        begin = np.empty_like(ends)
        begin[:, 0] = 0
        begin[:, 1:] = ends[:, :-1]
        begin += (first << 6)[:, None]
        begin, flat = begin.reshape(-1), values.reshape(-1)
        word = begin >> 6
        shift = (begin & 63).astype(np.uint64)
        heads = np.concatenate([[0], np.flatnonzero(word[1:] != word[:-1]) + 1])
        at = word[heads]
        # fields never overlap, so OR within a 64-bit word joins them; what sticks out goes to the next word
        buffer[at] = np.bitwise_or.reduceat(flat << shift, heads)
        buffer[at + 1] |= np.bitwise_or.reduceat((flat >> np.uint64(1)) >> (np.uint64(63) - shift), heads)
    return buffer.view(np.uint8), first * 8
