"""codebook: k-bit indices into a table of at most 2^k int8 values, k = 0..6.

Table: u8 number of values - 1, then the values (int8, increasing).  k = ceil(log2(number)); k = 0: a constant tensor,
no bits. Tile: block bits, if there is a bitmap; then k bits a weight, the place of its value in the table, filled up
with zeros to whole bytes. An index beyond the table is an error.
One word a cycle; decoder: 64 bytes, as registers, a 64:1 multiplexer a lane.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnac.codec.base import FixedWidth, Survey
from nnac.codec.names import CodecError


class Codebook(FixedWidth):
    name, code = "codebook", 2

    def fit(self, survey: Survey) -> bytes | None:
        used = np.flatnonzero(survey.histogram)
        if used.size > 64: return None
        return (used - 128).astype(np.int8).tobytes() or b"\0"

    def write(self, table: bytes) -> bytes: return bytes([len(table) - 1]) + table

    def read(self, data: bytes) -> bytes:
        if not data or data[0] > 63 or len(data) != data[0] + 2:
            raise CodecError(f"codebook: the stream header of {len(data)} bytes does not hold the 1..64 values it "
                             f"announces")
        return data[1:]

    def bits(self, table: bytes) -> int: return (len(table) - 1).bit_length()

    def to_index(self, table: bytes) -> NDArray[np.uint8]:
        index = np.zeros(256, np.uint8)
        index[np.frombuffer(table, np.uint8) ^ 128] = np.arange(len(table))
        return index

    def to_value(self, table: bytes) -> NDArray[np.uint8]: return np.frombuffer(table, np.uint8)
