"""Static memory.  Every buffer has a size and a live range in schedule positions; buffers that live together never
overlap.

A state is a buffer whose range never ends.  Placement is first fit, the longest-lived and then the largest first, which
keeps residents packed at the bottom; ties go by name, so the result is reproducible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

FOREVER = 1 << 60


@frozen
class Buffer:
    """``bytes`` at a multiple of ``align``, holding something from position ``first`` to position ``last``, both
    included."""

    name: str
    bytes: int
    first: int = 0
    last: int = FOREVER
    align: int = 16

    def lives_with(self, other: Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


class MemoryError_(ValueError):
    """The buffers do not fit; the message names the largest."""


def allocate(buffers: Iterable[Buffer], size: int, base: int = 0, what: str = "SRAM") -> dict[str, int]:
    """Address of every buffer within [base, base + size).  MemoryError_ names the largest contributors if they do not
    fit."""
    placed: list[tuple[int, Buffer]] = []
    wanted = sorted(buffers, key=lambda b: (b.first - b.last, -b.bytes, b.name))
    for buffer in wanted:
        taken = sorted((address, address + b.bytes) for address, b in placed if b.lives_with(buffer) and b.bytes)
        at = _align(base, buffer.align)
        for start, end in taken:
            if at + buffer.bytes <= start:
                break
            at = max(at, _align(end, buffer.align))
        if at + buffer.bytes > base + size:
            raise MemoryError_(shortage(wanted, size, what))
        placed.append((at, buffer))
    addresses = {b.name: at for at, b in placed}
    verify_allocation(wanted, addresses, size, base)
    return addresses


def verify_allocation(buffers: Iterable[Buffer], addresses: Mapping[str, int], size: int, base: int = 0) -> None:
    """Every rule of a valid placement, independent of how it was found.  AssertionError names the two buffers that
    collide."""
    placed = sorted(((addresses[b.name], b) for b in buffers if b.bytes), key=lambda p: p[0])
    longest = max((b.bytes for _, b in placed), default=0)
    for i, (at, b) in enumerate(placed):
        assert base <= at and at + b.bytes <= base + size, f"{b.name} lies outside its memory"
        assert at % b.align == 0, f"{b.name} is not aligned to {b.align}"
        for other_at, other in placed[i + 1:]:
            if other_at >= at + longest:
                break
            assert other_at >= at + b.bytes or not b.lives_with(other), (f"{b.name} and {other.name} overlap while "
                                                                         f"both live")


def shortage(buffers: Iterable[Buffer], size: int, what: str) -> str:
    """One line: how much is wanted at the worst moment, and by whom."""
    every = list(buffers)
    moments = {b.first for b in every}
    worst = max(moments, key=lambda t: sum(b.bytes for b in every if b.first <= t <= b.last))
    live = sorted((b for b in every if b.first <= worst <= b.last), key=lambda b: (-b.bytes, b.name))
    need = sum(b.bytes for b in live)
    named = ", ".join(f"{b.name} {b.bytes:,}" for b in live[:5])
    return f"{what} holds {size:,} bytes; {need:,} are live at once (largest: {named})"


def _align(at: int, to: int) -> int:
    return -(-at // to) * to
