"""A program on the simulated core: the machine's interface (`nnac.emulator.machine.Machine`), with the core's integers
and cycles.

Rows of a batch are run one after another on the one core; each keeps its activation memory, in which states live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac.emulator.errors import DataError
from nnac.emulator.executor import Emulator
from nnac.emulator.image import INIT, Entry, Image, image
from nnac.isa import LDT, encode_all
from nnac.rtl.build import Built, build
from nnac.rtl.machine import CoreFault, CoreMachine
from nnac.rtl.params import lacks
from nnac.rtl.tile import ZERO_RUN


class ProgramOnCore:
    """One core with one program, for ``batch`` utterances.  ``cycles``: spent so far, over all entries and rows.

    Every run checks the first and the last cycle of every instruction: CoreFault if they are not what the emulator
    says.
    """

    def __init__(self, program: Any, *, batch: int = 1, built: Built | None = None) -> None:
        self.image: Image = image(program)
        if self.image.scratch is not None and batch > 1:
            raise CoreFault("a program that writes to DRAM runs on the core for one utterance at a time")
        for e in self.image.entries.values():
            if missing := lacks(e.code):
                raise CoreFault(f"{e.name} {missing}")
            for k, i in enumerate(e.code):
                if isinstance(i, LDT) and self.image.dram[i.dram] & 0x8F == 0x80 | ZERO_RUN:
                    raise CoreFault(
                        f"{e.name} [{k}]: the core decodes no bitmap around zero_run: a pair may lead "
                        "over any number of words in "
                        "one step; compile with another codec (`codec zero_run`, `codec block_bitmap+packed`)"
                    )
        self.config, self.batch = self.image.config, batch
        self.core = CoreMachine(self.config, self.image.dram, built or build(self.config))
        self.a = np.zeros((batch, self.config.a_bytes), np.uint8)
        self.cycles, self.instructions = 0, 0
        self.runs: Counter[str] = Counter()
        self.reset()
        if INIT in self.image.entries:
            # it loads what all share: weights, tables, parameters
            self._run(self.image.entry(INIT), 0)
            self.a[1:] = self.a[0]
        self.reset()

    def run(
        self,
        entry: str = "main",
        inputs: Mapping[str, NDArray] | None = None,
        watch: Callable[[str, NDArray], None] | None = None,
    ) -> dict[str, NDArray]:
        """Run one entry for every row: integers [vectors, batch, width] in and out, by name.

        ``watch`` is told the outputs: what is overwritten within an entry cannot be seen from outside the core.
        """
        e = self.image.entry(entry)
        given = dict(inputs or {})
        for port in e.inputs:
            if port.value in given:
                port.scatter(self.a, np.asarray(given.pop(port.value), np.int64))
        if given:
            raise DataError(f"entry {entry} has no input `{next(iter(given))}`")
        for row in range(self.batch):
            self._run(e, row)
        made = {port.value: port.gather(self.a) for port in e.outputs}
        if watch is not None:
            for name, value in made.items():
                watch(name, value)
        return made

    def _run(self, e: Entry, row: int) -> None:
        self.core.a[:] = self.a[row]
        run = self.core.run(e.code, data=encode_all(e.code), host=self._host)
        wrong = np.flatnonzero((run.start != e.timing.start) | (run.done != e.timing.done))
        if wrong.size:
            k = int(wrong[0])
            raise CoreFault(
                f"{e.name} [{k}] {type(e.code[k]).__name__}: cycles {run.start[k]} … {run.done[k]} on the core, "
                f"{e.timing.start[k]} … {e.timing.done[k]} on the emulator"
            )
        self.a[row] = self.core.a
        self.cycles += run.cycles
        self.instructions += len(e.code)
        self.runs[e.name] += 1

    def _host(self, part: int) -> None:
        calls = {h.id: h for h in getattr(self.image.source, "host", ())}
        if part not in calls:
            raise DataError(f"the program calls part {part} of the host, and nobody says what that is")
        calls[part].run(self.core.a[None])

    # ---- state

    def state(self) -> dict[str, NDArray]:
        """Every state: integers [batch, width] by name."""
        return {s.name: s.port.gather(self.a)[0] for s in self.image.states}

    def states_of(self, hypotheses: int) -> dict[str, NDArray]:
        """What has places for so many hypotheses: integers [hypotheses, batch, width] by name."""
        return {s.name: s.of(hypotheses).gather(self.a) for s in self.image.states if s.places >= hypotheses}

    def load_state(self, state: Mapping[str, NDArray]) -> None:
        """Put back what `state` gave, or [hypotheses, batch, width] into as many places; states that are not named
        stay.  DataError: there is no such state."""
        known = {s.name: s for s in self.image.states}
        for name, value in state.items():
            if name not in known:
                raise DataError(f"there is no state `{name}`")
            given = np.asarray(value, np.int64)
            given = given[None] if given.ndim == 2 else given
            known[name].of(len(given)).scatter(self.a, given)

    def reset(self) -> None:
        """Every state to its initial value."""
        for s in self.image.states:
            s.port.scatter(self.a, np.broadcast_to(s.array(), (1, self.batch, s.width)))


class CoreExecutor(Emulator):
    """The emulator's executor with the core in the place of its machine."""

    def machine(self, rows: int) -> Any:
        """The core for ``rows`` rows (made once for each number of them)."""
        if rows not in self._machines:
            self._machines[rows] = ProgramOnCore(self._image, batch=rows)  # type: ignore[assignment]
        return self._machines[rows]

    def shows(self, value: str) -> bool:
        """What an entry gives out: `ProgramOnCore.run`."""
        return any(value == port.value for e in self._image.entries.values() for port in e.outputs)
