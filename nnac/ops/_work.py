"""What a layer takes of the machine's units, from shapes: the terms in which operators say it, and what several of them
need.

Named tuples: lint makes these classes whenever it starts, and attrs takes five times as long to make one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from nnac.isa import beats

if TYPE_CHECKING:
    from nnac.isa.config import MachineConfig


class Work(NamedTuple):
    """Cycles of one layer in one call of its entry, of each unit.

    matrix_least  if every word that may be found zero is
    tail  after the last product, before the next layer can begin
    buffer_bytes  of activation memory, beside its input and output
    """

    vector: int = 0
    matrix: int = 0
    matrix_least: int = 0
    tail: int = 0
    buffer_bytes: int = 0

    @property
    def compute(self) -> int:
        return max(self.vector, self.matrix) + self.tail


class Product(NamedTuple):
    """A weight matrix: integers of ``bits`` bits; ``skips``: its codec finds zeros, and the multipliers skip words of
    them."""

    rows: int
    cols: int
    bits: int = 8
    skips: bool = False


class Job(NamedTuple):
    """One layer in one call of its entry.

    vectors   output vectors, all steps of the call together          width   elements of each
    in_bits, hidden_bits   of its input and of its hidden state       separate
    each product is requantised by itself (`accumulate sum16`)
    products  for each direction, kernel name -> matrix               attributes   of the layer
    """

    vectors: int
    width: int
    in_bits: int = 8
    hidden_bits: int = 8
    separate: bool = False
    products: tuple[Mapping[str, Product], ...] = ()
    attributes: Mapping[str, Any] = MappingProxyType({})


def bands(rows: int, lanes: int) -> list[int]:
    """Rows of each band."""
    return [min(lanes, rows - first) for first in range(0, rows, lanes)]


def groups(vectors: int, columns: int) -> list[int]:
    """Vectors that meet a weight word together."""
    return [min(columns, vectors - t) for t in range(0, vectors, columns)]


def requantised(m: MachineConfig, rows: int, together: list[int], wide: bool = False) -> int:
    """Cycles of VX to bring the sums of all bands to a format, for each group of vectors."""
    return sum(m.vx_fill + beats.requantise(m, n, columns, wide) for n in bands(rows, m.lanes) for columns in together)


def pieces(width: int, most: int) -> Iterator[int]:
    """Elements of each instruction over one vector."""
    return (min(most, width - first) for first in range(0, width, most))


def words(m: MachineConfig, p: Product, in_bits: int) -> tuple[int, int]:
    """Cycles in which a matrix is multiplied with one group of vectors: (expected, at the least)."""
    count = -(-p.rows // m.lanes) * p.cols * (2 if p.bits > 8 else 1)
    wide = in_bits > 8
    # codes of MVM's field ``weights``
    narrow = [code for code, bits in ((0, 8), (2, 4), (3, 2), (4, 1)) if bits >= p.bits]
    expected = beats.multiply(m, count, 1, wide) if p.bits > 8 else min(beats.multiply(m, count, code, wide)
                                                                        for code in narrow)
    fastest = min(beats.multiply(m, count, code, wide) for code in range(len(m.rates)))
    return expected, 0 if p.skips else fastest
