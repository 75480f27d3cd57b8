"""numba's `njit`, or None: an optional extra, everything works without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _found() -> Callable[..., Any] | None:
    try:
        from numba import njit
    except ImportError:
        return None
    return njit


njit = _found()
