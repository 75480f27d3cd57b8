"""Where an instruction's operands and results lie: what executors fetch and store, and what hazards are found on."""

from __future__ import annotations

from attrs import frozen

from nnac.isa.config import MachineConfig

# (memory, first, end): bytes of A and DRAM, words of W, columns of ACC, slots of LUT and TABLE
Range = tuple[str, int, int]


@frozen
class Integers:
    """``n`` little-endian integers of ``size`` bytes at A[address], signed; or ``rows`` such vectors, ``stride`` bytes
    apart.

    A `compute` gets them as int64 [batch, n] or [batch, rows, n], and gives results in the same shape.
    """

    address: int
    n: int
    size: int
    rows: int = 0
    stride: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.n) if self.rows else (self.n,)

    @property
    def places(self) -> list[int]:
        """First address of each vector."""
        return [self.address + k * self.stride for k in range(self.rows)] if self.rows else [self.address]

    def ranges(self, config: MachineConfig) -> list[Range]:
        size = self.n * self.size
        return [("A", first, first + size) for first in self.places]


@frozen
class Accumulators:
    """The first ``lanes`` accumulators of columns 0 .. columns-1 of a bank: int64 [batch, columns, lanes]."""

    bank: int
    columns: int
    lanes: int

    def ranges(self, config: MachineConfig) -> list[Range]:
        first = self.bank * config.columns
        return [("ACC", first, first + self.columns)]


@frozen
class Words:
    """``n`` words of W: the pair (weights int8 [n, lanes], input numbers uint16 [n])."""

    first: int
    n: int

    def ranges(self, config: MachineConfig) -> list[Range]:
        return [("W", self.first, self.first + self.n)]


Operand = Integers | Accumulators | Words
