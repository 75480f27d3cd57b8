"""CT: what the fetch unit itself executes, in order, one a cycle, before it fetches on."""

from __future__ import annotations

from nnac.isa.base import Instruction, Memory, instruction, operand
from nnac.isa.config import MachineConfig


class _Control(Instruction):
    __slots__ = ()

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        return 1, 1


@instruction("CT", 0x30)
class PROF(_Control):
    """Profiling mark: record (id, cycle).   Cycles: 1."""

    id: int = operand(16, "mark")

    def execute(self, m: Memory) -> None:
        pass


@instruction("CT", 0x31)
class HOST(_Control):
    """Wait for the host processor to run its part ``id`` on A (an operator that the machine lacks).
    Cycles: max(1, time).

    The host may read and write all of A meanwhile; so the program waits, by semaphores, until no unit uses what the
    host uses.
    """

    id: int = operand(16, "which part")
    time: int = operand(32, "cycles that the host takes")

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        n = max(1, self.time)
        return n, n

    def execute(self, m: Memory) -> None:
        m.call_host(self.id)


@instruction("CT", 0x3F)
class HALT(_Control):
    """End of the entry.  The machine has halted when no unit has an instruction left; semaphores then return to zero.
    Cycles: 1."""

    def execute(self, m: Memory) -> None:
        pass
