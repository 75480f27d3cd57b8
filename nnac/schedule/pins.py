"""Weight pinning.  The weights worth most per byte of SRAM stay on chip: traffic saved per second over bytes held.

Items are single tiles, so a greedy choice by density is within one tile of the fractional knapsack's optimum (our choice; tiles of one kernel
have nearly one density, so in practice whole kernels go in, the last one in part).
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


@frozen
class Item:
    """A tile that could stay: ``held`` bytes of SRAM, ``saved`` bytes of DRAM traffic per second.  ``wish``: auto | always | never."""

    key: tuple[str, int, int]      # kernel path, band, chunk
    held: int
    saved: float
    wish: str = "auto"


class PinError(ValueError):
    """`pin always` asks for more than the pinned memory holds."""


def choose(items: Iterable[Item], budget: int) -> frozenset[tuple[str, int, int]]:
    """Keys of the tiles to pin within ``budget`` bytes.  PinError if the `always` tiles alone do not fit."""
    every = list(items)
    always = [i for i in every if i.wish == "always"]
    need = sum(i.held for i in always)
    if need > budget:
        kernels: dict[str, int] = {}
        for i in always:
            kernels[i.key[0]] = kernels.get(i.key[0], 0) + i.held
        named = ", ".join(f"{k} {v:,}" for k, v in sorted(kernels.items(), key=lambda kv: (-kv[1], kv[0]))[:5])
        raise PinError(f"`pin always` needs {need:,} bytes, the target pins {budget:,} (largest: {named})")
    chosen = {i.key for i in always}
    left = budget - need
    for i in sorted((i for i in every if i.wish == "auto" and i.saved > 0), key=lambda i: (-i.saved / i.held, i.key)):
        if i.held <= left:
            chosen.add(i.key)
            left -= i.held
    return frozenset(chosen)
