"""The Sparse DNN Graph Challenge: its images, and its inference in FP32 by GraphBLAS.

The networks and where they come from: `nnac.model.sparse_dnn`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attrs import field, frozen
from attrs.validators import ge
from numpy.typing import NDArray

from nnac.checked import Wrong, checked, parse_json
from nnac.files import FileError, read
from nnac.graphblas.library import Matrix
from nnac.graphblas.matrices import Entries, MatrixError, numbers, read_matrix, write_matrix
from nnac.images import digits as labelled_digits
from nnac.model.sparse_dnn import CAP, DEGREE, WEIGHT

MOST_IMAGES = 10_000_000       # the challenge has 60,000
FORMS = ("tsv", "tsv.gz", "mtx", "mtx.gz")


class ChallengeError(MatrixError):
    """Images, layers or a list of categories that are not what they should be; one line."""


def matrix(layer: NDArray) -> Matrix:
    """A layer as a GraphBLAS matrix [from, to].  Every weight is 1/16, which `infer` multiplies in at the end: these
    are ones."""
    n = len(layer)
    return Matrix.sparse(np.arange(0, n * DEGREE + 1, DEGREE), layer.ravel(), np.ones(n * DEGREE, np.float32), n)


def layer_file(folder: str, neurons: int, layer: int, form: str) -> str:
    """The challenge's name of layer ``layer`` (from 1); form: tsv, tsv.gz, mtx or mtx.gz."""
    return str(Path(folder) / f"n{neurons}-l{layer}.{form}")


def write_layer(path: str, layer: NDArray) -> None:
    """Columns [neurons, 32] of a layer, as a file of weights of 1/16."""
    n = len(layer)
    write_matrix(path, Entries(np.repeat(np.arange(n), DEGREE), layer.ravel(), np.full(n * DEGREE, WEIGHT), (n, n)))


def read_layer(folder: str, neurons: int, layer: int) -> NDArray:
    """Columns [neurons, 32] of layer ``layer`` (from 1).  ChallengeError: there is none, or it is no layer of the
    challenge."""
    places = [layer_file(folder, neurons, layer, form) for form in FORMS]
    path = next((p for p in places if Path(p).is_file()), None)
    if path is None:
        raise ChallengeError(f"{places[0]}: no such file (nor {', '.join(Path(p).name for p in places[1:])})")
    found = read_matrix(path, (neurons, neurons))
    if (found.values != WEIGHT).any():
        at = int(np.flatnonzero(found.values != WEIGHT)[0])
        raise ChallengeError(f"{path}: the weight at ({found.rows[at] + 1}, {found.cols[at] + 1}) is "
                             f"{found.values[at]:g}; every weight of the challenge is 1/16")
    degrees = np.bincount(found.rows, minlength=neurons)
    if (degrees != DEGREE).any():
        at = int(np.flatnonzero(degrees != DEGREE)[0])
        raise ChallengeError(f"{path}: neuron {at + 1} has {degrees[at]} connections, one of the challenge has "
                             f"{DEGREE}")
    return found.cols.reshape(neurons, DEGREE)


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
    table = numbers(path, columns=(2, 3), what="`image pixel 1`")
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
    if most > MOST_IMAGES:
        raise ChallengeError(f"{path}: {most:,} images: at most {MOST_IMAGES:,} are read")
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
    table = numbers(path, columns=(1, 1), what="one number")
    found = table[:, 0].astype(np.int64)
    if (table[:, 0] != found).any() or (found < 1).any():
        raise ChallengeError(f"{path}: images are whole numbers from 1")
    if len(set(found.tolist())) < len(found):
        raise ChallengeError(f"{path}: an image is there twice")
    if len(found) and found.max() > images:
        raise ChallengeError(f"{path}: names image {found.max():,}, but there are {images:,}: a list of other images "
                             f"(--first {images} takes what it says of the first {images:,})")
    return np.sort(found)


def digits(neurons: int, count: int = 5000) -> Images:
    """Up to 5,000 handwritten digits (`nnac.images.digits`)."""
    return Images.of(labelled_digits(neurons, count).pixels)


# -------------------------------------------------------------------------------------------------------- the inference

@frozen
class Part:
    """What inference of some images gave: numbers of those with a category (from 0), edges really touched, seconds."""

    active: tuple[int, ...]
    touched: int
    seconds: float


@frozen
class Of:
    """What a part belongs to: the network's size, the digest of the images, the folder of the network if it is one's
    own."""

    neurons: int
    layers: int
    images: str
    network: str = ""


@frozen
class Kept:
    """A part as a file keeps it."""

    of: Of
    active: tuple[int, ...]
    touched: int = field(validator=ge(0))
    seconds: float = field(validator=ge(0.0))

    @property
    def part(self) -> Part:
        return Part(self.active, self.touched, self.seconds)

    @classmethod
    def read(cls, path: Path, images: int) -> Kept:
        """ChallengeError: the file is no part of ``images`` images; everything that is wrong with it."""
        try:
            made = checked(cls, parse_json(read(path)))
            if any(not 0 <= i < images for i in made.active):
                raise Wrong([f"active: numbers of images are 0 to {images - 1}"])
        except FileError as error:
            raise ChallengeError(str(error)) from None
        except Wrong as error:
            raise ChallengeError(f"{path}: not a part of a challenge: {error}; "
                                 f"remove it or name another --out") from None
        return made


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
