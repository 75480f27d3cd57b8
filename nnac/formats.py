"""Formats that the arithmetic fixes, whatever a policy or the data say.  Written Qi.f: f fraction bits of a signed
integer.

Free of NumPy, so that lint can ask; the arithmetic on these formats is `nnac.arith`.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class FixedPoint:
    """A signed integer of ``bits`` bits, ``fraction`` of them behind the point: real = integer * 2^-fraction."""

    bits: int
    fraction: int

    @property
    def scale(self) -> float:
        """The real value of one."""
        return 2.0**-self.fraction

    def __str__(self) -> str:
        return f"int{self.bits} in Q{self.bits - 1 - self.fraction}.{self.fraction}"


@frozen
class Wide:
    """A signed integer of ``bits`` bits on whatever scale the data ask for."""

    bits: int
    scale: None = None

    def __str__(self) -> str:
        return f"int{self.bits}"


WIDE = Wide(16)                        # what a ReLU reads
PRE = FixedPoint(16, 12)               # gate pre-activations, and what a table reads
UNIT = FixedPoint(16, 15)              # what sigmoid and tanh give
LOG = FixedPoint(16, 11)               # log-probabilities
SCORE = FixedPoint(16, 9)              # attention scores
# an LSTM's cell unless the policy says otherwise, +-16: saturating, trained through (docs/methods.md §1)
CELL = FixedPoint(16, 11)


@frozen
class Precision:
    """What a plan decides about the integers of one layer."""

    activations: int = 8           # bits of the layer's output
    weights: int = 8               # bits of the container that the products read: 8 or 16
    hidden: int = 8                # bits of an LSTM's hidden state (= its output)
    hidden_clip: float = 1.0       # real value of the largest code
    cell_fraction: int = CELL.fraction     # 0: calibration chooses it
    variant: str = "acc32"
    origins: tuple[str, ...] = ()


def unit_scale(bits: int, clip: float = 1.0) -> float:
    """Scale of a symmetric signed format whose largest code stands for ``clip``: ``clip / (2^(bits-1) - 1)``, zero an
    exact level."""
    return clip / ((1 << (bits - 1)) - 1)
