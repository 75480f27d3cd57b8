"""numba's `njit`, or None: an optional extra, everything works without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _found() -> Callable[..., Any] | None:
    try:
        from numba import njit
    except ImportError:
        return None

    def compiled(**options: Any) -> Callable[..., Any]:
        """`njit`, uncached where there is no place for a cache: a read-only installation, no home."""

        def of(function: Callable[..., Any]) -> Callable[..., Any]:
            try:
                return njit(**options)(function)
            except RuntimeError:                          # "cannot cache function …: no locator available"
                return njit(**{k: v for k, v in options.items() if k != "cache"})(function)

        return of

    return compiled


njit = _found()
