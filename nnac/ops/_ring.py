"""Operators that remember the vectors of some time in a ring: attention's keys and values, a convolution's past.

A ring is two states: ``count`` (int32, one) and the rows, ``slots * chunk`` of them in the order of their places; see
`arith.ring_order`.  A step writes one chunk of rows, the current frames', in the place of the oldest, and then reads
them all.  Over a whole sequence the same rows are found without a ring: `windows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.attributes import Attributes
from nnac.ops import Array, Operator, State
from nnac.ops._carriers import joined

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import State as StateVector
    from nnac.ops import LayerShape

COUNT_BITS = 32


@frozen(eq=False, repr=False)
class RingAttributes(Attributes):
    """``slots`` chunks of ``chunk`` rows."""

    slots: int
    chunk: int


class RingOperator(Operator):
    """Base.  ``ringed``: which input goes into the ring; ``ring``: what the state is called."""

    remembers = True
    ringed: ClassVar[int] = 0
    ring: ClassVar[str] = "past"
    in_one_piece = True
    narrow: ClassVar[tuple[int, ...]] = (0,)

    def slots(self, layer: Mapping[str, Any]) -> int:
        """Chunks of the ring, of a layer with these attributes."""
        raise NotImplementedError

    def width(self, layer: LayerShape) -> int:
        """Elements of a row."""
        return layer.width

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        from nnac.ir import State as StateVector

        rows = self.slots(layer.attributes) * layer.attributes["chunk"]
        return (StateVector(f"{layer.path}.count", 1, COUNT_BITS),
                StateVector(f"{layer.path}.{self.ring}", rows * self.width(layer), 8))

    def state_bytes(self, attributes: Mapping[str, Any], width: int, hidden_bits: int) -> int:
        """Bytes of `states`, with what they are filled up to."""
        rows = self.slots(attributes) * attributes["chunk"]
        return 16 + rows * (attributes.get("heads", 0) * attributes.get("head", 0) or width)

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return width % 4 == 0

    def windows(self, path: str, x: Array, state: State, slots: int, chunk: int) -> tuple[Array, Array]:
        """All rows that each step sees, and how many of its chunks were written; replaces the states.

        x  [T, B, width], T a multiple of ``chunk``      returns  [T / chunk, B, slots * chunk, width], oldest first;
        [T / chunk, B, 1], at most ``slots``
        """
        every, known = self.history(path, x, state, slots, chunk)
        return unfolded(every, slots * chunk, chunk, x.shape[0] // chunk), known

    def history(self, path: str, x: Array, state: State, slots: int, chunk: int) -> tuple[Array, Array]:
        """As `windows`, end to end: [(slots - 1) * chunk + T, B, width], of which each step sees ``slots * chunk``
        rows, a chunk later than the step before it."""
        names = f"{path}.count", f"{path}.{self.ring}"
        every, known, state[names[0]], state[names[1]] = history(x, state[names[0]], state[names[1]], slots, chunk)
        return every, known


def windows(x: Array, count: Array, ring: Array, slots: int, chunk: int) -> tuple[Array, Array, Array, Array]:
    """(`RingOperator.windows`, the count and the ring afterwards); count [B, 1], ring [B, slots * chunk * width]."""
    every, known, after, rows = history(x, count, ring, slots, chunk)
    return unfolded(every, slots * chunk, chunk, x.shape[0] // chunk), known, after, rows


def history(x: Array, count: Array, ring: Array, slots: int, chunk: int) -> tuple[Array, Array, Array, Array]:
    """(`RingOperator.history`, the count and the ring afterwards); count [B, 1], ring [B, slots * chunk * width]."""
    from nnac import arith

    (frames, batch, width), rows = x.shape, slots * chunk
    steps = frames // chunk
    whole = count.long() if hasattr(count, "new_empty") else count
    ages = counting(whole, rows)
    order = arith.ring_order(ages, whole, slots, chunk)
    held = taken(ring.reshape(batch, rows, width), order)
    every = joined([held.swapaxes(0, 1), x], 0)                        # oldest first: the oldest chunk is overwritten
    known = (whole[None] + counting(whole, steps)[:, None, None] + 1).clip(0, slots)
    after = arith.ring_counted(whole, steps, slots)
    last = every[len(every) - rows:].swapaxes(0, 1)
    places = arith.ring_order(ages, after, slots, chunk).argsort(-1)             # where the oldest lies, and so on
    new = taken(last, places).reshape(batch, rows * width)
    return every[chunk:], known, after.to(count.dtype) if hasattr(count, "new_empty") else after, new


def taken(rows: Array, order: Array) -> Array:
    """[B, R, width] with the rows in this order, int64 [B, R]."""
    if hasattr(rows, "new_empty"):
        batch, count, width = rows.shape
        at = order + count * counting(order, batch)[:, None]           # whole rows: a gather would take numbers
        return rows.reshape(batch * count, width).index_select(0, at.flatten()).view(batch, -1, width)
    import numpy as np

    return np.take_along_axis(rows, order[..., None], 1)


def unfolded(x: Array, rows: int, chunk: int, steps: int) -> Array:
    """[rows + (steps - 1) * chunk, B, width] -> views [steps, B, rows, width], each ``chunk`` later."""
    if hasattr(x, "new_empty"):
        return x.unfold(0, rows, chunk).swapaxes(-1, -2)
    import numpy as np

    seen = np.lib.stride_tricks.sliding_window_view(x, rows, 0)[::chunk]
    return seen[:steps].swapaxes(-1, -2)


def counting(like: Array, n: int) -> Array:
    """0 … n-1, int64, on the carrier of ``like``."""
    if hasattr(like, "new_empty"):
        import torch

        return torch.arange(n, device=like.device)
    import numpy as np

    return np.arange(n)
