"""Weight streams: an int8 matrix as the bytes that the weight stream unit reads from DRAM and decodes.

    encode(matrix, codec, lanes) -> Encoded          decode(encoded) -> matrix
    choose(matrix, lanes)        -> Choice           the codec by measured bits, with the table of candidates
    decode_tile(header, data, rows, cols, lanes)     random access, as the machine does it

What the bytes mean: `nnac.codec.base` (words, tiles, header, block bitmap, time), then one module a codec.
`nnac.codec.names` needs no NumPy; nor does this package until something else is asked for (start-up of lint and
explain).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnac.codec.names import PAYLOADS, Blocks, CodecError, parse_name

if TYPE_CHECKING:
    from nnac.codec.api import (
        Candidate,
        Choice,
        choose,
        decode,
        decode_tile,
        decode_tiles,
        encode,
        live_mask,
        skips_dead_words,
    )
    from nnac.codec.base import Codec, Encoded, Tile, bits_per_weight, decode_cycles

__all__ = ["PAYLOADS", "Blocks", "Candidate", "Choice", "Codec", "CodecError", "Encoded", "Tile", "bits_per_weight",
           "choose",
           "decode", "decode_cycles", "decode_tile", "decode_tiles", "encode", "live_mask", "parse_name",
           "skips_dead_words"]


def __getattr__(name: str) -> Any:
    if name not in __all__: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # api in any case: it registers the codecs
    api, base = import_module("nnac.codec.api"), import_module("nnac.codec.base")
    return getattr(api if hasattr(api, name) else base, name)
