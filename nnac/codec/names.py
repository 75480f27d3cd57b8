"""The names of the weight codecs, as policies write them: what the language needs, without NumPy.

    [block_bitmap [ '[' ROWS x COLS ']' ] +] payload
    block_bitmap alone: the payload is open (raw, where one must be named)
"""

from __future__ import annotations

import re

from attrs import field, frozen
from attrs.validators import ge

# payload codec -> what it is; the module of the same name does it
PAYLOADS = {
    "raw": "int8, one byte a weight",
    "packed": "n-bit two's complement, n = 1..7",
    "codebook": "k-bit index into 2^k int8 values, k = 0..6",
    "zero_run": "pairs of (run of zeros, value)",
    "entropy": "interleaved tANS, one state a lane",
}
BLOCK_BITMAP = "block_bitmap"


class CodecError(ValueError):
    """A stream that cannot be decoded, or weights that a codec cannot carry.  One line: what, where, why."""


@frozen
class Blocks:
    """Shape of the blocks of a block bitmap: ``rows`` outputs x ``cols`` inputs."""

    rows: int = field(validator=ge(1))
    cols: int = field(validator=ge(1))

    def __str__(self) -> str: return f"{BLOCK_BITMAP}[{self.rows}x{self.cols}]"


@frozen
class Name:
    """A codec as it was named: with block bitmap or without, its shape and payload where given."""

    bitmap: bool
    blocks: Blocks | None
    payload: str | None


_NAME = re.compile(r"(?:(block_bitmap)(?:\[([1-9]\d{0,3})x([1-9]\d{0,1})\])?)?(?:(?:^|\+)([a-z_]+))?")


def parse_name(name: str) -> Name:
    """The parts of a codec's name.  CodecError lists the codecs there are."""
    found = _NAME.fullmatch(name)
    if not name or not found or (found[4] is not None and found[4] not in PAYLOADS):
        raise CodecError(f"no weight codec is called `{name}`; there are {', '.join(PAYLOADS)}, each also as "
                         f"`{BLOCK_BITMAP}+...` or `{BLOCK_BITMAP}[16x1]+...`")
    return Name(found[1] is not None, Blocks(int(found[2]), int(found[3])) if found[2] else None, found[4])
