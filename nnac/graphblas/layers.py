"""One layer of a real-valued network, ``max(W Y + b, 0)``, in the forms of the literature.  The mathematics:
docs/graphblas.md.

Activations are columns: W [m, k] sparse, Y [k, n], b repeated to a full [m, n].  All are FP32 or all FP64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac.graphblas.library import Matrix, same_type
from nnac.graphblas.weights import Weights


def _operate(c: Matrix, function: Any, operator: Any, a: Matrix, b: Any, doing: str) -> None:
    """``C = function(operator, A, B)`` without mask or accumulator."""
    g = c.library
    g.ok(function(c.handle, g.null, g.null, operator, a.handle, getattr(b, "handle", b), g.null), doing)


def paper(w: Matrix, y: Matrix, bias: Matrix, zero: Matrix) -> Matrix:
    """As the paper writes it: ``W Y`` over plus and times; ``+ b`` is times, and ``max 0`` plus, of the semiring
    max-plus.

    Where a row of W has no weight, ``W Y`` has no entry, the bias finds nothing to be added to, and the result is 0:
    right for biases <= 0 only.
    Source: Kepner et al. 2017, equation 1 and the listing of dnn_wb (GrB_mxm, GrB_eWiseMult, GrB_eWiseAdd).
    """
    same_type(w, y, bias, zero)
    c = Matrix(w.shape[0], y.shape[1], w.dtype)
    g = c.library
    plus, most = g.named("GrB_PLUS", w.dtype), g.named("GrB_MAX", w.dtype)
    _operate(c, g.lib.GrB_mxm, g.named("GrB_PLUS_TIMES_SEMIRING", w.dtype), w, y, "W Y")
    _operate(c, g.lib.GrB_Matrix_eWiseMult_BinaryOp, plus, c, bias, "+ b")
    _operate(c, g.lib.GrB_Matrix_eWiseAdd_BinaryOp, most, c, zero, "max 0")
    return c.wait()


def lagraph(w: Matrix, y: Matrix, diagonal: Matrix) -> Matrix:
    """LAGraph's form: the bias is a diagonal matrix, added by a product over (min, plus); what is not above 0 is
    dropped.

    The result is sparse, and the bias goes where ``W Y`` has an entry, as in `paper`.  Source: LAGraph_dnn.c.
    """
    same_type(w, y, diagonal)
    c = Matrix(w.shape[0], y.shape[1], w.dtype)
    g = c.library
    _operate(c, g.lib.GrB_mxm, g.named("GrB_PLUS_TIMES_SEMIRING", w.dtype), w, y, "W Y")
    _operate(c, g.lib.GrB_mxm, g.named("GrB_MIN_PLUS_SEMIRING", w.dtype), diagonal, c, "+ b")
    _operate(c, g.named("GrB_Matrix_select", w.dtype), g.named("GrB_VALUEGT", w.dtype), c, w.dtype.type(0), "drop <= 0")
    return c.wait()


def fused(w: Weights, y: Matrix, bias: Matrix) -> Matrix:
    """``C := b; C += W Y`` into the full C where it stands; ``max(C, 0)``.  Right for every bias; our choice, and the
    fastest."""
    c = bias.duplicate()
    w.accumulate(c, y)
    return rectified(c)


def fused_vector(w: Weights, y: Matrix, bias: Matrix) -> Matrix:
    """`fused`, for a batch of one, which is a row: y [1, k], b [1, m]."""
    c = bias.duplicate()
    w.accumulate_one(c, y)
    return rectified(c)


def rectified(c: Matrix) -> Matrix:
    """``max(C, 0)`` where it stands, as ``(C + |C|) / 2``: exact below half of the largest number.

    The library's own max is a call of fmaxf an entry, four to eight times slower than sums and magnitudes of vectors.
    """
    g = c.library
    g.ok(g.lib.GrB_Matrix_apply(c.handle, g.null, g.named("GrB_PLUS", c.dtype), g.named("GrB_ABS", c.dtype), c.handle,
                                g.null), "C += |C|")
    _operate(c, g.named("GrB_Matrix_apply_BinaryOp2nd", c.dtype), g.named("GrB_TIMES", c.dtype), c, 0.5,
             "C / 2")
    return c


def diagonal(bias: NDArray) -> Matrix:
    """diag(b), for `lagraph`."""
    n = len(bias)
    return Matrix.sparse(np.arange(n + 1), np.arange(n), bias, n)
