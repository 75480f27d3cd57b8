"""A sparse matrix of weights, in the forms in which SuiteSparse multiplies it fastest.

The library's vector code for ``C += W Y`` (its "saxpy5") adds the entries of a row of W one after the other to sixteen
sums of C, each waiting for the one before it: four cycles an entry, whatever a processor could do beside that. Short
rows let it overlap the end of one row with the beginnings of the next, so W is held as a sum of **strips**,
``W = W_1 + W_2 + ...``, each with the entries of some neighbouring columns, and ``C += W_1 Y; C += W_2 Y; ...``.  The
part of Y that a strip meets stays in the first cache as well.  For one vector rows are scalar and columns are not in
each other's way: W is held transposed ("saxpy4").  Our choice; measured: docs/graphblas.md, `make bench-sparse`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from attrs import define, field
from numpy.typing import DTypeLike, NDArray

from nnac.graphblas.library import Matrix, accumulate

# (vectors at a time, entries of a row in a strip that were fastest); a strip is not narrower than NARROWEST columns
STRIPS = ((32, 16), (256, 8))
NARROWEST = 64


@define(eq=False, slots=False)
class Weights:
    """W [rows, cols] in CSR: row r has columns ``indices[indptr[r]:indptr[r + 1]]``.  Forms are made when first used,
    and kept."""

    indptr: NDArray
    indices: NDArray
    data: NDArray
    cols: int
    _strips: dict[int, tuple[Matrix, ...]] = field(factory=dict, init=False)

    @classmethod
    def of(cls, dense: NDArray, dtype: DTypeLike | None = None) -> Weights:
        """The entries of a dense matrix that are not zero."""
        rows, cols = np.nonzero(dense)
        data = dense[rows, cols]
        return cls(starts(rows, len(dense)), cols, data if dtype is None else data.astype(dtype), dense.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, self.cols

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def strip_count(self, vectors: int) -> int:
        """How many strips are fastest for so many vectors at a time."""
        entries = [n for least, n in STRIPS if vectors >= least]
        if not entries or not len(self.data):
            return 1
        return int(min(max(1, round(len(self.data) / self.shape[0] / entries[-1])), max(1, self.cols // NARROWEST)))

    def strips(self, vectors: int) -> tuple[Matrix, ...]:
        """Matrices [rows, cols] whose sum is W, for so many vectors at a time."""
        count = self.strip_count(vectors)
        if count not in self._strips:
            self._strips[count] = tuple(self._cut(count))
        return self._strips[count]

    def _cut(self, count: int) -> list[Matrix]:
        rows, cols = self.shape
        if count == 1:
            return [Matrix.sparse(self.indptr, self.indices, self.data, cols)]
        width = -(-cols // count)
        strip = self.indices // width
        order = np.argsort(strip, kind="stable")                     # by strip, and in it by row, as they were
        row = np.repeat(np.arange(rows), np.diff(self.indptr))[order]
        ends = np.cumsum(np.bincount(strip, minlength=count))
        return [Matrix.sparse(starts(row[a:b], rows), self.indices[order[a:b]], self.data[order[a:b]], cols)
                for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    @cached_property
    def turned(self) -> Matrix:
        """The transpose [cols, rows], by row."""
        rows, cols = self.shape
        order = np.argsort(self.indices, kind="stable")
        row = np.repeat(np.arange(rows), np.diff(self.indptr))[order]
        return Matrix.sparse(starts(self.indices, cols), row, self.data[order], rows)

    def accumulate(self, c: Matrix, y: Matrix) -> None:
        """``C += W Y`` over plus and times, into the full C [rows, n] where it stands; Y [cols, n]."""
        accumulate(c, [(w, y) for w in self.strips(y.shape[1])])

    def accumulate_one(self, c: Matrix, y: Matrix) -> None:
        """The same for one vector: c [1, rows] and y [1, cols], both full."""
        accumulate(c, [(y, self.turned)])


def starts(rows: NDArray, count: int) -> NDArray:
    """Where each of ``count`` rows starts, [count + 1], of the rows of entries (in any order)."""
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
