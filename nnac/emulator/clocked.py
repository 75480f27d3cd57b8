"""Time, slow: the clocked rules themselves, all of them in every cycle.  The specification that the fast model and an
RTL are held to.

Every name of `Registers` is a register: rules of cycle c read its value at the beginning of c and what they change is
seen in c + 1. The one exception is said where it is: units that start in the same cycle take semaphores in the order
DW, DA, MV, VX, CT.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from nnac.emulator.errors import SemaphoreError
from nnac.isa import UNITS, DmaInstruction, Instruction, MachineConfig, StreamInstruction
from nnac.isa.base import bits
from nnac.isa.config import SEMAPHORE_MAX, SEMAPHORES


@define
class Transfer:
    """A request on its way to or on the bus."""

    instruction: int
    wait: int                # cycles until its data phase may begin
    bursts: int              # left


@define
class Registers:
    queues: dict[str, list[int]] = field(factory=lambda: {u: [] for u in UNITS[:4]})
    busy: dict[str, int] = field(factory=lambda: {u: 0 for u in UNITS})        # cycles until the unit may start
    sem: list[int] = field(factory=lambda: [0] * SEMAPHORES)
    # [instruction, cycles left] of MV, VX, CT and the decoder
    running: list[list[int]] = field(factory=list)
    stream: list[Transfer] = field(factory=list)                               # DW's requests in order
    dma: Transfer | None = None
    granted: str = ""                                                          # unit that has the bus: "", "DW" or "DA"
    # a burst has just ended, or there is none
    between: bool = True
    credit: int = 0                                                            # of the burst that is being moved
    fetched: list[int] = field(factory=list)
    decoding: int = 0                                                          # cycles left in the decoder
    ring: int = 0
    outstanding: int = 0
    pc: int = 0
    held: int = -1                                                             # burst in which DW's last request ended


def run(code: Sequence[Instruction], config: MachineConfig, limit: int = 10**7) -> tuple[list[int], list[int]]:
    """(start, done) of every instruction; -1 where the program stopped for ever before.  Cycle by cycle.

    SemaphoreError: a semaphore counts beyond its greatest value.
    """
    r = Registers()
    streams = {k: i for k, i in enumerate(code) if isinstance(i, StreamInstruction)}
    start, done = [-1] * len(code), [-1] * len(code)
    num, den = config.burst_cycles.numerator, config.burst_cycles.denominator
    for cycle in range(limit):
        if r.pc == len(code) and min(done) >= 0:
            break
        finished: list[int] = []                       # instructions whose last cycle is this one
        freed: list[tuple[str, int]] = []
        pushed: list[tuple[str, int]] = []
        arrived: list[int] = []                        # streams whose last byte comes in this cycle

        # 1. The bus moves one cycle's worth of the burst that it is in; arbitration only between bursts, DA before DW.
        if r.between:
            if r.dma and r.dma.wait == 0:
                r.granted, r.credit = "DA", 0
            elif not r.granted and r.stream and r.stream[0].wait == 0:
                r.granted, r.credit = "DW", 0
        keep, between = r.granted, not r.granted
        if r.granted:
            transfer = r.dma if r.granted == "DA" else r.stream[0]
            assert transfer is not None, "the bus is granted to a request"
            r.credit += den
            if r.credit >= num:
                r.credit -= num
                transfer.bursts -= 1
                # DA may cut in after each burst of DW; the fraction of a cycle is kept only if the same transfer goes
                # on
                between = r.granted == "DW"
                if transfer.bursts == 0:
                    between = True
                    keep = ""
                    if r.granted == "DA":
                        finished.append(transfer.instruction)
                    else:
                        arrived.append(transfer.instruction)

        # 2. The decoder takes the next tile that is complete.
        if r.fetched and r.decoding == 0:
            i = r.fetched.pop(0)
            r.decoding = streams[i].decode_cycles(config)
            r.running.append([i, r.decoding])

        # 3. Units start.  ``taken`` makes the order of units matter within a cycle.
        taken = [0] * SEMAPHORES
        new_stream, new_dma = [], None
        for unit in UNITS:
            if unit == "CT":
                if r.busy["CT"] or r.pc >= len(code):
                    continue
                i = r.pc
                if code[i].unit != "CT":
                    target = code[i].unit
                    if len(r.queues[target]) < config.queue:
                        pushed.append((target, i))
                    continue
            else:
                if r.busy[unit] or not r.queues[unit]:
                    continue
                i = r.queues[unit][0]
            wanted = bits(code[i].wait)
            if any(r.sem[s] - taken[s] <= 0 for s in wanted):
                continue
            if unit == "DW" and (r.outstanding >= config.outstanding or r.ring + streams[i].ring() > config.ring_bytes):
                continue
            for s in wanted:
                taken[s] += 1
            start[i] = cycle
            started = code[i]
            if isinstance(started, StreamInstruction):
                first, last = started.dram // config.burst, (started.dram + max(started.bytes, 1) - 1) // config.burst
                new_stream.append(Transfer(i, 1 + config.latency, max(1, last - first + 1 - (first == r.held))))
                r.held = last
            elif isinstance(started, DmaInstruction):
                new_dma = Transfer(i, started.ready(config), started.bursts(config))
            else:
                busy, latency = started.cycles(config)
                r.running.append([i, latency])
            freed.append((unit, 1 if unit == "DW" else 1 << 60 if unit == "DA" else busy))

        # 4. Counters run down.
        for item in r.running:
            item[1] -= 1
            if item[1] == 0:
                finished.append(item[0])
        r.running = [item for item in r.running if item[1]]
        r.decoding = max(0, r.decoding - 1)

        # 5. The end of the cycle: everything becomes visible.
        for unit, n in freed:
            r.busy[unit] = n
            if unit != "CT":
                r.queues[unit].pop(0)
            else:
                r.pc += 1
        for unit, i in pushed:
            r.queues[unit].append(i)
            r.pc += 1
        for unit in r.busy:
            r.busy[unit] = max(0, r.busy[unit] - 1)
        for transfer in r.stream + ([r.dma] if r.dma else []):
            transfer.wait = max(0, transfer.wait - 1)
        r.granted, r.between = keep, between
        if arrived:
            r.stream.pop(0)
            r.fetched += arrived
        for transfer in new_stream:
            transfer.wait -= 1
            r.stream.append(transfer)
            r.outstanding += 1
            r.ring += streams[transfer.instruction].ring()
        if new_dma:
            new_dma.wait -= 1
            r.dma = new_dma
        for i in finished:
            done[i] = cycle
            if code[i].unit == "DA":
                r.dma, r.busy["DA"] = None, 0
            if code[i].unit == "DW":
                r.ring -= streams[i].ring()
                r.outstanding -= 1
            for s in bits(code[i].signal):
                r.sem[s] += 1
        for s, k in enumerate(taken):
            r.sem[s] -= k
            if r.sem[s] > SEMAPHORE_MAX:
                at = next(i for i in finished if code[i].signal >> s & 1)
                raise SemaphoreError(f"a semaphore that it signals counts beyond {SEMAPHORE_MAX}").at("", at, code[at],
                    cycle=cycle + 1)
        if not (finished or pushed or freed or r.running or r.stream or r.dma or r.fetched or r.granted
                or any(r.busy.values())):
            break                                      # at rest, or stuck for ever
    return start, done
