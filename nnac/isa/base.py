"""What every instruction is: 128 bits, little-endian; bits 0-5 opcode, 6-17 wait mask, 18-29 signal mask, then its own
fields.

An instruction is one class.  It declares its fields once, low bits first; encoding, decoding, assembler text, range
checks and the manual follow from the declaration.  Bits that no field covers are reserved: zero, and checked.  Opcode 0
is no instruction, so cleared memory does not run.  It says where its operands and results lie, what else it reads
(`constants`), and computes one from the other by one pure function; the interpreter and the fast path of the emulator
both follow from that, and so do the places in which races are looked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, dataclass_transform

import attrs
from attrs import frozen

from nnac.isa.config import SEMAPHORES, MachineConfig
from nnac.isa.operands import Operand, Range
from nnac.isa.records import BadData

if TYPE_CHECKING:
    from numpy.typing import NDArray

    registry: dict[str, type[Instruction]]
    by_opcode: dict[int, type[Instruction]]

INSTRUCTION_BYTES = 16
OPCODE_BITS = 6
FIRST_FIELD = OPCODE_BITS + 2 * SEMAPHORES
# where instructions are; imported when the first is asked for
FILES = ("control", "dma", "matrix", "move", "ring", "vector", "weights")
_registry: dict[str, type[Instruction]] = {}
_by_opcode: dict[int, type[Instruction]] = {}
# what a `compute` takes besides its operands: numbers, arrays, tables; the same for every utterance
Constants = Mapping[str, Any]


class EncodingError(ValueError):
    """An operand that its field cannot hold, or bytes that are no instruction.  One line: what, where, why."""


class Memory(Protocol):
    """The memories of a machine, as `execute` sees them.  An executor that lacks some of it leaves those instructions
    to the interpreter."""

    config: MachineConfig

    def apply(self, i: Instruction) -> None:
        """Fetch the inputs, compute, store the outputs."""

    def fetch(self, operand: Operand) -> Any:
        """An operand's values."""

    def parameters(self, address: int, size: int) -> NDArray:
        """Bytes of A that all utterances share: uint8 [size].  BadData: they differ."""

    def lut(self, slot: int, symmetry: str) -> NDArray:
        """A look-up table, as `nnac.arith.lookup` takes it, or (``entries``) its 513 integers.  BadData: there is none,
        or not of this symmetry.

        symmetry  odd, complement, exp (odd, and positive), entries
        """

    def load_lut(self, slot: int, entries: NDArray) -> None:
        """Fill a look-up table with int64 [513]."""

    def dram_bytes(self, address: int, size: int) -> NDArray:
        """Bytes of DRAM: uint8 [batch, size] or, the same for all, [size]."""

    def dram_rows(self, first: NDArray, size: int) -> NDArray:
        """``size`` bytes of DRAM from each address in ``first`` int64 [batch, ..., 1]: uint8 [batch, ..., size]."""

    def write_dram(self, address: int, data: NDArray) -> None:
        """Bytes into the writable part of DRAM."""

    def load_tile(self, i: Any) -> None:
        """LDW."""

    def load_decoder_table(self, i: Any) -> None:
        """LDT."""

    def call_host(self, part: int) -> None:
        """HOST."""


@frozen
class Rule:
    """What a program must not say although it can be encoded.  ``text`` for the manual; ``broken(instruction, config)``
    what is wrong, or ""."""

    text: str
    broken: Callable[[Any, MachineConfig], str]


@frozen
class Field:
    """``bits`` bits at ``low``, holding ``value / times - minus``."""

    name: str
    bits: int
    times: int
    minus: int
    low: int
    doc: str

    @property
    def greatest(self) -> int:
        return ((1 << self.bits) - 1 + self.minus) * self.times

    def encode(self, owner: str, value: int) -> int:
        code, rest = divmod(value, self.times)
        code -= self.minus
        if rest:
            raise EncodingError(f"{owner}: {self.name}={value} is not a multiple of {self.times}")
        if not 0 <= code < 1 << self.bits:
            raise EncodingError(f"{owner}: {self.name}={value} is not in {self.minus * self.times} … {self.greatest}")
        return code << self.low

    def decode(self, word: int) -> int:
        return ((word >> self.low & (1 << self.bits) - 1) + self.minus) * self.times

    def __str__(self) -> str:
        span = f"{self.low}" if self.bits == 1 else f"{self.low}-{self.low + self.bits - 1}"
        unit = (f", in units of {self.times}" if self.times > 1 else "") + (", minus 1" if self.minus else "")
        return f"bits {span:>7}  {self.name:<9} {self.doc}{unit}"


def operand(bits: int, doc: str, *, times: int = 1, minus: int = 0) -> Any:
    """Declare a field of an instruction: ``bits`` wide, in units of ``times``, stored less ``minus``."""
    return attrs.field(default=minus * times, metadata=dict(bits=bits, doc=doc, times=times, minus=minus))


@frozen(slots=True)
class Instruction:
    """Base of all instructions.  Subclasses are made by `instruction` and set ``unit`` and ``opcode``."""

    wait: int = attrs.field(default=0, kw_only=True)
    signal: int = attrs.field(default=0, kw_only=True)
    unit: ClassVar[str] = ""
    opcode: ClassVar[int] = 0
    fields: ClassVar[tuple[Field, ...]] = ()
    reserved: ClassVar[int] = 0                        # mask of the bits that must be zero

    # ---- what a subclass says about itself

    rules: ClassVar[tuple[Rule, ...]] = ()             # what an encodable instruction must not say
    # `compute` takes each index of the last axis by itself: executors may join and cut
    by_element: ClassVar[bool] = False
    each: ClassVar[tuple[str, ...]] = ()               # constants with one value an element, joined and cut with them
    moves: ClassVar[bool] = False                      # the results are the operands' bytes, unchanged
    in_place: ClassVar[bool] = True                    # a result may begin where an operand begins

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        """(busy, latency): cycles until the unit may start its next instruction, and from start to done, both
        inclusive."""
        raise NotImplementedError

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        """The data that `compute` takes."""
        return ()

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        """Where its results go."""
        return ()

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(address, bytes) of the parameters in A: the same for all utterances of a batch."""
        return iter(())

    def constants(self, m: Memory) -> Constants:
        """What `compute` needs besides its inputs, read from the memories of ``m``.  BadData: a parameter that means
        nothing."""
        return {}

    compute: ClassVar[Callable[..., tuple[NDArray, ...]]]
    """The pure meaning, ``compute(constants, *inputs) -> outputs``, on int64 arrays with any axes in front.  Nothing
    else is read or written."""

    @staticmethod
    def knowing(p: Constants, bound: int) -> Constants:
        """The constants of an instruction that reads accumulators, if no sum of products exceeds ``bound``: a check
        that cannot fail may go."""
        return p

    def execute(self, m: Memory) -> None:
        """Do it.  An instruction that is not a function of its operands (a load, a call of the host) overrides this."""
        m.apply(self)

    def may_read(self, config: MachineConfig) -> Iterator[Range]:
        """What it reads where data say: only what its own unit writes, so that program order is kept without semaphores
        (tested)."""
        return iter(())

    def reads(self, config: MachineConfig) -> Iterable[Range]:
        """Ranges read between start and done."""
        out = [r for operand in self.inputs(config) for r in operand.ranges(config)]
        return out + [("A", address, address + size) for address, size in self.blocks()]

    def writes(self, config: MachineConfig) -> Iterable[Range]:
        """Ranges written between start and done."""
        return [r for operand in self.outputs(config) for r in operand.ranges(config)]

    # ---- the same for all

    def encode(self) -> bytes:
        """The 16 bytes.  EncodingError if an operand does not fit its field."""
        name = type(self).__name__
        for mask in (self.wait, self.signal):
            if not 0 <= mask < 1 << SEMAPHORES:
                raise EncodingError(f"{name}: a semaphore mask has {SEMAPHORES} bits, not {mask:#x}")
        word = self.opcode | self.wait << OPCODE_BITS | self.signal << OPCODE_BITS + SEMAPHORES
        for f in self.fields:
            word |= f.encode(name, getattr(self, f.name))
        return word.to_bytes(INSTRUCTION_BYTES, "little")

    def __str__(self) -> str:
        parts = [type(self).__name__.ljust(4)]
        for f in self.fields:
            value = getattr(self, f.name)
            parts.append(f"{f.name}={value:#x}" if f.name in ADDRESSES and value > 9 else f"{f.name}={value}")
        parts += [f"{name}={','.join(f's{i}' for i in bits(mask))}"
                  for name, mask in (("wait", self.wait), ("signal", self.signal)) if mask]
        return " ".join(parts)


__all__ = ["BadData", "Constants", "EncodingError", "Field", "Instruction", "Memory", "Range", "Rule", "decode",
           "decode_all", "encode_all"]
ADDRESSES = frozenset(("dram", "act", "src", "dst", "pre", "cell", "params", "roots", "addend", "index", "a", "b",
                       "value"))
T = TypeVar("T")


def bits(mask: int) -> tuple[int, ...]:
    """Positions of the ones in ``mask``."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


@dataclass_transform(frozen_default=True, field_specifiers=(operand,))
def instruction(unit: str, opcode: int) -> Callable[[type[T]], type[T]]:
    """Class decorator: freeze, lay the fields out from bit 30 up, register."""

    def make(cls: type[T]) -> type[T]:
        made: Any = attrs.frozen(slots=True)(cls)
        low, fields = FIRST_FIELD, []
        for a in attrs.fields(made):
            if "bits" in a.metadata:
                fields.append(Field(name=a.name, low=low, **a.metadata))
                low += a.metadata["bits"]
        assert low <= 128, f"{cls.__name__} needs {low} bits"
        assert opcode not in _by_opcode and 0 < opcode < 64, f"opcode {opcode:#x} of {cls.__name__}"
        made.unit, made.opcode, made.fields = unit, opcode, tuple(fields)
        made.reserved = ((1 << 128) - 1) ^ ((1 << low) - 1)
        _registry[cls.__name__] = _by_opcode[opcode] = made
        return made

    return make


@cache
def load() -> tuple[ModuleType, ...]:
    """The modules that define instructions: all are registered from now on."""
    return tuple(importlib.import_module(f"nnac.isa.{name}") for name in FILES)


def __getattr__(name: str) -> Any:
    """``registry`` (by name) and ``by_opcode``: whole, whoever asks first."""
    if name not in ("registry", "by_opcode"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    return _registry if name == "registry" else _by_opcode


def decode(data: bytes) -> Instruction:
    """The instruction in 16 bytes.  EncodingError: undefined opcode, or a reserved bit that is not zero."""
    if len(data) != INSTRUCTION_BYTES:
        raise EncodingError(f"an instruction has {INSTRUCTION_BYTES} bytes, not {len(data)}")
    word = int.from_bytes(data, "little")
    load()
    cls = _by_opcode.get(word & 63)
    if cls is None:
        raise EncodingError(f"undefined opcode {word & 63:#04x}")
    if word & cls.reserved:
        raise EncodingError(f"{cls.__name__}: reserved bits {', '.join(map(str, bits(word & cls.reserved)))} are not "
                            f"zero")
    mask = (1 << SEMAPHORES) - 1
    return cls(**{f.name: f.decode(word) for f in cls.fields}, wait=word >> OPCODE_BITS & mask,
               signal=word >> OPCODE_BITS + SEMAPHORES & mask)


def encode_all(instructions: Any) -> bytes:
    """Bytes of a sequence of instructions."""
    return b"".join(i.encode() for i in instructions)


def decode_all(data: bytes) -> list[Instruction]:
    """Instructions of a code section.  EncodingError names the index."""
    if len(data) % INSTRUCTION_BYTES:
        raise EncodingError(f"code of {len(data)} bytes is not a whole number of {INSTRUCTION_BYTES}-byte instructions")
    out = []
    for at in range(0, len(data), INSTRUCTION_BYTES):
        try:
            out.append(decode(data[at: at + INSTRUCTION_BYTES]))
        except EncodingError as error:
            raise EncodingError(f"instruction {at // INSTRUCTION_BYTES}: {error}") from None
    return out
