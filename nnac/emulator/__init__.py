"""The emulator: a program's bytes, run bit-exactly and cycle-exactly.  See `nnac.emulator.machine`."""

from nnac.emulator.errors import (
    AddressError,
    CodeError,
    DataError,
    DeadlockError,
    HazardError,
    MachineError,
    SemaphoreError,
)
from nnac.emulator.image import Entry, Image, image
from nnac.emulator.machine import Machine
from nnac.emulator.timing import Timing, simulate

__all__ = ["AddressError", "CodeError", "DataError", "DeadlockError", "Entry", "HazardError", "Image", "Machine",
           "MachineError",
           "SemaphoreError", "Timing", "image", "simulate"]
