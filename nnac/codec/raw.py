"""raw: int8 as it is.

Table: none.   Tile: block bits, if there is a bitmap; then one byte a weight, two's complement.   One word a cycle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac.codec.base import FixedWidth, Survey
from nnac.codec.names import CodecError


class Raw(FixedWidth):
    name, code = "raw", 0

    def fit(self, survey: Survey) -> Any: return ()

    def write(self, table: Any) -> bytes: return b""

    def read(self, data: bytes) -> Any:
        if data: raise CodecError(f"raw: {len(data)} bytes too many in the stream header")
        return ()

    def bits(self, table: Any) -> int: return 8

    def to_index(self, table: Any) -> NDArray[np.uint8]: return np.arange(256, dtype=np.uint8) ^ np.uint8(128)

    def to_value(self, table: Any) -> NDArray[np.uint8]: return np.arange(256, dtype=np.uint8)
