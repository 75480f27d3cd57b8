"""packed: n-bit two's complement, n = 1..7, the smallest that holds the range.

Table: one byte, n.   Tile: block bits, if there is a bitmap; then n bits a weight, filled up with zeros to whole bytes.
One word a cycle; sign extension only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnac.codec.base import FixedWidth, Survey
from nnac.codec.names import CodecError


class Packed(FixedWidth):
    name, code = "packed", 1

    def fit(self, survey: Survey) -> int | None:
        used = np.flatnonzero(survey.histogram) - 128
        if used.size == 0: return 1
        low, high = int(used[0]), int(used[-1])
        bits = 1 + max((-low - 1).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0)
        return bits if bits < 8 else None

    def write(self, table: int) -> bytes: return bytes([table])

    def read(self, data: bytes) -> int:
        if len(data) != 1 or not 1 <= data[0] <= 7:
            raise CodecError(f"packed: the stream header needs one byte in 1..7, has {data[:4]!r}")
        return data[0]

    def bits(self, table: int) -> int: return table

    def to_index(self, table: int) -> NDArray[np.uint8]:
        return ((np.arange(256) - 128) & ((1 << table) - 1)).astype(np.uint8)

    def to_value(self, table: int) -> NDArray[np.uint8]:
        index = np.arange(1 << table)
        return np.where(index >> (table - 1), index - (1 << table), index).astype(np.int8).view(np.uint8)
