"""The verifier: is this program free of races and deadlock?  Shown from the instructions alone, whoever made them.

What it relies on: an instruction takes its waits when it starts and gives its signals when it ends; each unit starts
and ends its instructions in order; fetch is in program order.  From that:

    no deadlock
    every wait meets a signal that stands *earlier in program order*.  Then the first unfinished instruction can always
    go on:
                   all before it are over, so its tokens are there and its queue slot is free, however short the queues
                   are.
    order          the k-th wait on a semaphore follows the end of the k-th signal (one waiting, one signalling unit
                   each); vector clocks carry what every instruction knows to be over when it starts.
    no race        two instructions that touch the same byte, one of them writing, are ordered by those clocks or belong
                   to one unit.
    no dead work
    every byte that is written is read before it is written again, or is kept (`check_used`): two buffers that overlap,
    or an
                   address that is off, show here even where semaphores order every access
    no surprise
    every byte read was written before, or is declared to hold something when the entry starts; every address exists;
                   the semaphores end as they began, and never hold more tokens than they can.

This is a separate reading of the rules from `order`, byte by byte instead of by intervals, so that a mistake there is
seen here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Range = tuple[str, int, int]             # space, start, end (end excluded)


class HazardError(ValueError):
    """A program that is not proved safe.  ``index``: the instruction at fault; ``rule``: race | deadlock | tokens |
    bounds | unwritten."""

    def __init__(self, rule: str, index: int, message: str) -> None:
        super().__init__(message)
        self.rule, self.index = rule, index


@frozen
class Operation:
    """One instruction as the verifier sees it.  ``waits``, ``signals``: bit masks of semaphores."""

    unit: str
    reads: tuple[Range, ...]
    writes: tuple[Range, ...]
    waits: int = 0
    signals: int = 0


@frozen
class Proof:
    """What was checked."""

    operations: int
    waits: int
    conflicts: int                 # pairs of touching accesses that had to be ordered by semaphores, and are
    tokens: int                    # most tokens a semaphore can hold at once


def prove(operations: Sequence[Operation], *, sizes: Mapping[str, int], holds: Iterable[Range] = (),
          overlapping: Iterable[str] = (),
          fence: str = "", capacity: int = 255, semaphores: int = 16) -> Proof:
    """Check every rule in the module's docstring.  HazardError at the first that is broken.

    sizes  bytes of each space      holds  what is declared to be written when the entry starts
    overlapping  units whose next instruction may start before the last has ended: it knows only what semaphores say
                 about the others
    fence  the unit whose instructions execute at fetch: whatever is fetched later starts after them
    """
    units = sorted({o.unit for o in operations})
    number = {u: k for k, u in enumerate(units)}
    clocks, tokens = _clocks(operations, units, set(overlapping), fence, capacity, semaphores)
    memories = _memories(operations, sizes, holds, len(units))
    conflicts = 0
    for index, (o, clock) in enumerate(zip(operations, clocks, strict=True)):
        own = number[o.unit]
        for writing, ranges in ((False, o.reads), (True, o.writes)):
            for space, start, end in ranges:
                if start >= end:
                    continue
                memory = memories[space]
                if not writing:
                    memory.check_written(start, end, index)
                for k in memory.writers if not writing else memory.users:
                    if k == own or (last := memory.last(k, start, end, writing)) < 0:
                        continue
                    conflicts += 1
                    if last > clock[k]:
                        kind = "writes" if writing else "reads"
                        raise HazardError("race", index,
                                          f"instruction {index} ({o.unit}) {kind} {space}:{start:#x}..{end:#x} while "
                                          f"instruction {last} ({units[k]}) may still use it: no semaphore orders them")
        for space, start, end in o.reads:
            memories[space].mark(own, start, end, index, False) if start < end else None
        for space, start, end in o.writes:
            memories[space].mark(own, start, end, index, True) if start < end else None
    return Proof(len(operations), sum(o.waits.bit_count() for o in operations), conflicts, tokens)


def _clocks(operations: Sequence[Operation], units: list[str], loose: set[str], fence: str, capacity: int,
            semaphores: int) -> tuple[NDArray, int]:
    """int64 [n, units]: the last instruction of each unit that is over when instruction i starts; and the most tokens
    held at once."""
    number = {u: k for k, u in enumerate(units)}
    start = np.full((len(operations), len(units)), -1, np.int64)
    end = np.full((len(operations), len(units)), -1, np.int64)
    signalled: dict[int, list[int]] = {}
    waited: dict[int, list[int]] = {}
    ends: dict[tuple[str, int], str] = {}
    previous: dict[str, int] = {}
    most, fenced = 0, -1
    for index, o in enumerate(operations):
        clock = start[index]
        if fenced >= 0:
            clock[:] = end[fenced]
        if o.unit in previous:
            before = previous[o.unit]
            np.maximum(clock, start[before] if o.unit in loose else end[before], out=clock)
        for k in _bits(o.waits, semaphores, index):
            if ends.setdefault(("wait", k), o.unit) != o.unit:
                raise HazardError("tokens", index,
                    f"instruction {index} ({o.unit}) waits on semaphore {k}, which {ends['wait', k]} waits on too")
            taken = waited.setdefault(k, [])
            if len(taken) >= len(signalled.get(k, ())):
                raise HazardError("deadlock", index,
                    f"instruction {index} ({o.unit}) waits on semaphore {k}, but no earlier signal is left for it")
            np.maximum(clock, end[signalled[k][len(taken)]], out=clock)
            taken.append(index)
        end[index] = clock
        end[index, number[o.unit]] = index
        for k in _bits(o.signals, semaphores, index):
            if ends.setdefault(("signal", k), o.unit) != o.unit:
                raise HazardError("tokens", index,
                    f"instruction {index} ({o.unit}) signals semaphore {k}, which {ends['signal', k]} signals too")
            sent = signalled.setdefault(k, [])
            sent.append(index)
            taken = waited.get(k, [])
            over = bisect_right(taken, clock[number[operations[taken[0]].unit]]) if taken else 0
            most = max(most, len(sent) - over)
            if len(sent) - over > capacity:
                raise HazardError("tokens", index,
                                  f"semaphore {k} may hold {len(sent) - over} tokens, more than {capacity}")
        previous[o.unit] = index
        fenced = index if o.unit == fence else fenced
    for k, sent in signalled.items():
        if len(sent) != len(waited.get(k, ())):
            spare = len(sent) - len(waited.get(k, ()))
            raise HazardError("tokens", sent[-1],
                              f"semaphore {k} ends with {spare} token{'s' if spare > 1 else ''} that nobody takes")
    return start, most


def _bits(mask: int, semaphores: int, index: int) -> list[int]:
    if mask >> semaphores:
        raise HazardError("bounds", index,
                          f"instruction {index} names semaphore {mask.bit_length() - 1}; there are {semaphores}")
    return [k for k in range(semaphores) if mask >> k & 1]


class _Memory:
    """One space, byte by byte: last write and last read of every unit (int32), and what holds a value (bool)."""

    def __init__(self, name: str, size: int, first: int, last: int, units: int) -> None:
        self.name, self.size, self.first, self.end = name, size, first, last
        n = max(0, last - first)
        self.writes = [np.full(n, -1, np.int32) for _ in range(units)]
        self.reads = [np.full(n, -1, np.int32) for _ in range(units)]
        self.written = np.zeros(size, bool)
        self.writers: list[int] = []           # units that have written here, or used it at all
        self.users: list[int] = []

    def check_written(self, start: int, end: int, index: int) -> None:
        gap = self.written[start:end]
        if not gap.all():
            at = start + int(np.argmin(gap))
            raise HazardError("unwritten", index,
                              f"instruction {index} reads {self.name}:{at:#x}, which nothing has written")

    def _slice(self, start: int, end: int) -> slice:
        return slice(max(start, self.first) - self.first, max(0, min(end, self.end) - self.first))

    def last(self, unit: int, start: int, end: int, writing: bool) -> int:
        part = self._slice(start, end)
        if part.start >= part.stop:
            return -1
        found = int(self.writes[unit][part].max())
        return max(found, int(self.reads[unit][part].max())) if writing else found

    def mark(self, unit: int, start: int, end: int, index: int, writing: bool) -> None:
        part = self._slice(start, end)
        if part.start < part.stop:
            (self.writes if writing else self.reads)[unit][part] = index
            for known in (self.users, self.writers) if writing else (self.users,):
                if unit not in known:
                    known.append(unit)
        if writing:
            self.written[start:end] = True


def _memories(operations: Sequence[Operation], sizes: Mapping[str, int], holds: Iterable[Range],
              units: int) -> dict[str, _Memory]:
    """A history for each space, over the part of it that is ever written (what is only read cannot conflict)."""
    bounds: dict[str, list[int]] = {}
    for index, o in enumerate(operations):
        for writing, ranges in ((False, o.reads), (True, o.writes)):
            for space, start, end in ranges:
                if space not in sizes:
                    raise HazardError("bounds", index,
                                      f"instruction {index} uses {space}, which the machine does not have")
                if not 0 <= start <= end <= sizes[space]:
                    raise HazardError("bounds", index,
                        f"instruction {index} uses {space}:{start:#x}..{end:#x}; it has {sizes[space]:#x} bytes")
                if writing and start < end:
                    b = bounds.setdefault(space, [start, end])
                    b[0], b[1] = min(b[0], start), max(b[1], end)
    memories = {}
    for space, size in sizes.items():
        first, last = bounds.get(space, (0, 0))
        memories[space] = _Memory(space, size, first, last, units)
    for space, start, end in holds:
        memories[space].written[start:end] = True
    return memories


PADDING = 3                    # bytes that alignment may add to what is written


def check_used(operations: Sequence[Operation], sizes: Mapping[str, int], keeps: Iterable[Range],
               spare: Iterable[Range] = (),
               bytewise: Iterable[str] = ("A",), exempt: Iterable[str] = ()) -> None:
    """HazardError (dead) for the first instruction that writes something which nobody reads.

    keeps  what the entry leaves for others: outputs, states
    spare  what nobody need read (inputs of pruned weights)
    bytewise  spaces in which up to 3 bytes of padding may go unread
    exempt  units that may write anywhere (the host)
    What an instruction updates in place (reads and writes itself, as the LSTM step its cell state) may be its last
    value.
    """
    kept: dict[str, list[tuple[int, int]]] = {}
    for space, start, end in keeps:
        kept.setdefault(space, []).append((start, end))
    padded, free = set(bytewise), set(exempt)
    pruned = list(spare)
    owner: dict[str, NDArray] = {}
    dead: dict[int, int] = {}

    def lose(space: str, start: int, end: int) -> None:
        for index, count in zip(*np.unique(owner[space][start:end], return_counts=True), strict=True):
            if index >= 0:
                dead[int(index)] = dead.get(int(index), 0) + int(count)
                if dead[int(index)] > (PADDING if space in padded else 0):
                    o = operations[int(index)]
                    raise HazardError("dead", int(index),
                        f"instruction {index} ({o.unit}) writes {dead[int(index)]} of {space}:{start:#x}..{end:#x} "
                                      "that nothing reads before it is overwritten or the entry ends")

    for o in operations:
        for space, _, _ in o.writes:
            if space not in owner:
                # the instruction whose value here nobody has read yet
                owner[space] = np.full(sizes[space], -1, np.int32)
    for index, o in enumerate(operations):
        for space, start, end in o.reads:
            if space in owner:
                owner[space][start:end] = -1
        for space, start, end in o.writes if o.unit not in free else ():
            part = owner[space][start:end]
            if part.size and part.max() >= 0:
                lose(space, start, end)
            part[:] = -1 if space in padded and (space, start, end) in o.reads else index
            for other, first, last in pruned:
                if other == space and first < end and start < last:
                    owner[space][max(start, first):min(end, last)] = -1
    for space, values in owner.items():
        for start, end in kept.get(space, ()):
            values[start:end] = -1
        if values.max(initial=-1) >= 0:
            lose(space, 0, len(values))
