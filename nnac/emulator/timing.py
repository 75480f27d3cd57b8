"""Time, fast: the clocked rules of `clocked`, evaluated only in cycles in which something can change.

Between two such *wake* cycles no register changes, so nothing that the rules read changes, so evaluating them would do
nothing: the model is exact by construction, and `tests/test_emulator_timing.py` compares it with the rules evaluated in
every cycle. Time depends on instructions and configuration only, never on data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.emulator.errors import CodeError, DeadlockError, MachineError, SemaphoreError
from nnac.emulator.jit import njit
from nnac.isa import UNITS, DmaInstruction, Instruction, MachineConfig, StreamInstruction
from nnac.isa.base import bits
from nnac.isa.config import SEMAPHORE_MAX, SEMAPHORES
from nnac.isa.rules import CODE, Case

DW, DA, MV, VX, CT = range(5)
_NUMBER = {name: k for k, name in enumerate(UNITS)}
NEVER = 1 << 62
Integers = list[int]                          # an array of int64 in the compiled loop
_FINE, _STUCK, _OVERFLOW = range(3)
# places in the loop's ``state``: what it leaves behind besides times
_PC, _CYCLE, _SEGMENTS, _CULPRIT, _SEM = range(5)            # from _SEM on the semaphores,
_STARTED = _SEM + SEMAPHORES                                 # from here on the instructions started, by unit
# instructions from which the compiled loop is called: below, it is not worth loading
WORTH_COMPILING = 2000


@frozen(eq=False)
class Timing:
    """When everything happened.  All arrays by instruction index, cycles from 0.

    arrive   first cycle in which the instruction stands in its unit's queue (CT: in which it is next to be fetched)
    start, done   first and last cycle of the instruction       free
    first cycle in which its unit could start the next
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

    A stream (LDW, LDT) that begins in the burst in which the last one ended does not read it again; every transfer is a
    burst at least.
    """
    out, held = [], -1
    for i in code:
        if isinstance(i, StreamInstruction):
            first, last = i.dram // config.burst, (i.dram + max(i.bytes, 1) - 1) // config.burst
            out.append(max(1, last - first + 1 - (first == held)))
            held = last
        else:
            out.append(i.bursts(config) if isinstance(i, DmaInstruction) else 0)
    return out


def check_code(code: Sequence[Instruction], config: MachineConfig) -> None:
    """CodeError at the first instruction that the rules of code, or its own, forbid (`nnac.isa.rules`)."""
    if not code:
        raise CodeError("an entry ends in HALT")
    for at, i in enumerate(code):
        case = Case(i, config, at == len(code) - 1)
        wrong = next((w for r in i.rules if (w := r.broken(i, config))),
                     "") or next((w for r in CODE if (w := r.broken(case))), "")
        if wrong:
            raise CodeError(wrong).at("", at, i)


def simulate(code: Sequence[Instruction], config: MachineConfig, *, compiled: bool | None = None,
             checked: bool = False) -> Timing:
    """Start and done cycle of every instruction of one entry, from a machine at rest.  MachineError names the
    instruction.

    compiled   use the loop compiled by numba (None: if there is numba and the entry is long); the loop is the same
               source either way
    checked    `check_code` has passed already
    """
    if not checked:
        check_code(code, config)
    n = len(code)
    unit, busy, latency, need, extra = [0] * n, [0] * n, [0] * n, [0] * n, [0] * n
    for at, i in enumerate(code):
        unit[at] = _NUMBER[i.unit]
        if isinstance(i, StreamInstruction):
            need[at], extra[at] = i.ring(), i.decode_cycles(config)              # ring bytes; cycles in the decoder
        elif isinstance(i, DmaInstruction):
            extra[at] = i.ready(config)                                          # from start to the data phase
        else:
            busy[at], latency[at] = i.cycles(config)
    wait, wait_at = _flat([i.wait for i in code])
    signal, signal_at = _flat([i.signal for i in code])
    bursts = stream_bursts(code, config)
    order: list[int] = []
    first = [0] * 6
    for e in range(5):
        order += [i for i in range(n) if unit[i] == e]
        first[e + 1] = len(order)
    most = first[1] + 2 * (first[2] - first[1]) + 1
    sizes = [config.ring_bytes, config.outstanding, config.queue, config.latency, config.burst_cycles.numerator,
             config.burst_cycles.denominator]
    out = [[0] * n, [-1] * n, [-1] * n, [0] * n, [-1] * n]                       # arrive, start, done, free, decode
    segments = [[0] * most for _ in range(4)]
    state = [0] * (_STARTED + len(UNITS))
    given = [unit, wait, wait_at, signal, signal_at, busy, latency, bursts.copy(), need, extra, order, first, sizes,
             *out, *segments, state]
    if compiled is None:
        compiled = njit is not None and n >= WORTH_COMPILING
    if compiled:
        arrays = [np.array(g, np.int64) for g in given]
        status = _compiled()(*arrays)
    else:
        status = _loop(*given)
        arrays = [np.array(g, np.int64) for g in given]
    arrive, start, done, free, decoded = arrays[13:18]
    state = arrays[-1].tolist()
    if status == _OVERFLOW:
        at = state[_CULPRIT]
        raise SemaphoreError(f"a semaphore that it signals counts beyond {SEMAPHORE_MAX}").at("", at, code[at],
            cycle=state[_CYCLE])
    if status == _STUCK:
        pc, started = state[_PC], state[_STARTED:]
        queues = [[i for i in order[first[e] + started[e]: first[e + 1]] if i < pc] for e in range(4)]
        raise deadlock(code, config, pc, queues, state[_SEM:_STARTED], state[_CYCLE])
    bus = tuple(zip(*(g[: state[_SEGMENTS]].tolist() for g in arrays[18:22]), strict=True))
    return Timing(np.array(unit), arrive, start, done, free, decoded, bus, int(done.max()) + 1, np.array(bursts))


def _flat(masks: list[int]) -> tuple[list[int], list[int]]:
    """Semaphores of each mask, end to end, and where each mask's begin."""
    known = {m: bits(m) for m in set(masks)}
    flat: list[int] = []
    at = [0]
    for m in masks:
        flat += known[m]
        at.append(len(flat))
    return flat, at


def _loop(unit: Integers, wait: Integers, wait_at: Integers, signal: Integers, signal_at: Integers, busy: Integers,
          latency: Integers, left: Integers, need: Integers, extra: Integers, order: Integers, first: Integers,
          sizes: Integers, arrive: Integers, start: Integers, done: Integers, free: Integers, decoded: Integers,
          seg_first: Integers, seg_end: Integers, seg_instruction: Integers, seg_bursts: Integers,
          state: Integers) -> int:
    """The wake cycles, on plain sequences of integers (lists, or arrays under numba).  Returns _FINE, _STUCK or
    _OVERFLOW.

    Fetch needs no wake cycles: the k-th push into a queue of depth Q happens one cycle after the (k-Q)-th start there,
    or one after the push before it.  Each other actor has one time at which it must be looked at next, NEVER if only
    another actor's event can help it.
    """
    room, limit, depth, dram_latency, num, den = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    n = len(unit)
    sem = state[_SEM:_STARTED]
    look = [NEVER, NEVER, NEVER, NEVER, NEVER]                                   # when to look at DW, DA, MV, VX, CT
    # when the oldest running MV, VX, CT instruction signals
    token2 = token3 = token4 = NEVER
    signalled2, signalled3 = first[2], first[3]                                  # places in ``order``
    pushed = [0, 0, 0, 0, 0]
    popped = [0, 0, 0, 0, 0]
    can_start = [0, 0, 0, 0, 0]
    blocked = 0                                                                  # units that lack a semaphore
    # DW: requested, on the bus, in the ring, decoded (places)
    request = granted = fetched = finished = first[0]
    da, da_ready, owner, train, bus_at, decode_at = -1, 0, -1, 0, NEVER, NEVER
    ring = outstanding = segments = pc = fetch_free = c = 0
    stuck, status = -1, _FINE
    while status == _FINE:
        # ---- fetch, as far as it is determined
        while pc < n and stuck < 0:
            e = unit[pc]
            if e == 4:
                if pushed[4] == popped[4]:
                    arrive[pc] = look[4] = fetch_free
                    pushed[4] += 1
                break
            k = pushed[e] - depth
            if k >= popped[e]:
                stuck = e
                break
            t = fetch_free
            if k >= 0 and start[order[first[e] + k]] >= t:
                t = start[order[first[e] + k]] + 1
            arrive[pc] = t + 1
            if pushed[e] == popped[e]:
                look[e] = max(t + 1, can_start[e])
            pushed[e] += 1
            pc += 1
            fetch_free = t + 1
        event = min(token2, token3, token4, bus_at, decode_at)
        t = min(event, look[0], look[1], look[2], look[3], look[4])
        if t >= NEVER:
            break
        c = t
        # ---- what became visible in this cycle
        # only to apply the tokens of up to five units in one place
        culprit = signals = -1
        for source in range(5 if event == c else 0):
            if source == 0:
                if decode_at != c:
                    continue
                decode_at = NEVER
                culprit = order[finished]
                finished += 1
                ring -= need[culprit]
                outstanding -= 1
                if blocked & 1:
                    look[0] = c
            elif source == 1:
                if bus_at != c or owner < 0 or train + -(-left[owner] * num // den) != c:
                    continue
                culprit, owner = owner, -1
                seg_first[segments], seg_end[segments], seg_instruction[segments], seg_bursts[segments] = (train, c,
                        culprit, left[culprit])
                segments += 1
                if unit[culprit] == 0:
                    fetched += 1
                    continue
                da, done[culprit], free[culprit] = -1, c - 1, c
                can_start[1] = c
                if popped[1] < pushed[1]:
                    look[1] = max(c, arrive[order[first[1] + popped[1]]])
            elif source == 2:
                if token2 != c:
                    continue
                culprit = order[signalled2]
                signalled2 += 1
                token2 = done[order[signalled2]] + 1 if signalled2 < first[2] + popped[2] else NEVER
            elif source == 3:
                if token3 != c:
                    continue
                culprit = order[signalled3]
                signalled3 += 1
                token3 = NEVER
            else:
                if token4 != c:
                    continue
                culprit, token4 = order[first[4] + popped[4] - 1], NEVER
            for k in range(signal_at[culprit], signal_at[culprit + 1]):
                s = signal[k]
                sem[s] += 1
                signals = c
                if sem[s] > SEMAPHORE_MAX:
                    status = _OVERFLOW
                    state[_CULPRIT] = culprit
        if signals == c and blocked:
            for e in range(5):
                if blocked >> e & 1:
                    look[e] = c
        # ---- DRAM bus: DA first, at burst boundaries; then DW in order
        if owner < 0 or bus_at == c:
            grant = -1
            bus_at = NEVER
            if owner < 0:
                if da >= 0 and da_ready <= c:
                    grant = da
                elif granted < request:
                    t = start[order[granted]] + 1 + dram_latency
                    if t <= c:
                        grant = order[granted]
                        granted += 1
                    else:
                        bus_at = min(bus_at, t)
            elif da >= 0 and owner != da and da_ready <= c:
                k = (c - train - 1) * den // num + 1
                boundary = train + -(-k * num // den)
                if k < left[owner] and boundary == c:
                    seg_first[segments], seg_end[segments], seg_instruction[segments], seg_bursts[segments] = (train,
                            c, owner, k)
                    segments += 1
                    left[owner] -= k
                    granted -= 1
                    grant = da
                elif k < left[owner]:
                    bus_at = boundary
            if grant >= 0:
                owner, train = grant, c
            if owner >= 0:
                bus_at = min(bus_at, train + -(-left[owner] * num // den))
            if da >= 0 and owner != da and da_ready > c:
                bus_at = min(bus_at, da_ready)
        # ---- decoder
        if decode_at == NEVER and finished < fetched:
            i = order[finished]
            decoded[i] = c
            decode_at = c + extra[i]
            done[i] = decode_at - 1
        # ---- starts, in the order DW, DA, MV, VX, CT
        for e in range(5):
            if look[e] != c:
                continue
            i = order[first[e] + popped[e]]
            t = NEVER
            ready = True
            for k in range(wait_at[i], wait_at[i + 1]):
                if sem[wait[k]] == 0:
                    ready = False
            if e == 0 and ready and (outstanding >= limit or ring + need[i] > room):
                ready = False
            if not ready:
                blocked |= 1 << e
            else:
                blocked &= ~(1 << e)
                for k in range(wait_at[i], wait_at[i + 1]):
                    sem[wait[k]] -= 1
                start[i] = c
                popped[e] += 1
                if stuck == e:
                    stuck = -1
                if e == 0:
                    ring += need[i]
                    outstanding += 1
                    request += 1
                    can_start[0] = free[i] = c + 1
                    if owner < 0:
                        bus_at = min(bus_at, c + 1 + dram_latency)
                elif e == 1:
                    da, da_ready = i, c + extra[i]
                    can_start[1] = NEVER
                    bus_at = min(bus_at, da_ready)
                else:
                    can_start[e] = free[i] = c + busy[i]
                    done[i] = c + latency[i] - 1
                    if e == 2:
                        token2 = min(token2, done[i] + 1)
                    elif e == 3:
                        token3 = done[i] + 1
                    else:
                        token4 = fetch_free = done[i] + 1
                        pc += 1
                if popped[e] < pushed[e] and e != 1:
                    t = max(arrive[order[first[e] + popped[e]]], can_start[e])
            look[e] = t
    state[_PC], state[_CYCLE], state[_SEGMENTS] = pc, c, segments
    for k in range(len(sem)):
        state[_SEM + k] = sem[k]
    for e in range(5):
        state[_STARTED + e] = popped[e]
        if pushed[e] != popped[e] and status == _FINE:
            status = _STUCK
    return _STUCK if status == _FINE and pc < n else status


@cache
def _compiled() -> Callable[..., int]:
    assert njit is not None, "who calls this has asked whether there is numba"
    return njit(cache=True, nogil=True)(_loop)


def deadlock(code: Sequence[Instruction], config: MachineConfig, pc: int, queues: list[list[int]], sem: list[int],
             cycle: int) -> MachineError:
    """Who waits for what, in words."""
    lines, first = [], None
    for name, queue in zip(UNITS, queues, strict=False):
        if queue:
            i = queue[0]
            first = i if first is None else min(first, i)
            lacking = [f"s{s}" for s in bits(code[i].wait) if not sem[s]]
            lines.append(f"{name} waits for {', '.join(lacking) or 'room in the ring'} with [{i}] "
                         f"{type(code[i]).__name__}")
    if pc < len(code):
        e = UNITS.index(code[pc].unit)
        if e == CT:
            lines.append(f"CT waits for {', '.join(f's{s}' for s in bits(code[pc].wait) if not sem[s])} with [{pc}]")
        else:
            lines.append(f"fetch waits for room in the queue of {UNITS[e]} with [{pc}]")
        first = pc if first is None else first
    assert first is not None, "a machine that is stuck has an instruction that waits"
    return DeadlockError("; ".join(lines)).at("", first, code[first], cycle=cycle)
