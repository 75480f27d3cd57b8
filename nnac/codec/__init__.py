"""Weight streams: an int8 matrix as the bytes that the weight stream unit reads from DRAM and decodes.

    encode(matrix, codec, lanes) -> Encoded          decode(encoded) -> matrix
    choose(matrix, lanes)        -> Choice           the codec by measured bits, with the table of candidates
    decode_tile(header, data, rows, cols, lanes)     random access, as the machine does it

What the bytes mean: `nnac.codec.base` (words, tiles, header, block bitmap, time), then one module a codec.
"""

from nnac.codec.api import (
    Candidate,
    Choice,
    choose,
    decode,
    decode_tile,
    decode_tiles,
    encode,
    live_mask,
)
from nnac.codec.base import Blocks, Codec, CodecError, Encoded, Tile, bits_per_weight, decode_cycles, parse_name

__all__ = ["Blocks", "Candidate", "Choice", "Codec", "CodecError", "Encoded", "Tile", "bits_per_weight", "choose", "decode",
           "decode_cycles", "decode_tile", "decode_tiles", "encode", "live_mask", "parse_name"]
