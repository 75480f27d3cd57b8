"""Random instruction programs for the timing tests: of the shape that a compiler makes, and stress programs that no
compiler would make."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from nnac.isa import CPY, FIL, GTH, HALT, HOST, LDA, LDT, LDW, LSTM, MVM, PROF, RQ, STA, MachineConfig
from nnac.isa.config import SEMAPHORES

S = dict(filled=1, freed=2, params=4, used=8, products=16, bank=32, vector=64, host=128)


def random_config(rng: np.random.Generator) -> MachineConfig:
    """Machines of all kinds: bandwidths that do and do not divide, latencies from none to long, queues from 1."""
    lanes = int(rng.choice([4, 16, 64]))
    turnaround = 3 * int(rng.bit_generator.state["state"]["state"] & 1)          # the stream of draws stays what it was
    return MachineConfig(
        lanes=lanes, columns=int(rng.choice([1, 4])), vector=max(1, lanes // 4), stream_words=64, pinned_words=64,
        ring_bytes=int(rng.choice([512, 2048, 8192])), a_bytes=8192, latency=int(rng.choice([0, 1, 7, 40, 250])),
        burst=int(rng.choice([16, 64, 128])), burst_cycles=Fraction(int(rng.integers(1, 60)), int(rng.integers(1, 8))) +
                         1,
        decode_factor=int(rng.choice([1, 2])), queue=int(rng.choice([1, 2, 4, 8])),
                         outstanding=int(rng.choice([1, 2, 8])),
        rates=(Fraction(1), Fraction(1), Fraction(int(rng.choice([1, 2]))), Fraction(3, 2), Fraction(4)),
        turnaround=turnaround)


def compiled(seed: int, machine: MachineConfig | None = None) -> tuple[list, MachineConfig]:
    """Row bands of double-buffered tiles, parameters by DMA, requantisation, LSTM steps, synchronised as a compiler
    would."""
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    config = machine or config
    code, tiles, bands, address = [], 0, int(rng.integers(1, 8)), 0
    lanes = config.lanes
    for band in range(bands):
        code.append(LDA(dram=1 << 20, dst=0, bytes=8 + 8 * lanes, wait=S["used"] if band else 0, signal=S["params"]))
        parts = int(rng.integers(1, 5))
        for t in range(parts):
            if rng.random() < 0.1:
                code.append(LDT(dram=(2 << 20) + 16 * int(rng.integers(100)), bytes=int(rng.integers(1, 80)),
                                steps=int(rng.integers(0, 60))))
            words = int(rng.choice([1, 2, 5, 16, 31, 32]))
            size = max(1, int(words * lanes * rng.choice([0.1, 0.5, 1.0])))
            word = 32 * (tiles % 2)
            code.append(LDW(dram=address, bytes=min(size, config.ring_bytes), word=word, rows=lanes, cols=words,
                            live=words,
                            steps=words + int(rng.integers(3)), wait=S["freed"] if tiles >= 2 else 0,
                            signal=S["filled"]))
            address += -(-size // 16) * 16
            last = t == parts - 1
            wait = S["filled"] | (S["bank"] if t == 0 and band >= 2 else 0)
            code.append(MVM(word=word, words=words, act=1024, span=words,
                            columns=int(rng.integers(1, config.columns + 1)), bank=band % 2,
                            clear=int(t == 0), weights=int(rng.choice([0, 2, 3])), act16=int(rng.random() < 0.2),
                            wait=wait,
                            signal=S["freed"] | (S["products"] if last else 0)))
            tiles += 1
        code.append(RQ(dst=2048, params=0, rows=lanes, bank=band % 2, out=1, wait=S["products"] | S["params"],
                       signal=S["bank"] | S["used"]))
        if rng.random() < 0.6:
            code.append(LSTM(pre=2048, cell=3000, dst=3200, params=0, units=max(1, lanes // 4)))
        if rng.random() < 0.2:
            code.append(STA(src=4096, dram=3 << 20, bytes=4 * int(rng.integers(1, 200))))
        if rng.random() < 0.2:
            code.append(PROF(id=band))
    return [*code, HALT()], config


def stress(seed: int, machine: MachineConfig | None = None) -> tuple[list, MachineConfig]:
    """Timing only: bursts of short instructions with few tokens, so that queues fill, units tie, and both masters want
    the bus.

    A token is awaited only if an earlier instruction gives it, so no program deadlocks by itself; data races are
    allowed.
    """
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    config = machine or config
    code, have = [], [0] * SEMAPHORES
    for _ in range(int(rng.integers(1, 25))):
        kind = int(rng.choice(6, p=rng.dirichlet([1] * 6)))
        for _ in range(int(rng.integers(1, 10))):
            wait = signal = 0
            for s in range(SEMAPHORES):
                if have[s] and rng.random() < 0.15:
                    wait |= 1 << s
                    have[s] -= 1
            for s in range(SEMAPHORES):
                if have[s] < 100 and rng.random() < 0.15:
                    signal |= 1 << s
                    have[s] += 1
            both = dict(wait=wait, signal=signal)
            dram = 16 * int(rng.integers(1 << 12))
            if kind == 0:
                code.append(LDW(dram=dram, bytes=int(rng.integers(0, 500)), rows=4, cols=1, live=1,
                                steps=int(rng.integers(0, 40)), **both))
            elif kind == 1:
                some = int(rng.integers(3))
                size = 4 * int(rng.integers(0, 100))
                code.append(LDA(dram=dram, bytes=size, **both) if some == 0 else STA(dram=dram, bytes=size, **both)
                            if some == 1
                            else GTH(dram=dram, pitch=64, bytes=size, **both))
            elif kind == 2:
                code.append(MVM(words=int(rng.integers(1, 40)), weights=int(rng.integers(5)),
                                act16=int(rng.integers(2)), **both))
            elif kind == 3:
                code.append(FIL(bytes=4 * int(rng.integers(0, 50)), **both) if rng.random() < 0.5
                            else CPY(bytes=int(rng.integers(0, 50)), count=int(rng.integers(1, 5)), **both))
            elif kind == 4:
                code.append(PROF(id=1, **both) if rng.random() < 0.5
                            else HOST(id=1, time=int(rng.integers(0, 30)), **both))
            else:
                code.append(LDT(dram=dram, bytes=int(rng.integers(0, 60)), steps=int(rng.integers(0, 30)), **both))
    return [*code, HALT()], config


def full(seed: int, machine: MachineConfig | None = None) -> tuple[list, MachineConfig]:
    """Timing only: streams that fill the ring to its last granule, again and again."""
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    config = machine or config
    code: list = []
    for _ in range(3):
        granules = config.ring_bytes // 16
        parts = min(int(rng.integers(1, 5)), config.outstanding, granules)
        cuts = sorted(int(v) for v in rng.choice(np.arange(1, granules), parts - 1, replace=False))
        for size in np.diff([0, *cuts, granules]):
            code.append(LDW(dram=16 * int(rng.integers(1 << 12)), bytes=16 * int(size) - int(rng.integers(16)),
                            rows=4, cols=1, live=1, steps=int(rng.integers(0, 40))))
    return [*code, HALT()], config
