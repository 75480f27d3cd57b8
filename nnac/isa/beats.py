"""How long instructions take, as functions of their sizes: each formula once, for the instruction's own class and for
lint, which makes none.

Cycles of VX beyond the ``vx_fill`` that fill its pipeline, and cycles in which MV is busy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnac.isa.config import MachineConfig


def requantise(config: MachineConfig, rows: int, columns: int = 1, slow: bool = False) -> int:
    """RQ; ``slow``: wide accumulators or double rounding."""
    return columns * -(-rows // config.vector) * (2 if slow else 1)


def lstm(config: MachineConfig, units: int) -> int:
    """LSTM: five table reads a unit."""
    return 5 * -(-units // config.vector)


def gru(config: MachineConfig, units: int) -> int:
    """GRU: three table reads a unit, and what is multiplied by them."""
    return 5 * -(-units // config.vector)


def add(config: MachineConfig, n: int) -> int:
    """ADD: both operands are requantised."""
    return 2 * -(-n // config.vector)


def elementwise(config: MachineConfig, n: int) -> int:
    """MUL, LUT, AMAX: V elements a cycle."""
    return -(-n // config.vector)


def normalise(config: MachineConfig, n: int) -> int:
    """LN, SMAX, LSM: three passes over the vector, and 24 cycles for the square root, the reciprocal or the
    logarithm."""
    return 24 + 3 * -(-n // config.vector)


def keep(config: MachineConfig, chunk: int, size: int) -> int:
    """KEEP: rows of ``size`` bytes, and the count."""
    return 1 + chunk * -(-size // config.lanes)


def attention(config: MachineConfig, chunk: int, rows: int, heads: int, n: int) -> int:
    """DOT, MIX: n products for each query, row and head."""
    return chunk * heads * rows * -(-n // config.vector)


def convolution(config: MachineConfig, chunk: int, taps: int, n: int) -> int:
    """DWC: a product a tap, and a requantisation."""
    return chunk * (taps + 1) * -(-n // config.vector)


def multiply(config: MachineConfig, words: int, weights: int, act16: bool, meet: int = 1) -> int:
    """MVM over weight words of a format (its code), of whose activations ``meet`` lie in one bank."""
    rate = config.rates[weights]
    each = max(config.act16_factor if act16 else 1, meet)
    return max(1, -(-words * each * rate.denominator // rate.numerator))


def meeting(config: MachineConfig, columns: int, stride: int) -> int:
    """Most of the columns, ``stride`` bytes apart, whose activations of one input lie in the same bank of A."""
    if not config.a_banks or not stride:               # a port for each column; one activation for all
        return 1
    return -(-columns * math.gcd(stride // 4, config.a_banks) // config.a_banks)
