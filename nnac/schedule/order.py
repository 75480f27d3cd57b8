"""Order.  Loads move ahead as far as their buffers allow; then every dependence between units becomes a wait and a
signal.

An item is anything with a ``unit`` and with ``reads`` and ``writes``: tuples of (space, start, end).  A list of items
in *program order* means: as if each ran alone, one after another.  The machine runs units side by side, each in its own
order; what keeps the meaning is that

    two items of different units that touch the same bytes, one of them writing, are ordered by semaphores.

Semaphores: one per ordered pair of units, so each has one waiting unit and nobody can take another's token.  The k-th
wait on it meets the k-th signal.  A wait is left out where the order already follows from other waits (vector clocks).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import define, field, frozen

Range = tuple[str, int, int]      # space, start, end (end excluded)


class Item(Protocol):
    """One instruction, as far as order is concerned."""

    @property
    def unit(self) -> str: ...
    @property
    def reads(self) -> tuple[Range, ...]: ...
    @property
    def writes(self) -> tuple[Range, ...]: ...


@define
class Touch:
    """Who last wrote a stretch of memory, and the last reader of each unit since then (indices of items)."""

    writer: int = -1
    readers: dict[str, int] = field(factory=dict)


@define
class Memory:
    """A space cut into stretches [starts[i], starts[i + 1]) that share one history."""

    starts: list[int] = field(factory=lambda: [0])
    touches: list[Touch] = field(factory=lambda: [Touch()])

    def cut(self, at: int) -> int:
        """Index of the stretch that begins at ``at``, made if need be."""
        i = bisect_right(self.starts, at) - 1
        if self.starts[i] != at:
            old = self.touches[i]
            self.starts.insert(i + 1, at)
            self.touches.insert(i + 1, Touch(old.writer, dict(old.readers)))
            i += 1
        return i

    def read(self, start: int, end: int, index: int, unit: str, found: set[int]) -> None:
        """Note a read; adds the writers it depends on to ``found``."""
        first = self.cut(start)
        for touch in self.touches[first:self.cut(end)]:
            if touch.writer >= 0:
                found.add(touch.writer)
            touch.readers[unit] = index

    def write(self, start: int, end: int, index: int, found: set[int]) -> None:
        """Note a write; adds the last writer and the readers since to ``found``; the stretches merge into one."""
        first = self.cut(start)
        last = self.cut(end)
        for touch in self.touches[first:last]:
            if touch.writer >= 0:
                found.add(touch.writer)
            found.update(touch.readers.values())
        self.starts[first:last] = [start]
        self.touches[first:last] = [Touch(index)]


def dependences(items: Sequence[Item]) -> list[tuple[int, ...]]:
    """For each item the earlier items that it must follow: writers of what it reads, writers and readers of what it
    writes.

    Items of its own unit are included.  Only the latest of each kind is named: the others follow from those.
    """
    spaces: defaultdict[str, Memory] = defaultdict(Memory)
    out = []
    for index, item in enumerate(items):
        found: set[int] = set()
        unit = item.unit
        for space, start, end in item.reads:
            if start < end:
                spaces[space].read(start, end, index, unit, found)
        for space, start, end in item.writes:
            if start < end:
                spaces[space].write(start, end, index, found)
        found.discard(index)
        out.append(tuple(sorted(found)))
    return out


Needs = Sequence[tuple[int, ...]]          # what `dependences` found


def hoist(items: Sequence[Item], movable: Iterable[str], needed: Needs | None = None,
          passing: bool = False) -> list[int]:
    """A new program order in which items of ``movable`` units stand as early as what they depend on allows.

    needed   their dependences, where they are known
    passing  they also pass items of their own unit that they do not depend on
    returns  indices into ``items``.  All dependences keep their direction; each unit its order, if none is passed.
    """
    move = set(movable)
    behind: dict[int, list[int]] = {}          # anchor -> items that follow it at once
    previous: dict[str, int] = {}              # unit -> anchor of its latest moved item
    anchor = list(range(len(items)))
    for index, (item, needs) in enumerate(zip(items, needed or dependences(items), strict=True)):
        if item.unit not in move:
            continue
        at = max([-1 if passing else previous.get(item.unit, -1), *(anchor[n] for n in needs)], default=-1)
        anchor[index] = previous[item.unit] = at
        behind.setdefault(at, []).append(index)
    order = list(behind.get(-1, ()))
    for index, item in enumerate(items):
        if item.unit not in move:
            order.append(index)
            order += behind.get(index, ())
    return order


def moved(needed: Needs, order: Sequence[int]) -> list[tuple[int, ...]]:
    """The dependences of items in a new order that keeps their direction and each unit's own order: the same ones, for
    nobody has passed who touches the same."""
    place = [0] * len(order)
    for k, index in enumerate(order):
        place[index] = k
    return [tuple(sorted([place[n] for n in needed[index]])) for index in order]


@frozen
class Synchronised:
    """Waits and signals of each item, as bit masks over ``pairs``: bit k is the semaphore of (from unit, to unit)
    ``pairs[k]``."""

    waits: tuple[int, ...]
    signals: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]


def synchronise(items: Sequence[Item], semaphores: int, overlapping: Iterable[str] = (),
                fence: str = "", needed: Needs | None = None) -> Synchronised:
    """Semaphores for ``items`` in program order.

    needed       their dependences, where they are known
    overlapping  units whose next item may start before the last has ended (they still end in order)
    fence        the unit that executes at fetch: nothing later starts before its items have ended
    ValueError if more pairs of units depend on each other than there are semaphores.
    """
    units = sorted({item.unit for item in items})
    number = {u: k for k, u in enumerate(units)}
    loose = set(overlapping)
    pairs: dict[tuple[str, str], int] = {}
    waits, signals = [0] * len(items), [0] * len(items)
    ended: list[tuple[int, ...]] = []                      # what is known to be over when item i is over, per unit
    now = {u: tuple([-1] * len(units)) for u in units}     # what a unit knows to be over
    for index, (item, needs) in enumerate(zip(items, needed or dependences(items), strict=True)):
        known = now[item.unit]
        for need in sorted(needs, reverse=True):
            source = items[need].unit
            if source == item.unit or known[number[source]] >= need:
                continue
            pair = pairs.setdefault((source, item.unit), len(pairs))
            if pair >= semaphores:
                raise ValueError(f"{len(pairs)} pairs of units depend on each other, the target has {semaphores} "
                                 f"semaphores")
            signals[need] |= 1 << pair
            waits[index] |= 1 << pair
            known = tuple(map(max, known, ended[need]))
        over = list(known)
        over[number[item.unit]] = index
        ended.append(tuple(over))
        now[item.unit] = known if item.unit in loose else ended[-1]
        if item.unit == fence:
            now = {u: tuple(map(max, clock, ended[-1])) for u, clock in now.items()}
    return Synchronised(tuple(waits), tuple(signals), tuple(pairs))
