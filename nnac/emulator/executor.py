"""The emulator as an executor: a program's entry points on integers, for any number of rows, as greedy decoding calls them.

Rows run in lockstep.  A machine is made for the next power of two of rows, since search shrinks and grows its batch at every
symbol; rows that pad it compute nothing that anybody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from attrs import Factory, define, field
from numpy.typing import NDArray

from nnac.emulator.image import Image, image
from nnac.emulator.machine import Machine
from nnac.ir import Value
from nnac.program import INIT, Program

State = dict[str, NDArray]
Watch = Callable[[str, NDArray], None]


@define(eq=False)
class Emulator:
    """Keeps the protocol of `nnac.decode.integer.Executor`: values, inputs, outputs, initial_state, run.

    fast  run translated plans; False: interpret every instruction (the same integers, slower)
    """

    program: Program
    fast: bool = True
    _machines: dict[int, Machine] = field(factory=dict, init=False)
    _image: Image = field(init=False, default=Factory(lambda self: image(self.program), takes_self=True))

    @property
    def values(self) -> Mapping[str, Value]:
        return self.program.values

    def _ports(self, which: str) -> dict[str, tuple[str, ...]]:
        single = {n: e for n, e in self.program.entries.items() if n != INIT and e.steps == 1}
        return {e.model_entry: tuple(p.value for p in getattr(e, which)) for e in single.values()}

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        return self._ports("inputs")

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return self._ports("outputs")

    def machine(self, rows: int) -> Machine:
        """The machine that runs ``rows`` rows (made once for each power of two)."""
        size = 1 << max(0, rows - 1).bit_length()
        if size not in self._machines:
            self._machines[size] = Machine(self._image, batch=size, fast=self.fast)
        return self._machines[size]

    def initial_state(self, entry: str, batch: int) -> State:
        """The states that belong to ``entry``, at their initial values: name -> [batch, width]."""
        return {s.name: np.broadcast_to(s.array(), (batch, s.width)).astype(np.int64)
                for s in self.program.states if s.entry == entry}

    def cycles(self, entry: str) -> int:
        """Cycles of one step of ``entry``, for one row: they depend on no data."""
        return self.program.entries[f"{entry}.step"].cycles

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State, watch: Watch | None = None) -> tuple[dict[str, NDArray], State]:
        """inputs [T, B, width] integers -> (outputs [T', B, width], new state); T whole steps.  MachineError: what the program does wrong."""
        one, many = self.program.entries[f"{entry}.step"], self.program.entries.get(f"{entry}.steps")
        rows = next(iter(inputs.values())).shape[1]
        m = self.machine(rows)
        m.load_state({k: _padded(v, m.batch, 0) for k, v in state.items()})
        steps = {len(v) // self.values[k].rate for k, v in inputs.items()}
        assert len(steps) == 1, f"inputs of different length: { {k: len(v) for k, v in inputs.items()} }"
        collected: dict[str, list[NDArray]] = {}
        seen: dict[str, list[NDArray]] = {}
        keep = None if watch is None else lambda name, v: seen.setdefault(name, []).append(v[:, :rows])
        t, end = 0, steps.pop()
        while t < end:
            step = many if many and end - t >= many.steps else one       # frame batching for whole groups, single steps for the rest
            given = {}
            for name, v in inputs.items():
                rate = self.values[name].rate
                given[name] = _padded(v[t * rate:(t + step.steps) * rate], m.batch, 1)
            for name, v in m.run(step.name, given, keep).items():
                collected.setdefault(name, []).append(v[:, :rows])
            t += step.steps
        if watch:
            for name, parts in seen.items():
                watch(name, np.concatenate(parts))
        after = m.state()
        return {k: np.concatenate(v) for k, v in collected.items()}, {k: after[k][:rows] for k in state}


def _padded(v: NDArray, size: int, axis: int) -> NDArray:
    """``v`` with zero rows up to ``size``."""
    missing = size - v.shape[axis]
    return v if not missing else np.pad(v, [(0, missing if a == axis else 0) for a in range(v.ndim)])
