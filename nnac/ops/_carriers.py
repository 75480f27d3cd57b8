"""What NumPy and torch spell differently, for operators whose integers run on both."""

from __future__ import annotations

from collections.abc import Sequence

from nnac.ops import Array


def reverse(x: Array) -> Array:
    """The sequence backwards (NumPy slices with a negative step, torch does not)."""
    return x.flip(0) if hasattr(x, "flip") else x[::-1]


def join(*parts: Array) -> Array:
    """Side by side on the last axis, on either carrier."""
    return joined(parts, -1)


def joined(parts: Sequence[Array], axis: int) -> Array:
    """End to end along an axis, on either carrier."""
    if hasattr(parts[0], "new_empty"):
        import torch

        return torch.cat(list(parts), axis)
    import numpy as np

    return np.concatenate(parts, axis)


def stacked(steps: list[Array], like: Array) -> Array:
    """A list of [B, C] as [T, B, C], on either carrier."""
    if hasattr(like, "new_empty"):
        import torch

        return torch.stack(steps)
    import numpy as np

    return np.stack(steps)
