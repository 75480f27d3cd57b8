"""A weight tile on its way through the decoder: its phases, and how large it may be."""

from __future__ import annotations

from nnac.codec import codebook, entropy, packed, raw, zero_run
from nnac.isa import MachineConfig

COLUMNS = 1024  # of a tile, at most
INDEX_BITS = 16  # of the input that stands beside a word of W
STATE_BITS = 13  # of the place of a state: decoder table, machine (weights or blocks), state
STATE = 10  # bits of a state, at most
VALUES = 64  # of a codebook or a list
IDLE, FIRST, MASK, GAP, VALUE = range(5)  # phases: taken, first bytes, mask steps, a cycle of nothing, value steps
RAW, PACKED, CODEBOOK, ZERO_RUN, ENTROPY = (
    c.code for c in (raw.Raw, packed.Packed, codebook.Codebook, zero_run.ZeroRun, entropy.Entropy)
)


def window_bytes(config: MachineConfig) -> int:
    """Bytes of the ring that the decoder sees in a cycle: the most that a step takes, or a whole header of fixed-width
    codecs.

    A step of every lane takes at most 10 state bits and 7 extra bits, from any bit of a byte on.
    """
    return -(-max(-(-(17 * config.lanes + 7) // 8), 76) // 4) * 4
