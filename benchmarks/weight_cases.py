"""The weight tensors of the codec table: 1024 x 1024 int8, one fixed seed.

Gaussian weights g and what compression policies make of them: clipped int8, k-means codebooks, uniform int4, magnitude,
random and 1x16-block pruning (blocks along the inputs).  The draws follow the published table's order, so that its
figures can be compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N = 1024


def cases() -> dict[str, NDArray[np.int8]]:
    """name -> int8 [1024, 1024]"""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((N, N))
    uniform = rng.integers(-127, 128, (N, N))
    size = np.abs(g)

    def int8(x, clip=4.0): return np.clip(np.round(x * 127 / clip), -127, 127).astype(np.int16)

    def codebook(levels):
        """Lloyd's k-means from the quantiles, on 20,000 draws; levels snapped to int8."""
        draws = np.sort(np.random.default_rng(1).choice(g.ravel(), 20000))
        centre = np.quantile(draws, (np.arange(levels) + 0.5) / levels)
        for _ in range(40):
            region = np.searchsorted((centre[1:] + centre[:-1]) / 2, draws)
            centre = np.array([draws[region == i].mean() if (region == i).any() else centre[i] for i in range(levels)])
        values = np.unique(int8(centre))
        flat = int8(g).ravel()
        near = np.searchsorted((values[1:] + values[:-1]) / 2, flat)       # a tie falls to the lower value
        return values[near].reshape(N, N)

    def magnitude(w, share): return np.where(size <= np.quantile(size, share), 0, w)

    def random(w, share): return np.where(np.random.default_rng(3).random((N, N)) < share, 0, w)

    def blocks(w, share, rows, cols):
        energy = size.reshape(N // rows, rows, N // cols, cols).sum((1, 3))
        dead = energy <= np.quantile(energy, share)
        return np.where(np.repeat(np.repeat(dead, rows, 0), cols, 1), 0, w)

    w8, int4, book16 = int8(g), np.clip(np.round(g * 7 / 3), -8, 7).astype(np.int16), codebook(16)
    spread = np.round(np.linspace(-120, 120, 16)).astype(np.int16)
    out = {
        "gauss_int8_clip4": w8, "gauss_int8_clip3": int8(g, 3.0), "uniform_int8": uniform,
        "levels32_kmeans": codebook(32), "levels16_kmeans": book16, "levels16_uniform(int4)": int4,
        "levels16_uniform_spread(int4*16)": int4 * 16, "levels16_equiprobable": spread[rng.integers(0, 16, (N, N))],
        "levels4": codebook(4), "binary": np.where(g > 0, 1, -1),
        "zeros50_mag": magnitude(w8, .5), "zeros75_mag": magnitude(w8, .75), "zeros90_mag": magnitude(w8, .9),
        "zeros50_rand": random(w8, .5), "zeros75_rand": random(w8, .75), "zeros90_rand": random(w8, .9),
        "zeros50_blk16": blocks(w8, .5, 1, 16), "zeros75_blk16": blocks(w8, .75, 1, 16),
           "zeros90_blk16": blocks(w8, .9, 1, 16),
        "levels16_zeros50_mag": magnitude(book16, .5), "levels16_zeros75_mag": magnitude(book16, .75),
        "int4_zeros75_mag": magnitude(int4, .75), "all_zero": np.zeros((N, N)),
        # ours: what the machine can also skip in time
        "zeros75_blk64x1": blocks(w8, .75, 64, 1), "levels16_zeros75_blk64x1": blocks(book16, .75, 64, 1),
    }
    return {name: np.ascontiguousarray(w.astype(np.int8)) for name, w in out.items()}


def entropy(w: NDArray[np.int8]) -> float:
    """Zero-order, bits a weight."""
    count = np.bincount(w.reshape(-1).view(np.uint8), minlength=256)
    share = count[count > 0] / w.size
    return float(-(share * np.log2(share)).sum())


def block_entropy(w: NDArray[np.int8], rows: int, cols: int) -> float:
    """Entropy of the block bits + zero-order entropy of the weights in live blocks, bits a weight."""
    high, wide = w.shape
    tiles = w.reshape(high // rows, rows, wide // cols, cols).swapaxes(1, 2)
    live = (tiles != 0).any((2, 3))
    inside = tiles[live]
    return entropy(live.astype(np.int8)) / (rows * cols) + (entropy(inside) * inside.size / w.size if inside.size
                                                            else 0.0)
