"""Tiling.  A weight matrix becomes bands of at most ``lanes`` rows, each cut into chunks of columns that fit one stream
buffer.

The rows of an LSTM kernel are reordered so that one band holds all four gates of ``lanes // 4`` cells: when a band's
sums are complete, its cells can be updated at once, under the next band's weights.  Only weights and per-row parameters
are reordered: cells come out in order.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray


@frozen
class Band:
    """Rows of a matrix that are computed together: ``first`` .. ``first + count`` of the reordered matrix."""

    index: int
    first: int
    count: int


@frozen
class Columns:
    """Columns ``first`` .. ``first + count`` of a band: what one stream buffer holds."""

    index: int
    first: int
    count: int


def gate_order(cells: int, lanes: int, gates: int = 4) -> NDArray:
    """Row order that puts all gates of ``lanes // gates`` cells side by side: int64 [gates * cells].

    Band k is [gate 0 of its cells, gate 1 of its cells, ...]; the last band may hold fewer cells.  ValueError if lanes
    < gates.
    """
    per_band = lanes // gates
    if per_band < 1:
        raise ValueError(f"{lanes} lanes cannot hold {gates} gates")
    parts = []
    for first in range(0, cells, per_band):
        own = np.arange(first, min(first + per_band, cells))
        parts += [gate * cells + own for gate in range(gates)]
    return np.concatenate(parts)


def chunks_of(cols: int, limit: int) -> tuple[Columns, ...]:
    """Fewest chunks of at most ``limit`` columns, all but the last of one size, as even as possible."""
    count = -(-cols // limit)
    size = -(-cols // count)
    return tuple(Columns(i, first, min(size, cols - first)) for i, first in enumerate(range(0, cols, size)))
