"""The same bytes on emulator and core: every instruction's first and last cycle, and every memory at HALT."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from nnac.emulator.hazards import check_addresses, check_races
from nnac.emulator.memory import Memories
from nnac.emulator.timing import Timing, check_code, simulate
from nnac.isa import Instruction, MachineConfig, decode_all, encode_all
from nnac.rtl.machine import CoreMachine, Run


@define
class Case:
    """One entry and what the memories hold before it runs.  ``scratch``: bytes of DRAM that STA may write, at the end
    of ``dram``.
    """

    config: MachineConfig
    code: Sequence[Instruction]
    dram: NDArray
    a: NDArray
    w: NDArray
    index: NDArray
    luts: NDArray
    scratch: int = 0


@define
class Result:
    """What the emulator says: time, and the memories after it."""

    timing: Timing
    memories: Memories = field(repr=False)


def emulated(case: Case, time: Callable[[Sequence[Instruction], MachineConfig], Timing] = simulate) -> Result:
    """Interpret the case, from its bytes.  MachineError: it is no legal program."""
    code = decode_all(encode_all(case.code))
    memories = Memories(case.config, case.dram, 1, (len(case.dram) - case.scratch, len(case.dram)))
    memories.a[0], memories.w[:], memories.index[:], memories.luts[:] = case.a, case.w, case.index, case.luts
    check_code(code, case.config)
    check_addresses(code, case.config, memories.sizes, memories.scratch_range)
    timing = time(code, case.config)
    check_races(code, timing, case.config, memories.sizes)
    for i in code:
        memories.execute(i)
    return Result(timing, memories)


def on_core(machine: CoreMachine, case: Case, limit: int = 1 << 26) -> Run:
    """Run the case on a core whose accumulators are zero.  CoreFault: it does not end well."""
    machine.reset()
    machine.a[:], machine.w[:], machine.index[:], machine.luts[:] = case.a, case.w, case.index, case.luts
    machine.dram[: len(case.dram)] = case.dram
    return machine.run(case.code, limit=limit)


def differences(machine: CoreMachine, run: Run, case: Case, want: Result) -> list[str]:
    """One line for each thing that differs: the first instruction whose time does, the first place of each memory."""
    out = []
    for what, got, expected in (("starts", run.start, want.timing.start), ("is done", run.done, want.timing.done)):
        if (at := np.flatnonzero(got != expected)).size:
            k = int(at[0])
            out.append(
                f"[{k}] {type(case.code[k]).__name__} {what} in cycle {got[k]}, not {expected[k]} "
                f"({at.size} instructions differ)"
            )
    m = want.memories
    first = len(case.dram) - case.scratch
    places = dict(
        A=(machine.a, m.a[0]),
        W=(machine.w, m.w),
        index=(machine.index, m.index),
        LUT=(machine.luts, m.luts),
        ACC=(machine.acc, m.acc[0]),
        DRAM=(machine.dram[first : first + case.scratch], m.scratch[0]),
    )
    for name, (got, expected) in places.items():
        if (found := np.argwhere(got != expected)).size:
            place = tuple(int(v) for v in found[0])
            out.append(f"{name}{list(place)} is {got[place]}, not {expected[place]} ({len(found)} differ)")
    return out
