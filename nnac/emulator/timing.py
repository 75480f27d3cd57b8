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
_PUSH, _POP, _DONE, _WAKE, _TRAIN = (t << _TYPE for t in range(5))


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
        elif names[at] == "RQ" and (i.out > 2 or i.add > 2 or i.out == 2 and i.add == 2):
            rule = f"out={i.out} with add={i.add} is undefined"
        if rule:
            raise CodeError(rule).at("", at, i)


def simulate(code: Sequence[Instruction], config: MachineConfig) -> Timing:
    """Start and done cycle of every instruction of one entry, from a machine at rest.  MachineError names the instruction."""
    check_code(code, config)
    n = len(code)
    index = {name: k for k, name in enumerate(UNITS)}
    unit = [index[i.unit] for i in code]
    waits, signals = [bits(i.wait) for i in code], [bits(i.signal) for i in code]
    both = [i.cycles(config) for i in code]
    bursts = stream_bursts(code, config)
    num, den = config.burst_cycles.numerator, config.burst_cycles.denominator
    arrive, start, done, free, decoded = [0] * n, [-1] * n, [-1] * n, [0] * n, [-1] * n
    sem = [0] * SEMAPHORES
    queue: tuple[deque[int], ...] = tuple(deque() for _ in range(4))    # instructions in program order; visible: the first count[e]
    count = [0] * 4
    can_start = [0] * 4                      # first cycle in which the unit may start again
    depth = config.queue
    # DRAM bus and decoder
    stream: deque[int] = deque()             # DW requests in order
    ready = [0] * n
    left = bursts.copy()
    da = -1                                  # DA's request
    owner, train_start, train = -1, 0, 0     # instruction whose data phase runs, its first cycle, a number to recognise stale events
    segments: list[tuple[int, int, int, int]] = []
    fetched: deque[int] = deque()
    decoder_free = ring = outstanding = 0
    pc = ct_free = c = 0
    arrive[0] = 0
    heap: list[int] = []

    def begin(i: int) -> None:
        nonlocal owner, train_start, train
        owner, train_start, train = i, c, train + 1 & 0xFFFFFF
        heappush(heap, c + -(-left[i] * num // den) << _SHIFT | _TRAIN | train)

    while True:
        # ---- what became visible in this cycle
        limit = c + 1 << _SHIFT
        while heap and heap[0] < limit:
            event = heappop(heap)
            kind, i = event & 15 << _TYPE, event & 0xFFFFFF
            if kind == _PUSH:
                count[i] += 1
            elif kind == _POP:
                count[i] -= 1
            elif kind == _DONE:
                for s in signals[i]:
                    sem[s] += 1
                    if sem[s] > SEMAPHORE_MAX:
                        raise SemaphoreError(f"s{s} counts beyond {SEMAPHORE_MAX}").at("", i, code[i], cycle=c)
                if unit[i] == DW:
                    ring -= code[i].ring()
                    outstanding -= 1
            elif kind == _TRAIN and i == train and owner >= 0:
                i, owner = owner, -1
                segments.append((train_start, c, i, left[i]))
                if unit[i] == DW:
                    fetched.append(stream.popleft())
                else:
                    da, done[i], free[i] = -1, c - 1, c
                    can_start[DA] = c
                    for s in signals[i]:
                        sem[s] += 1
                        if sem[s] > SEMAPHORE_MAX:
                            raise SemaphoreError(f"s{s} counts beyond {SEMAPHORE_MAX}").at("", i, code[i], cycle=c)
        # ---- DRAM bus: DA first, at burst boundaries; then DW in order
        if owner < 0:
            if da >= 0 and ready[da] <= c:
                begin(da)
            elif stream and ready[stream[0]] <= c:
                begin(stream[0])
        elif da >= 0 and owner != da and ready[da] <= c:
            k = (c - train_start - 1) * den // num + 1
            boundary = train_start + -(-k * num // den)
            if k < left[owner]:
                if boundary == c:
                    segments.append((train_start, c, owner, k))
                    left[owner] -= k
                    begin(da)
                else:
                    heappush(heap, boundary << _SHIFT | _WAKE)
        # ---- decoder
        if fetched and c >= decoder_free:
            i = fetched.popleft()
            decoded[i] = c
            decoder_free = c + code[i].decode_cycles(config)
            done[i] = decoder_free - 1
            heappush(heap, decoder_free << _SHIFT | _DONE | i)
        # ---- starts, in the order DW, DA, MV, VX
        for e in range(4):
            if count[e] and c >= can_start[e]:
                i = queue[e][0]
                for s in waits[i]:
                    if not sem[s]:
                        break
                else:
                    if e == DW:
                        need = code[i].ring()
                        if outstanding >= config.outstanding or ring + need > config.ring_bytes:
                            continue
                        ring += need
                        outstanding += 1
                        stream.append(i)
                        ready[i] = c + 1 + config.latency
                        can_start[e] = free[i] = c + 1
                        heappush(heap, ready[i] << _SHIFT | _WAKE)
                    elif e == DA:
                        da, ready[i] = i, c + code[i].ready(config)
                        can_start[e] = 1 << 62
                        heappush(heap, ready[i] << _SHIFT | _WAKE)
                    else:
                        busy, latency = both[i]
                        can_start[e] = free[i] = c + busy
                        done[i] = c + latency - 1
                        heappush(heap, c + latency << _SHIFT | _DONE | i)
                        if busy != latency:
                            heappush(heap, c + busy << _SHIFT | _WAKE)
                    for s in waits[i]:
                        sem[s] -= 1
                    start[i] = c
                    queue[e].popleft()
                    heappush(heap, c + 1 << _SHIFT | _POP | e)
        # ---- fetch
        if pc < n and c >= ct_free:
            e = unit[pc]
            if e != CT:
                if count[e] < depth:
                    queue[e].append(pc)
                    arrive[pc] = c + 1
                    heappush(heap, c + 1 << _SHIFT | _PUSH | e)
                    pc, ct_free = pc + 1, c + 1
            else:
                for s in waits[pc]:
                    if not sem[s]:
                        break
                else:
                    for s in waits[pc]:
                        sem[s] -= 1
                    ct_free = c + both[pc][1]
                    start[pc], done[pc], free[pc] = c, ct_free - 1, ct_free
                    heappush(heap, ct_free << _SHIFT | _DONE | pc)
                    pc += 1
            if pc < n and ct_free > c and unit[pc] == CT:
                arrive[pc] = ct_free
        if not heap:
            break
        c = heap[0] >> _SHIFT
    if pc < n or any(queue):
        raise deadlock(code, config, pc, [list(q) for q in queue], sem, c)
    as_array = np.array
    return Timing(as_array(unit), as_array(arrive), as_array(start), as_array(done), as_array(free), as_array(decoded), tuple(segments),
                  max(done) + 1, as_array(bursts))


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
