"""What can go wrong in a program, said in one form: what, which instruction, which layer, which policy line, which
cycle."""

from __future__ import annotations

from typing import Any

from nnac.errors import UserError


class MachineError(UserError):
    """A program that the machine cannot run.  ``where`` is filled in by whoever knows the instruction."""

    kind = "machine error"

    def __init__(self, message: str, *, entry: str = "", index: int | None = None, instruction: Any = None,
                 layer: str = "",
                 origin: str = "", cycle: int | None = None) -> None:
        super().__init__(message)
        self.message, self.entry, self.index, self.instruction = message, entry, index, instruction
        self.layer, self.origin, self.cycle = layer, origin, cycle

    def at(self, entry: str, index: int, instruction: Any, origin: tuple[str, str] = ("", ""),
           cycle: int | None = None) -> MachineError:
        """The same error, with its place (kept if it has one)."""
        if self.index is None:
            self.entry, self.index, self.instruction = entry, index, instruction
            self.layer, self.origin = origin
            self.cycle = cycle
        return self

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.message}"]
        if self.index is not None:
            cycle = "" if self.cycle is None else f", cycle {self.cycle}"
            lines.append(f"  at {self.entry}[{self.index}]{cycle}: {self.instruction}")
        if self.layer:
            lines.append(f"  layer {self.layer}")
        if self.origin:
            lines.append(f"  policy {self.origin}")
        return "\n".join(lines)


class AddressError(MachineError):
    """An operand outside its memory."""

    kind = "bad address"


class HazardError(MachineError):
    """Two instructions of different units touch the same place at the same time, and at least one writes."""

    kind = "hazard"


class DeadlockError(MachineError):
    """No instruction can ever start again."""

    kind = "deadlock"


class SemaphoreError(MachineError):
    """A semaphore counts beyond its greatest value."""

    kind = "semaphore overflow"


class DataError(MachineError):
    """Data that the instruction cannot take: a damaged stream, an overflowing accumulator, an index out of its span."""

    kind = "bad data"


class CodeError(MachineError):
    """Bytes that are no program: undefined opcode, reserved bits, no HALT."""

    kind = "bad code"
