"""The simulated core with its memories: an entry's bytes in, every instruction's first and last cycle and the memories
out.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.arith import SEGMENTS
from nnac.errors import UserError
from nnac.isa import UNITS, Instruction, MachineConfig, encode_all
from nnac.rtl.build import Built, Event, Pointers, _Host, build, load, sizes
from nnac.rtl.params import lacks

STARTED, FINISHED, MARK, HOST = range(4)
CONTROL, DATA = 1, 2  # bits of the core's ``error``
STATES = (
    "",
    "the core did not halt within the limit of cycles",
    "the core reports an error",
    "an address beyond its memory",
    "the host gave up",
)


class CoreFault(UserError):
    """The core stopped before HALT, or did what no program may make it do."""


@frozen(eq=False)
class Run:
    """One run of an entry: first and last cycle of each instruction (-1: never), cycles in all, profiling marks (id,
    cycle).
    """

    start: NDArray
    done: NDArray
    cycles: int
    marks: tuple[tuple[int, int], ...]


class CoreMachine:
    """One core with its memories, as NumPy arrays that the simulator works on in place.

    mutant   which planted fault is on (of a build that has them)
    a  uint8      dram  uint8      w  int8 [words, lanes], index  uint16 [words]: views of one memory      luts  int16
    [slots, 513]
    """

    def __init__(self, config: MachineConfig, dram: NDArray, built: Built | None = None, *, mutant: int = 0) -> None:
        self.config, self.built = config, built or build(config)
        self._lib = load(self.built)
        self._mutant = mutant
        self._core: ctypes.c_void_p | None = ctypes.c_void_p(self._lib.core_new())
        self._cycles, self._seconds = 0, 0.0
        row = sizes(config)["W_WORDS"]
        self.a = np.zeros(config.a_bytes, np.uint8)
        self.dram = np.array(dram, np.uint8)
        self._ring = np.zeros(config.ring_bytes, np.uint8)
        self._w = np.zeros((config.words, row), np.uint32)
        self.luts = np.zeros((config.luts, SEGMENTS + 1), np.int16)
        self._table = np.zeros((config.decoder_tables, 2, 1024), np.uint32)
        self.connect()

    def connect(self) -> None:
        """Tell the simulator where the memories are (again, if one has been replaced)."""
        self._pointers = Pointers(
            *(v.ctypes.data for v in (self.a, self.dram, self._ring, self._w, self.luts, self._table)),
            self.a.nbytes,
            self.dram.nbytes,
        )
        self._lib.core_memories(self._core, ctypes.byref(self._pointers))
        if self._mutant:
            self._lib.core_mutant(self._core, self._mutant)

    def __del__(self) -> None:
        if getattr(self, "_core", None):
            self._lib.core_delete(self._core)
            self._core = None

    def reset(self) -> None:
        """A core fresh from the factory: accumulators and all registers are zero; its memories are left as they are."""
        self._cycles = self.cycles
        self._lib.core_delete(self._core)
        self._core = ctypes.c_void_p(self._lib.core_new())
        self.connect()

    def write_coverage(self, path: Path) -> None:
        """The counts of every line that ran so far, of all cores of this library, as Verilator writes them."""
        self._lib.core_coverage(str(path).encode())

    @property
    def index(self) -> NDArray:
        return self._w.view(np.uint16)[:, 0]

    @property
    def w(self) -> NDArray:
        return self._w.view(np.int8)[:, 2 : 2 + self.config.lanes]

    @property
    def acc(self) -> NDArray:
        """int64 [banks, columns, lanes]."""
        c = self.config
        out = np.zeros((c.banks, c.columns, c.lanes), np.int64)
        self._lib.core_accumulators(self._core, out.ctypes.data)
        return out

    @property
    def cycles(self) -> int:
        """Simulated so far."""
        return self._cycles + int(self._lib.core_cycles(self._core))

    @property
    def seconds(self) -> float:
        """Of a processor, spent simulating them."""
        return self._seconds

    def run(
        self,
        code: Sequence[Instruction],
        *,
        limit: int = 1 << 40,
        host: Callable[[int], None] | None = None,
        data: bytes | None = None,
        time_only: bool = False,
    ) -> Run:
        """Run one entry from a core at rest.  CoreFault: it does not end well.

        code  says which unit each instruction belongs to; ``data``: the bytes that run (default: the code, encoded)
        time_only  what is loaded is no weight stream: let the decoder take what it finds
        """
        if missing := lacks(code):
            raise CoreFault(missing)
        data = encode_all(code) if data is None else data
        failed: list[BaseException] = []

        def call(part: int) -> int:
            try:
                if host is not None:
                    host(part)
            except BaseException as error:  # an exception must not pass through the simulator
                failed.append(error)
            return len(failed)

        clock = time.thread_time()                # of the processor: others may be at it, too
        status = self._lib.core_run(
            self._core, data, len(code), limit, CONTROL if time_only else CONTROL | DATA, _Host(call)
        )
        self._seconds += time.thread_time() - clock
        if failed:
            raise failed[0]
        events = ctypes.POINTER(Event)()
        n = self._lib.core_events(self._core, ctypes.byref(events))
        start, done = np.full(len(code), -1, np.int64), np.full(len(code), -1, np.int64)
        queued = {u: deque(k for k, i in enumerate(code) if i.unit == u) for u in UNITS}
        begun: dict[str, deque[int]] = {u: deque() for u in UNITS}
        marks, last = [], 0
        for event in events[:n]:
            cycle = event.cycle
            if event.kind == MARK:
                marks.append((event.value, cycle))
            for k, unit in enumerate(UNITS):
                if not event.value >> k & 1:
                    continue
                if event.kind == STARTED and queued[unit]:
                    begun[unit].append(queued[unit].popleft())
                    start[begun[unit][-1]] = cycle
                elif event.kind == FINISHED and begun[unit]:
                    done[begun[unit].popleft()] = cycle
                    last = max(last, cycle + 1)
                elif event.kind in (STARTED, FINISHED):
                    raise CoreFault(f"cycle {cycle}: {unit} reports an instruction that it does not have")
        if status:
            raise CoreFault(f"{STATES[status]}: {int((done >= 0).sum())} of {len(code)} instructions are done")
        return Run(start, done, last, tuple(marks))
