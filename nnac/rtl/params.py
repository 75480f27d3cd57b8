"""What the core takes from elsewhere: sizes from `MachineConfig`, fields from the registry of instructions.  Nothing
is copied by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from amaranth.hdl import Const, Mux, Signal, Value

from nnac.errors import UserError
from nnac.isa import (
    ADD,
    AMAX,
    CPY,
    DOT,
    DWC,
    FIL,
    GATE,
    GRU,
    GTH,
    HALT,
    HOST,
    KEEP,
    LDA,
    LDT,
    LDW,
    LN,
    LSM,
    LSTM,
    LUT,
    MIX,
    MUL,
    MVM,
    PROF,
    RQ,
    SMAX,
    STA,
    TAB,
    Instruction,
    MachineConfig,
)
from nnac.isa.base import FIRST_FIELD, OPCODE_BITS, Field, registry
from nnac.isa.config import SEMAPHORES

WORD = 128  # bits of an instruction
UNIT = 4  # bytes: what most A addresses count in
GRANULE = 16  # bytes: what DRAM addresses and the ring count in
A_BITS = 20  # of a byte address of A, as MVM has it
DRAM_BITS = 25  # of a DRAM address in granules


class CoreError(UserError):
    """The core cannot be built for this machine; one line that says which of its numbers is in the way."""


def power(n: int) -> int:
    """The exponent of a power of two."""
    return n.bit_length() - 1


def check(config: MachineConfig) -> None:
    """CoreError unless the core can be this machine."""
    c = config
    sizes = dict(lanes=c.lanes, vector=c.vector, burst=c.burst, ring_bytes=c.ring_bytes)
    for name, value in sizes.items():
        if value & value - 1:
            raise CoreError(f"target `{c.name}`: the core's {name} must be a power of two, not {value}")
    rules = (
        (all(r == 1 for r in c.rates), "one weight word a cycle (rates above 1 define a time, not yet a structure)"),
        (
            c.lanes >= 4 and c.lanes == 4 * c.vector,
            f"lanes / 4 elements a cycle in VX, of at least 4 lanes, not {c.vector} of {c.lanes}",
        ),
        (c.lanes <= 64, f"at most 64 lanes in the decoder, not {c.lanes}"),
        (c.act16_factor == 2, f"two cycles for an int16 activation, not {c.act16_factor}"),
        (c.decode_factor == 1, f"a decoder as wide as a word, not 1/{c.decode_factor} of it"),
        (c.mv_drain == 4, f"4 cycles from a word to its accumulator, not {c.mv_drain}"),
        (c.vx_fill >= 8, f"8 cycles at least to fill VX, not {c.vx_fill}"),
        (c.decode_drain == 2, f"2 cycles to drain the decoder, not {c.decode_drain}"),
        (c.turnaround == 0, "a bus that turns round in no time (`turnaround` defines a time, not yet a structure)"),
        (c.a_banks == 0, "a port of A for each column of MV (`banks` defines a time, not yet a structure)"),
        (c.burst_cycles >= 3, f"DRAM bursts of 3 cycles or more, not {float(c.burst_cycles):.2f}"),
        (c.ring_bytes >= 1024, f"a ring of 1024 bytes or more, not {c.ring_bytes}"),
    )
    for holds, what in rules:
        if not holds:
            raise CoreError(f"target `{c.name}`: the core has {what}")


class Fields:
    """The fields of one instruction class in a word: slices at the positions that the class declares."""

    def __init__(self, cls: type[Instruction], word: Value) -> None:
        self.cls, self.word = cls, word
        self._fields: dict[str, Field] = {f.name: f for f in cls.fields}

    def code(self, name: str) -> Value:
        """The bits of a field as they stand."""
        f = self._fields[name]
        return self.word[f.low : f.low + f.bits]

    def count(self, name: str) -> Value:
        """A field's value in its own units (``times``): what is stored, and 1 more where it is stored less 1."""
        f = self._fields[name]
        return self.code(name) + f.minus if f.minus else self.code(name)

    def bytes(self, name: str) -> Value:
        """A field's value in bytes or elements."""
        return self.count(name) << power(self._fields[name].times)


def opcode(word: Value) -> Value:
    return word[:OPCODE_BITS]


def wait_mask(word: Value) -> Value:
    return word[OPCODE_BITS : OPCODE_BITS + SEMAPHORES]


def signal_mask(word: Value) -> Value:
    return word[OPCODE_BITS + SEMAPHORES : FIRST_FIELD]


# what the units of the core carry out; an instruction of the registry that is not here is refused by its name
BUILT: tuple[type[Instruction], ...] = (
    *(LDW, LDT),
    *(LDA, STA, GTH),
    MVM,
    *(RQ, LSTM, GRU, ADD, MUL, LUT, GATE, LN, SMAX, LSM),
    *(CPY, FIL, TAB, AMAX),
    *(KEEP, DOT, MIX, DWC),
    *(PROF, HOST, HALT),
)


def of_unit(unit: str) -> list[type[Instruction]]:
    return [cls for cls in BUILT if cls.unit == unit]


def lacking() -> list[type[Instruction]]:
    """Instructions of the machine that the core does not have."""
    return [cls for cls in registry.values() if cls not in BUILT]


def lacks(code: Iterable[Instruction]) -> str | None:
    """The first instruction that the core does not have, in one line; None: it has them all."""
    found = next(((k, i) for k, i in enumerate(code) if not isinstance(i, BUILT)), None)
    return f"[{found[0]}]: the core has no {type(found[1]).__name__}; the emulator runs this program" if found else None


def is_one(word: Value, classes: Iterable[type[Instruction]]) -> Value:
    """Whether ``word`` is one of these instructions."""
    found: Value = Const(0, 1)
    for cls in classes:
        found = found | (opcode(word) == cls.opcode)
    return found


T = TypeVar("T", bound=Instruction)


def sample(cls: type[T], **fields: int) -> T:
    """An instruction to ask for its cycles: operands that are not given are their least value."""
    make: Callable[..., T] = cls
    return make(**fields)


def named(signal: Value, name: str) -> Signal:
    """A signal of the shape of an expression."""
    return Signal(signal.shape(), name=name)


def cases(*pairs: tuple[Value, Value | int], otherwise: Value | int) -> Value:
    """The value of the first condition that holds."""
    out: Value = Const(otherwise) if isinstance(otherwise, int) else otherwise
    for condition, value in reversed(pairs):
        out = Mux(condition, value, out)
    return out


def ceil_div(value: Value, by: int) -> Value:
    """``ceil(value / by)`` for a power of two."""
    return (value + (by - 1)) >> power(by)
