"""Weight pinning.  The weights worth most per byte of SRAM stay on chip: traffic saved per second over bytes held.

Items are single tiles, so a greedy choice by density is within one tile of the fractional knapsack's optimum.  Of tiles
of nearly equal worth those are taken that lie evenly spread over their kernels: then DRAM streams the others while MV
works on pinned ones. Pinning whole kernels would leave DRAM idle behind a full stream buffer while they are multiplied
(up to 20 % of a step, measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import frozen


@frozen
class Pinnable:
    """A tile that could stay: ``held`` bytes of SRAM, ``saved`` bytes of DRAM traffic per second.  ``wish``: auto |
    always | never.

    place  which tile of its kernel it is
    """

    key: tuple[str, int, int]      # kernel path, band, chunk
    held: int
    saved: float
    wish: str = "auto"
    place: int = 0

    @property
    def worth(self) -> int:
        """Density in steps of 4 %, so that nearly equal tiles count as equal."""
        return round(16 * math.log2(self.saved / self.held))


class PinError(ValueError):
    """`pin always` asks for more than the pinned memory holds."""


def choose(items: Iterable[Pinnable], budget: int) -> frozenset[tuple[str, int, int]]:
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
    for i in sorted((i for i in every if i.wish == "auto" and i.saved > 0),
                    key=lambda i: (-i.worth, spread(i.place), i.key)):
        if i.held <= left:
            chosen.add(i.key)
            left -= i.held
    return frozenset(chosen)


def spread(n: int) -> float:
    """The n-th point of van der Corput's sequence in [0, 1): the n whose point lies below any fraction are evenly
    spaced."""
    out, step = 0.0, 0.5
    while n:
        out += step * (n & 1)
        n, step = n >> 1, step / 2
    return out
