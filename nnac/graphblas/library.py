"""SuiteSparse:GraphBLAS through its C interface: matrices that free themselves, and errors in one line.

Three rules of the library's speed are kept here, so that nobody meets them (measured: docs/graphblas.md):
- all operands of an operation have one type: mixed types fall to a generic kernel, a hundred times slower;
- a sparse matrix stays sparse (``GxB_SPARSITY_CONTROL``): above a density of 1/2 the library would turn it into a
  bitmap;
- one thread, and threads that wait asleep: OpenMP threads that spin on busy cores make it tens of times slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnac.errors import UserError

Handle = Any                   # a pointer of cffi, which has no types
Direction = Literal["row", "column"]

TYPES = {np.dtype(k): v for k, v in dict(int8="INT8", int32="INT32", int64="INT64", float32="FP32",
                                         float64="FP64").items()}
_C_TYPES = {np.dtype(k): v for k, v in dict(int8="int8_t", int32="int32_t", int64="int64_t", float32="float",
                                            float64="double").items()}
_ERRORS = ("UNINITIALIZED_OBJECT", "NULL_POINTER", "INVALID_VALUE", "INVALID_INDEX", "DOMAIN_MISMATCH",
           "DIMENSION_MISMATCH",
           "OUTPUT_NOT_EMPTY", "NOT_IMPLEMENTED", "PANIC", "INSUFFICIENT_SPACE", "INVALID_OBJECT",
           "INDEX_OUT_OF_BOUNDS", "EMPTY_OBJECT")
_STATES = {1: "hypersparse", 2: "sparse", 4: "bitmap", 8: "full"}


class GraphBlasError(UserError):
    """The library is missing, or refuses; one line."""


class _Library:
    """The functions (``lib``), the foreign types (``ffi``), and the C library's own allocator, which GraphBLAS is told
    to use."""

    def __init__(self) -> None:
        # read by OpenMP when it is loaded: later is too late
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        try:
            import suitesparse_graphblas
            from cffi import FFI
        except ImportError:
            raise GraphBlasError("SuiteSparse:GraphBLAS is not installed: pip install 'nnac[graphblas]'") from None
        if suitesparse_graphblas.is_initialized():
            raise GraphBlasError("another part of this program has started GraphBLAS with an allocator of its own")
        suitesparse_graphblas.initialize(blocking=True, memory_manager="c")
        self.version: str = suitesparse_graphblas.__version__
        self.lib, self.ffi, self.null = (suitesparse_graphblas.lib, suitesparse_graphblas.ffi,
                                         suitesparse_graphblas.ffi.NULL)
        plain = FFI()
        plain.cdef("void *malloc(size_t); void free(void *);")
        c = plain.dlopen(None)
        self._malloc, self._free, self._plain = c.malloc, c.free, plain
        self._named: dict[tuple[str, DTypeLike], Handle] = {}
        self.threads(1)

    def malloc(self, size: int) -> Handle:
        """MemoryError where there is none."""
        found = int(self._plain.cast("uintptr_t", self._malloc(max(1, size))))
        if not found:
            raise MemoryError(f"{size} bytes")
        return self.ffi.cast("void *", found)

    def free(self, pointer: Handle) -> None:
        self._free(self._plain.cast("void *", int(self.ffi.cast("uintptr_t", pointer))))

    def threads(self, count: int) -> None:
        """How many threads an operation may use."""
        self.ok(self.lib.GrB_Global_set_INT32(self.lib.GrB_GLOBAL, count, self.lib.GxB_NTHREADS), "threads")

    def ok(self, result: int, doing: str) -> None:
        """GraphBlasError unless ``result`` says success."""
        if result == self.lib.GrB_SUCCESS:
            return
        if result == self.lib.GrB_OUT_OF_MEMORY:
            raise MemoryError(f"GraphBLAS, {doing}")
        named = (n for n in _ERRORS if getattr(self.lib, f"GrB_{n}") == result)
        raise GraphBlasError(f"GraphBLAS, {doing}: {next(named, f'error {result}').replace('_', ' ').lower()}")

    def type(self, dtype: DTypeLike) -> Handle:
        return getattr(self.lib, f"GrB_{TYPES[np.dtype(dtype)]}")

    def named(self, stem: str, dtype: DTypeLike) -> Handle:
        """An operator, semiring or function of one type: ``named("GrB_PLUS", float32)`` is GrB_PLUS_FP32."""
        # small layers would take longer to name than to compute
        if (found := self._named.get((stem, dtype))) is None:
            found = self._named[stem, dtype] = getattr(self.lib, f"{stem}_{TYPES[np.dtype(dtype)]}")
        return found

    def view(self, pointer: Handle, count: int, dtype: np.dtype) -> NDArray:
        """``count`` numbers at a pointer, not copied."""
        return np.frombuffer(self.ffi.buffer(pointer, count * dtype.itemsize), dtype)

    def array(self, a: NDArray, c_type: str | None = None) -> Handle:
        """The C array of a contiguous NumPy array, not copied."""
        return self.ffi.from_buffer(f"{c_type or _C_TYPES[a.dtype]}[]", a)


@cache
def library() -> _Library:
    """The library, loaded when first asked for.  GraphBlasError: the extra is not installed."""
    return _Library()


class Matrix:
    """A GraphBLAS matrix [rows, cols] of one type, held by row (or, where that is the question, by column)."""

    def __init__(self, rows: int, cols: int, dtype: DTypeLike, by: Direction = "row") -> None:
        self.library = g = library()
        self.shape, self.dtype = (rows, cols), np.dtype(dtype)
        pointer = g.ffi.new("GrB_Matrix *")
        g.ok(g.lib.GrB_Matrix_new(pointer, g.type(dtype), rows, cols), f"a matrix of {rows} x {cols}")
        self._own(pointer)
        self._set(g.lib.GrB_ROWMAJOR if by == "row" else g.lib.GrB_COLMAJOR, g.lib.GrB_STORAGE_ORIENTATION_HINT)

    def _own(self, pointer: Handle) -> None:
        free: Callable[[Handle], Any] = self.library.lib.GrB_Matrix_free
        self._pointer = self.library.ffi.gc(pointer, free)

    def _set(self, value: int, what: int) -> None:
        self.library.ok(self.library.lib.GrB_Matrix_set_INT32(self.handle, value, what), "a setting")

    @property
    def handle(self) -> Handle:
        return self._pointer[0]

    @classmethod
    def sparse(cls, indptr: NDArray, indices: NDArray, data: NDArray, cols: int) -> Matrix:
        """Of rows in CSR: row r has columns ``indices[indptr[r]:indptr[r + 1]]``.  Stays sparse, whatever its
        density."""
        m = cls.__new__(cls)
        m.library = g = library()
        m.shape, m.dtype = (len(indptr) - 1, cols), data.dtype
        ip, ix, d = (np.ascontiguousarray(a, t) for a, t in ((indptr, np.uint64), (indices, np.uint64),
                                                             (data, data.dtype)))
        pointer = g.ffi.new("GrB_Matrix *")
        load = g.named("GrB_Matrix_import", m.dtype)
        g.ok(load(pointer, g.type(m.dtype), *m.shape, g.array(ip, "uint64_t"), g.array(ix, "uint64_t"), g.array(d),
                  len(ip), len(ix),
                  len(d), g.lib.GrB_CSR_FORMAT), f"a sparse matrix of {m.shape[0]} x {cols}")
        m._own(pointer)
        m._set(g.lib.GxB_SPARSE, g.lib.GxB_SPARSITY_CONTROL)
        # 8 bytes an entry instead of 12; the library keeps 64 bits where 32 are too few, and before release 10 always
        for what in ("OFFSET", "ROWINDEX", "COLINDEX"):
            if hasattr(g.lib, name := f"GxB_{what}_INTEGER_HINT"):
                m._set(32, getattr(g.lib, name))
        return m.wait()

    @classmethod
    def of(cls, dense: NDArray) -> Matrix:
        """The entries of a dense matrix that are not zero."""
        rows, cols = np.nonzero(dense)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
        return cls.sparse(indptr, cols, dense[rows, cols], dense.shape[1])

    @classmethod
    def full(cls, dense: NDArray, dtype: DTypeLike | None = None) -> Matrix:
        """Every entry of a dense matrix (strides of any kind: it is read once), in another type where one is given."""
        m = cls(dense.shape[0], dense.shape[1], dense.dtype if dtype is None else dtype)
        g, count = m.library, dense.size
        pointer = g.malloc(count * m.dtype.itemsize)
        g.view(pointer, count, m.dtype).reshape(dense.shape)[...] = dense
        size = max(1, count) * m.dtype.itemsize
        g.ok(g.lib.GxB_Matrix_pack_FullR(m.handle, g.ffi.new("void **", pointer), size, False, g.null),
             "filling a matrix")
        return m

    def duplicate(self) -> Matrix:
        g = self.library
        m = Matrix.__new__(Matrix)
        m.library, m.shape, m.dtype = g, self.shape, self.dtype
        pointer = g.ffi.new("GrB_Matrix *")
        g.ok(g.lib.GrB_Matrix_dup(pointer, self.handle), "copying a matrix")
        m._own(pointer)
        return m

    def take(self, dtype: DTypeLike | None = None) -> NDArray:
        """The content of a full matrix, as an array; the matrix is empty afterwards."""
        g = self.library
        pointer, size, one = g.ffi.new("void **"), g.ffi.new("GrB_Index *"), g.ffi.new("bool *")
        g.ok(g.lib.GxB_Matrix_unpack_FullR(self.handle, pointer, size, one, g.null), "emptying a matrix")
        try:
            if one[0]:                                   # every entry has one value, and only that is there
                value = g.view(pointer[0], 1, self.dtype)[0]
                return np.full(self.shape, value, self.dtype if dtype is None else dtype)
            found = g.view(pointer[0], self.shape[0] * self.shape[1], self.dtype).reshape(self.shape)
            return found.astype(self.dtype if dtype is None else dtype)
        finally:
            g.free(pointer[0])

    def entries(self) -> tuple[NDArray, NDArray, NDArray]:
        """(row, column, value) of every entry that there is."""
        g, n = self.library, self.count
        rows, cols, values = np.empty(n, np.uint64), np.empty(n, np.uint64), np.empty(n, self.dtype)
        extract = g.named("GrB_Matrix_extractTuples", self.dtype)
        g.ok(extract(g.array(rows, "uint64_t"), g.array(cols, "uint64_t"), g.array(values), g.ffi.new("GrB_Index *", n),
                     self.handle),
             "reading a matrix")
        return rows.astype(np.int64), cols.astype(np.int64), values

    def dense(self, fill: float = 0) -> NDArray:
        """As an array, ``fill`` where there is no entry."""
        out = np.full(self.shape, fill, self.dtype)
        rows, cols, values = self.entries()
        out[rows, cols] = values
        return out

    @property
    def count(self) -> int:
        """Entries."""
        found = self.library.ffi.new("GrB_Index *")
        self.library.ok(self.library.lib.GrB_Matrix_nvals(found, self.handle), "counting entries")
        return int(found[0])

    @property
    def size_bytes(self) -> int:
        """What the library holds for it."""
        found = self.library.ffi.new("size_t *")
        self.library.ok(self.library.lib.GxB_Matrix_memoryUsage(found, self.handle), "memory")
        return int(found[0])

    @property
    def state(self) -> str:
        """hypersparse, sparse, bitmap or full: how the library holds it now."""
        found = self.library.ffi.new("int32_t *")
        get = self.library.lib.GrB_Matrix_get_INT32
        self.library.ok(get(self.handle, found, self.library.lib.GxB_SPARSITY_STATUS), "state")
        return _STATES[int(found[0])]

    def wait(self) -> Matrix:
        """With nothing left to be done later."""
        self.library.ok(self.library.lib.GrB_Matrix_wait(self.handle, self.library.lib.GrB_MATERIALIZE), "finishing")
        return self


def accumulate(c: Matrix, products: Sequence[tuple[Matrix, Matrix]]) -> None:
    """``C += A B`` over plus and times for each (A, B), into the full matrix C where it stands: the library's fastest
    form."""
    g = c.library
    plus, semiring = g.named("GrB_PLUS", c.dtype), g.named("GrB_PLUS_TIMES_SEMIRING", c.dtype)
    for a, b in products:
        same_type(c, a, b)
        g.ok(g.lib.GrB_mxm(c.handle, g.null, plus, semiring, a.handle, b.handle, g.null), "C += A B")


def same_type(*operands: Matrix) -> None:
    """AssertionError: operands of different types, which the library would multiply a hundred times slower, and say
    nothing."""
    first = operands[0].dtype
    if any(o.dtype != first for o in operands):
        raise AssertionError(f"operands of {', '.join(sorted({str(o.dtype) for o in operands}))}: all of one type are "
                             f"fast")
