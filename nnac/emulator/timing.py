"""Time, fast: the clocked rules of `clocked`, evaluated only in cycles in which something can change.

Between two such *wake* cycles no register changes, so nothing that the rules read changes, so evaluating them would do nothing: the
model is exact by construction, and `tests/test_emulator_timing.py` compares it with the rules evaluated in every cycle.
Time depends on instructions and configuration only, never on data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.emulator.errors import CodeError, DeadlockError, MachineError, SemaphoreError
from nnac.isa import UNITS, Instruction, MachineConfig
from nnac.isa.base import bits
from nnac.isa.config import SEMAPHORE_MAX, SEMAPHORES

DW, DA, MV, VX, CT = range(5)
_SHIFT, _TYPE = 28, 24                      # an event is cycle << 28 | type << 24 | instruction
_DONE, _TRY, _TRAIN = (t << _TYPE for t in range(3))
_BUS_NUMBER = 5
_NEVER = 1 << 62
_BUS, _DECODER = 1 << _BUS_NUMBER, 1 << 6
_IN_ORDER = [tuple(e for e in range(5) if mask >> e & 1) for mask in range(32)]


@frozen(eq=False)
class Timing:
    """When everything happened.  All arrays by instruction index, cycles from 0.

    arrive   first cycle in which the instruction stands in its unit's queue (CT: in which it is next to be fetched)
    start, done   first and last cycle of the instruction       free   first cycle in which its unit could start the next
    decode   first cycle in the decoder (LDW, LDT; else -1)
    bus      data phases: (first cycle, cycle after the last, instruction, bursts), in order
    """

    unit: NDArray
    arrive: NDArray
    start: NDArray
    done: NDArray
    free: NDArray
    decode: NDArray
    bus: tuple[tuple[int, int, int, int], ...]
    cycles: int
    bursts: NDArray = field(repr=False)

    def __str__(self) -> str:
        return f"{len(self.start)} instructions in {self.cycles} cycles"


def stream_bursts(code: Sequence[Instruction], config: MachineConfig) -> list[int]:
    """DRAM bursts of each instruction (0 if it uses no DRAM).

    A stream (LDW, LDT) that begins in the burst in which the last one ended does not read it again; every transfer is a burst at least.
    """
    out, held = [], -1
    for i in code:
        if i.unit == "DW":
            first, last = i.dram // config.burst, (i.dram + max(i.bytes, 1) - 1) // config.burst
            out.append(max(1, last - first + 1 - (first == held)))
            held = last
        else:
            out.append(i.bursts(config) if i.unit == "DA" else 0)
    return out


def check_code(code: Sequence[Instruction], config: MachineConfig) -> None:
    """CodeError unless the entry ends in its only HALT and no operand exceeds this machine."""
    names = [type(i).__name__ for i in code]
    if not names or names[-1] != "HALT":
        raise CodeError("an entry ends in HALT")
    if "HALT" in names[:-1]:
        at = names.index("HALT")
        raise CodeError("HALT before the end").at("", at, code[at])
    for at, i in enumerate(code):
        rule = ""
        if names[at] == "MVM" and i.weights >= len(config.rates):
            rule = f"weight format {i.weights} is undefined"
        elif names[at] in ("MVM", "RQ") and i.columns > config.columns:
            rule = f"{i.columns} columns; the machine has {config.columns}"
        elif names[at] in ("LDW", "RQ") and i.rows > config.lanes:
            rule = f"{i.rows} rows; the machine has {config.lanes} lanes"
        elif i.unit == "DW" and i.ring() > config.ring_bytes:
            rule = f"a stream of {i.bytes} bytes does not fit the ring of {config.ring_bytes}"
        elif names[at] == "RQ" and (i.out > 2 or i.add > 2 or (i.out == 2 and i.add == 2)):
            rule = f"out={i.out} with add={i.add} is undefined"
        if rule:
            raise CodeError(rule).at("", at, i)


def simulate(code: Sequence[Instruction], config: MachineConfig) -> Timing:
    """Start and done cycle of every instruction of one entry, from a machine at rest.  MachineError names the instruction.

    Three things keep it fast.  Fetch needs no wake cycles: the k-th push into a queue of depth Q happens one cycle after the (k-Q)-th start
    there, or one after the push before it.  A unit is looked at only when its next instruction has arrived and it is free, or when a
    semaphore that it lacked has counted.  Data phases are events only where they end or may be broken.
    """
    check_code(code, config)
    n = len(code)
    number = {name: k for k, name in enumerate(UNITS)}
    unit = [number[i.unit] for i in code]
    masks: dict[int, tuple[int, ...]] = {}
    for i in code:
        for mask in (i.wait, i.signal):
            if mask not in masks:
                masks[mask] = bits(mask)
    waits, signals = [masks[i.wait] for i in code], [masks[i.signal] for i in code]
    busy, latency = ([b for b, _ in both], [l for _, l in both]) if (both := [i.cycles(config) for i in code]) else ([], [])
    bursts = stream_bursts(code, config)
    need = [i.ring() if i.unit == "DW" else 0 for i in code]
    num, den = config.burst_cycles.numerator, config.burst_cycles.denominator
    room, outstanding_limit, depth = config.ring_bytes, config.outstanding, config.queue
    arrive, start, done, free, decoded, ready = [0] * n, [-1] * n, [-1] * n, [0] * n, [-1] * n, [0] * n
    left = bursts.copy()
    order: list[list[int]] = [[i for i in range(n) if unit[i] == e] for e in range(5)]
    pushed, popped = [0] * 5, [0] * 5        # instructions fetched for and started by each unit
    can_start = [0] * 5                      # first cycle in which the unit may start again
    sem = [0] * SEMAPHORES
    waiters = [0] * SEMAPHORES               # units (bits) that look again when the semaphore counts
    stream: deque[int] = deque()             # DW requests in order
    fetched: deque[int] = deque()
    segments: list[tuple[int, int, int, int]] = []
    da, owner, train_start, train = -1, -1, 0, 0     # DA's request; whose data phase runs since when; its number, to know stale events
    decoder_free = ring = outstanding = 0
    pc, fetch_free, stuck = 0, 0, -1         # next to fetch, first cycle in which it can be, the unit whose full queue it waits for
    heap: list[int] = []
    c = 0
    while True:
        # ---- fetch, as far as it is determined
        while pc < n and stuck < 0:
            e = unit[pc]
            if e == CT:
                if pushed[CT] == popped[CT]:
                    arrive[pc] = fetch_free
                    pushed[CT] += 1
                    heappush(heap, fetch_free << _SHIFT | _TRY | CT)
                break
            k = pushed[e] - depth
            if k >= popped[e]:
                stuck = e
                break
            at = fetch_free
            if k >= 0 and start[order[e][k]] >= at:
                at = start[order[e][k]] + 1
            arrive[pc] = at + 1
            if pushed[e] == popped[e] and can_start[e] < _NEVER:
                heappush(heap, max(at + 1, can_start[e]) << _SHIFT | _TRY | e)
            pushed[e] += 1
            pc += 1
            fetch_free = at + 1
        if not heap:
            break
        c = heap[0] >> _SHIFT
        # ---- what became visible in this cycle; ``look`` collects who must be looked at (units, bus, decoder)
        limit = c + 1 << _SHIFT
        look = 0
        while heap and heap[0] < limit:
            event = heappop(heap)
            kind, i = event & 15 << _TYPE, event & 0xFFFFFF
            if kind == _TRY:
                look |= 1 << i
                continue
            if kind == _TRAIN:
                if i != train or owner < 0:
                    continue
                i, owner = owner, -1
                segments.append((train_start, c, i, left[i]))
                look |= _BUS
                if unit[i] == DW:
                    fetched.append(stream.popleft())
                    look |= _DECODER
                    continue
                da, done[i], free[i], can_start[DA] = -1, c - 1, c, c
                look |= 1 << DA
            elif unit[i] == DW:
                ring -= need[i]
                outstanding -= 1
                look |= _DECODER | 1 << DW
            for s in signals[i]:
                sem[s] += 1
                look |= waiters[s]
                waiters[s] = 0
                if sem[s] > SEMAPHORE_MAX:
                    raise SemaphoreError(f"s{s} counts beyond {SEMAPHORE_MAX}").at("", i, code[i], cycle=c)
        # ---- DRAM bus: DA first, at burst boundaries; then DW in order
        if look & _BUS:
            grant = -1
            if owner < 0:
                if da >= 0 and ready[da] <= c:
                    grant = da
                elif stream and ready[stream[0]] <= c:
                    grant = stream[0]
            elif da >= 0 and owner != da and ready[da] <= c:
                k = (c - train_start - 1) * den // num + 1
                boundary = train_start + -(-k * num // den)
                if k < left[owner]:
                    if boundary == c:
                        segments.append((train_start, c, owner, k))
                        left[owner] -= k
                        grant = da
                    else:
                        heappush(heap, boundary << _SHIFT | _TRY | _BUS_NUMBER)
            if grant >= 0:
                owner, train_start, train = grant, c, train + 1 & 0xFFFFFF
                heappush(heap, c + -(-left[grant] * num // den) << _SHIFT | _TRAIN | train)
        # ---- decoder
        if look & _DECODER and fetched and c >= decoder_free:
            i = fetched.popleft()
            decoded[i] = c
            decoder_free = c + code[i].decode_cycles(config)
            done[i] = decoder_free - 1
            heappush(heap, decoder_free << _SHIFT | _DONE | i)
        # ---- starts, in the order DW, DA, MV, VX, CT
        for e in _IN_ORDER[look & 31]:
            if popped[e] == pushed[e] or c < can_start[e]:
                continue
            i = order[e][popped[e]]
            if c < arrive[i]:
                heappush(heap, arrive[i] << _SHIFT | _TRY | e)
                continue
            for s in waits[i]:
                if not sem[s]:
                    waiters[s] |= 1 << e
                    break
            else:
                if e == MV or e == VX:
                    can_start[e] = free[i] = c + busy[i]
                    done[i] = c + latency[i] - 1
                    heappush(heap, c + latency[i] << _SHIFT | _DONE | i)
                elif e == DW:
                    if outstanding >= outstanding_limit or ring + need[i] > room:
                        continue                 # looked at again when a stream is done
                    ring += need[i]
                    outstanding += 1
                    stream.append(i)
                    ready[i] = c + 1 + config.latency
                    can_start[e] = free[i] = c + 1
                    heappush(heap, ready[i] << _SHIFT | _TRY | _BUS_NUMBER)
                elif e == DA:
                    da, ready[i] = i, c + code[i].ready(config)
                    can_start[e] = _NEVER
                    heappush(heap, ready[i] << _SHIFT | _TRY | _BUS_NUMBER)
                else:
                    fetch_free = c + latency[i]
                    can_start[e] = free[i] = fetch_free
                    done[i] = fetch_free - 1
                    heappush(heap, fetch_free << _SHIFT | _DONE | i)
                    pc += 1
                for s in waits[i]:
                    sem[s] -= 1
                start[i] = c
                popped[e] += 1
                if stuck == e:
                    stuck = -1
                if popped[e] < pushed[e] and e != DA:
                    heappush(heap, max(arrive[order[e][popped[e]]], can_start[e]) << _SHIFT | _TRY | e)
    if pc < n or pushed != popped:
        queues = [order[e][popped[e]: pushed[e]] for e in range(4)]
        raise deadlock(code, config, pc, queues, sem, c)
    return Timing(np.array(unit), np.array(arrive), np.array(start), np.array(done), np.array(free), np.array(decoded), tuple(segments),
                  max(done) + 1, np.array(bursts))


def deadlock(code: Sequence[Instruction], config: MachineConfig, pc: int, queues: list[list[int]], sem: list[int], cycle: int) -> MachineError:
    """Who waits for what, in words."""
    lines, first = [], None
    for name, queue in zip(UNITS, queues, strict=False):
        if queue:
            i = queue[0]
            first = i if first is None else min(first, i)
            lacking = [f"s{s}" for s in bits(code[i].wait) if not sem[s]]
            lines.append(f"{name} waits for {', '.join(lacking) or 'room in the ring'} with [{i}] {type(code[i]).__name__}")
    if pc < len(code):
        e = UNITS.index(code[pc].unit)
        if e == CT:
            lines.append(f"CT waits for {', '.join(f's{s}' for s in bits(code[pc].wait) if not sem[s])} with [{pc}]")
        else:
            lines.append(f"fetch waits for room in the queue of {UNITS[e]} with [{pc}]")
        first = pc if first is None else first
    return DeadlockError("; ".join(lines)).at("", first, code[first], cycle=cycle)
