"""An integer kernel of a pruned network, multiplied by GraphBLAS: ``x @ w.T``, exact.

The library's fast code adds floating-point numbers, and sums of integers in FP32 are exact while no partial sum leaves
2^24, in FP64 2^53; the largest that a row can reach is `arith.accumulator_bound`.  So the type is chosen by proof, and
both operands have it. A kernel with many weights left is faster dense: `Kernel.engine` chooses by density and batch,
and can be told.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from nnac import arith
from nnac.emulator.kernels import Matrix as DenseMatrix
from nnac.graphblas.library import GraphBlasError, Matrix
from nnac.graphblas.weights import Weights

Engine = Literal["graphblas", "dense"]
Choice = Literal["auto", "graphblas", "dense"]

# integers below this are exact, and so are their sums
EXACT: dict[np.dtype, int] = {np.dtype(np.float32): 1 << 24, np.dtype(np.float64): 1 << 53}

# (vectors in a call, density below which the sparse product was faster than the dense one), for kernels of 1,024 x 256
# to 2,560 x 640: a Xeon with AVX-512 VNNI, and the same held to AVX2
CROSSOVER = ((1, 0.02), (4, 0.10), (8, 0.25), (16, 0.45), (64, 0.20), (128, 0.15))


def carrier(bound: int) -> np.dtype:
    """The floating-point type whose sums up to ``bound`` are exact.  GraphBlasError: there is none."""
    for dtype, limit in EXACT.items():
        if bound < limit:
            return dtype
    raise GraphBlasError(f"sums up to {bound} have no exact type (2^53 is the limit)")


def crossover(vectors: int) -> float:
    """The density below which ``vectors`` at a time are faster sparse."""
    return [density for least, density in CROSSOVER if vectors >= least][-1]


def width(x: NDArray) -> int:
    """Bits that hold every integer of ``x``: 8, 16 or 32."""
    low, high = int(x.min(initial=0)), int(x.max(initial=0))
    return next(bits for bits in (8, 16, 32, 64) if -(1 << bits - 1) <= low and high < 1 << bits - 1)


@define(eq=False, slots=False)
class Kernel:
    """Weights int8 or int16 [rows, cols].  An operator's `arith.matmul` calls `product`."""

    weight: NDArray
    choice: Choice = "auto"
    calls: dict[tuple[int, Engine], int] = field(factory=dict, init=False)      # (vectors, engine) -> how often
    _sparse: dict[np.dtype, Weights] = field(factory=dict, init=False)
    _matrices: dict[int, DenseMatrix] = field(factory=dict, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @cached_property
    def density(self) -> float:
        """Weights that are not zero, of all."""
        return np.count_nonzero(self.weight) / max(1, self.weight.size)

    @cached_property
    def _bounds(self) -> dict[int, int]:
        return {bits: int(arith.accumulator_bound(bits, self.weight).max(initial=0)) for bits in (8, 16, 32)}

    def bound(self, bits: int) -> int:
        """The largest |sum| that inputs of ``bits`` bits can reach.  GraphBlasError: wider than 32 bits."""
        if bits not in self._bounds:
            raise GraphBlasError(f"inputs of {bits} bits have no exact type")
        return self._bounds[bits]

    def engine(self, vectors: int) -> Engine:
        """What multiplies ``vectors`` at a time."""
        if vectors == 0:
            return "dense"
        if self.choice != "auto":
            return self.choice
        return "graphblas" if self.density < crossover(vectors) else "dense"

    def product(self, x: NDArray) -> NDArray:
        """x [..., cols] int64 -> [..., rows] int64: ``x @ weight.T``."""
        vectors = np.asarray(x, np.int64).reshape(-1, self.weight.shape[1])
        bits = width(vectors)
        dtype, engine = carrier(self.bound(bits)), self.engine(len(vectors))
        self.calls[len(vectors), engine] = self.calls.get((len(vectors), engine), 0) + 1
        if engine == "dense":
            out = self._dense(bits, vectors)
        elif len(vectors) == 1:
            sums = Matrix.full(np.zeros((1, self.weight.shape[0]), dtype))
            self.sparse(dtype).accumulate_one(sums, Matrix.full(vectors, dtype))
            out = sums.take(np.int64)
        else:
            sums = Matrix.full(np.zeros((self.weight.shape[0], len(vectors)), dtype))
            self.sparse(dtype).accumulate(sums, Matrix.full(vectors.T, dtype))
            out = sums.take(np.int64).T
        return out.reshape(*x.shape[:-1], self.weight.shape[0])

    def _dense(self, bits: int, vectors: NDArray) -> NDArray:
        if bits > 16:
            return vectors @ self.weight.astype(np.int64).T
        if bits not in self._matrices:
            self._matrices[bits] = DenseMatrix(self.weight, bits)
        return self._matrices[bits](vectors.astype(np.int16))

    def sparse(self, dtype: np.dtype) -> Weights:
        """The weights of that type for GraphBLAS, made once."""
        if dtype not in self._sparse:
            self._sparse[dtype] = Weights.of(self.weight, dtype)
        return self._sparse[dtype]
