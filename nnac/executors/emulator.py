"""The machine: the program's bytes, bit by bit, with cycles (`nnac.emulator`)."""

from nnac.emulator.executor import Emulator
from nnac.executors import Subject


def executor(subject: Subject) -> Emulator:
    return Emulator(subject.program, not subject.interpret)
