"""Exact integer matrix products, fast: ``x @ w.T`` of small integers, on the carrier that is proved exact for these
weights.

With numba: int8 or int16 weights as they are, int32 or int64 sums.  Without, and for large batches: BLAS on float32
while every sum stays below 2^24, on float64 below 2^53.  ``bound`` is the largest sum of magnitudes that a row can
reach, `arith.accumulator_bound`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnac.emulator.jit import njit

# vectors from which a float GEMM beats integer dot products (measured)
BLAS_BATCH = 48

if njit is not None:

    @njit(cache=True, nogil=True)
    def _dot32(w: NDArray, x: NDArray, out: NDArray) -> None:
        for r in range(w.shape[0]):
            for b in range(x.shape[0]):
                total = np.int32(0)
                for k in range(w.shape[1]):
                    total += np.int32(w[r, k]) * np.int32(x[b, k])
                out[b, r] = total

    @njit(cache=True, nogil=True)
    def _dot64(w: NDArray, x: NDArray, out: NDArray) -> None:
        for r in range(w.shape[0]):
            for b in range(x.shape[0]):
                total = np.int64(0)
                for k in range(w.shape[1]):
                    total += np.int64(w[r, k]) * np.int64(x[b, k])
                out[b, r] = total


class Matrix:
    """Weights int8 or int16 [rows, cols], ready to multiply vectors of ``bits`` bits."""

    def __init__(self, weight: NDArray, bits: int, *, native: bool | None = None) -> None:
        self.weight = np.ascontiguousarray(weight)
        total = max((int(np.abs(part.astype(np.int64)).sum(1).max(initial=0))
                     for part in np.array_split(self.weight, 16)), default=0)
        self.bound = total << bits - 1
        self.native = njit is not None if native is None else native
        if self.bound >= 1 << 53:
            raise ValueError(f"sums up to {self.bound} have no exact carrier")
        self._float: NDArray | None = None

    def __call__(self, x: NDArray) -> NDArray:
        """x int16 [vectors, cols] -> int64 [vectors, rows], exact."""
        if self.native and len(x) < BLAS_BATCH:
            x = np.ascontiguousarray(x)
            if self.bound < 1 << 31:
                out = np.empty((len(x), len(self.weight)), np.int32)
                _dot32(self.weight, x, out)
                return out.astype(np.int64)
            out = np.empty((len(x), len(self.weight)), np.int64)
            _dot64(self.weight, x, out)
            return out
        kind = np.float32 if self.bound < 1 << 24 else np.float64
        if self._float is None:
            self._float = np.ascontiguousarray(self.weight.T.astype(kind))
        return (x.astype(kind) @ self._float).astype(np.int64)
