"""Matrices in files: Matrix Market (``.mtx``, by scipy) and the Graph Challenge's own (``row column value`` a line,
from 1); either with ``.gz``.

What is read is checked: entries out of range, there twice, or of another size are one clear line.
"""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.checked import counted
from nnac.errors import UserError
from nnac.files import atomic, memory


class MatrixError(UserError):
    """A file that holds no such matrix; one line."""


@frozen(eq=False)
class Entries:
    """rows, cols int64 [n] from 0, increasing by row and in it by column; values float64 [n]."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, dense: NDArray) -> Entries:
        """What is not zero."""
        rows, cols = np.nonzero(dense)
        return cls(rows, cols, dense[rows, cols].astype(np.float64), (dense.shape[0], dense.shape[1]))

    def dense(self) -> NDArray[np.float64]:
        out = np.zeros(self.shape)
        out[self.rows, self.cols] = self.values
        return out


def is_market(path: str) -> bool:
    """Whether a name is a Matrix Market file's; the others are the challenge's."""
    return path.removesuffix(".gz").endswith(".mtx")


def read_matrix(path: str, shape: tuple[int, int] | None = None) -> Entries:
    """``shape``: what it must be; where it is not given, a file of the challenge's is as large as its entries say.
    MatrixError."""
    rows, cols, values, said = _market(path) if is_market(path) else _lines(path)
    wanted = shape or said or (int(rows.max(initial=0)) + 1, int(cols.max(initial=0)) + 1)
    if said is not None and said != wanted:
        raise MatrixError(f"{path}: a matrix of {said[0]:,} x {said[1]:,}, not {wanted[0]:,} x {wanted[1]:,}")
    outside = (rows < 0) | (cols < 0) | (rows >= wanted[0]) | (cols >= wanted[1])
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise MatrixError(f"{path}: entry {at + 1} is ({rows[at] + 1}, {cols[at] + 1}), outside {wanted[0]:,} x "
                          f"{wanted[1]:,} (both count from 1)")
    if not np.isfinite(values).all():
        raise MatrixError(f"{path}: entry {int(np.flatnonzero(~np.isfinite(values))[0]) + 1} is no number")
    order = np.lexsort((cols, rows))
    rows, cols, values = rows[order], cols[order], values[order]
    twice = (rows[1:] == rows[:-1]) & (cols[1:] == cols[:-1])
    if twice.any():
        at = int(np.flatnonzero(twice)[0])
        raise MatrixError(f"{path}: entry ({rows[at] + 1}, {cols[at] + 1}) is there twice")
    return Entries(rows, cols, values, wanted)


def write_matrix(path: str, matrix: Entries) -> None:
    """In the form that the name says; `read_matrix` reads the same numbers."""
    text = io.BytesIO()
    if is_market(path):
        text.write(b"%%MatrixMarket matrix coordinate real general\n")
        text.write(f"{matrix.shape[0]} {matrix.shape[1]} {len(matrix.rows)}\n".encode())
    between = " " if is_market(path) else "\t"
    text.write("".join(f"{r + 1}{between}{c + 1}{between}{v!r}\n" for r, c, v in zip(
        matrix.rows.tolist(), matrix.cols.tolist(), matrix.values.tolist(), strict=True)).encode())
    data = text.getvalue()
    with atomic(path) as out:
        out.write(gzip.compress(data, mtime=0) if path.endswith(".gz") else data)


PACKING = 1032                 # bytes that one byte of gzip may stand for
SHORTEST = 4                   # bytes of an entry

Read = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], tuple[int, int] | None]


def _market(path: str) -> Read:
    if not Path(path).is_file():
        raise MatrixError(f"{path}: no such file")
    try:
        from scipy.io import mmread
    except ImportError:
        raise MatrixError("Matrix Market files are read by scipy: pip install 'nnac[graphblas]'") from None
    try:
        _promised(path)
        found = mmread(path)
        if isinstance(found, np.ndarray):
            raise MatrixError(f"{path}: a dense matrix (`array`); a sparse one is `coordinate`")
        rows, cols = found.coords
        return rows.astype(np.int64), cols.astype(np.int64), found.data.astype(np.float64), found.shape
    except (ValueError, TypeError, OSError, OverflowError, EOFError, MemoryError) as error:
        raise MatrixError(f"{path}: no Matrix Market file "
                          f"({(str(error).splitlines() or ['empty'])[0][:100]})") from None


def _promised(path: str) -> None:
    """ValueError where the head of a file announces more entries than its bytes can hold: room would be made for
    them."""
    packed = path.endswith(".gz")
    most = Path(path).stat().st_size * (PACKING if packed else 1) // SHORTEST
    with (gzip.open if packed else open)(path, "rb") as file:
        for line in iter(lambda: file.readline(1 << 16), b""):
            if line.strip() and not line.startswith(b"%"):
                announced = [counted(word.decode("latin-1")) for word in line.split()]
                if None in announced or max(n or 0 for n in announced[2:3] or [0]) > most:
                    raise ValueError(f"its head announces `{line[:60].decode('latin-1').strip()}`, and its bytes hold "
                                     f"at most {most:,} entries")
                return


def _lines(path: str) -> Read:
    table = numbers(path, columns=(3, 3), what="`row column value`")
    rows, cols = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    if (table[:, :2] != np.stack([rows, cols], 1)).any():
        raise MatrixError(f"{path}: rows and columns are whole numbers")
    return rows - 1, cols - 1, table[:, 2], None


LINE = 1 << 20                 # bytes of a line


def _has_room(path: str, columns: int) -> None:
    """MatrixError where a table would take more than half of this machine's memory: a packed file of a megabyte can
    hold a gigabyte."""
    most, lines, since = memory() // 2 // (8 * columns), 1, 0
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
        for piece in iter(lambda: file.read(LINE), b""):
            found = piece.count(b"\n")
            lines, since = lines + found, 0 if found else since + len(piece)
            if lines > most:
                raise MatrixError(f"{path}: more than {most:,} lines, and of more there is no room on this machine")
            if since > LINE:
                raise MatrixError(f"{path}: a line of more than {LINE:,} characters")


def numbers(path: str, columns: tuple[int, int], what: str) -> NDArray:
    """A table of numbers, [lines, columns]; ``what`` a line is.  MatrixError."""
    if not Path(path).is_file():
        raise MatrixError(f"{path}: no such file")
    try:
        _has_room(path, columns[1])
        with warnings.catch_warnings(), (gzip.open if str(path).endswith(".gz") else open)(path, "rt") as file:
            warnings.simplefilter("ignore")                    # of an empty file: what needs entries says so
            table = np.loadtxt(file, ndmin=2, comments=None)
    except (ValueError, OSError, EOFError, UnicodeDecodeError) as error:
        raise MatrixError(f"{path}: a line is {what}, all numbers ({str(error).splitlines()[0][:100]})") from None
    if table.size and not columns[0] <= table.shape[1] <= columns[1]:
        raise MatrixError(f"{path}: a line is {what}, not {table.shape[1]} numbers")
    return table.reshape(len(table) if table.size else 0, -1) if table.size else np.zeros((0, columns[0]))
