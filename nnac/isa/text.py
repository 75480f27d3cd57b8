"""Assembler and disassembler: a program as text that people read, and back, without loss.

    ; comment, to the end of the line
    data 0x100 i8 1 -2 3            bytes in DRAM from an address: u8 i8 i16 i32 or hex
    writable 0x1000 256
    the DRAM that STA may write: address, bytes (one stretch, multiples of 16; else what STAs here write)
    symbol input x address=0x40 bits=8 width=64 count=1 entry=main
    a place in A that the host reads or writes (input, output, state)
    entry main:
        LDW  dram=0x100 bytes=64 word=0 rows=64 cols=1 live=1 steps=1 table=0 signal=s0
        @encoder.lstm[0] "policy.nnac:12"
        HALT

After an instruction, ``@`` names the layer that it serves, and a string the policy line.  Operands that are left out
are their least value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from attrs import field, frozen

from nnac.isa.base import EncodingError, Instruction, registry
from nnac.isa.config import SEMAPHORES


class AssemblyError(ValueError):
    """A line that cannot be assembled.  ``line`` and ``column`` count from 1; ``length`` characters are meant."""

    def __init__(self, message: str, line: int, column: int = 1, length: int = 1, help: str = "") -> None:
        super().__init__(f"line {line}: {message}" + (f" ({help})" if help else ""))
        self.message, self.line, self.column, self.length, self.help = message, line, column, length, help


@frozen
class Symbol:
    """A named place in A: ``count`` vectors of ``width`` integers of ``bits`` bits, one after the other.  kind: input,
    output, state."""

    name: str
    kind: str
    address: int
    bits: int
    width: int
    count: int = 1
    entry: str = ""

    @property
    def bytes(self) -> int:
        return self.count * self.width * self.bits // 8

    def __str__(self) -> str:
        entry = f" entry={self.entry}" if self.entry else ""
        return (f"symbol {self.kind} {self.name} address={self.address:#x} bits={self.bits} width={self.width} "
                f"count={self.count}{entry}")


Origin = tuple[str, str]                  # (layer path, policy line), either may be empty


@frozen
class Assembly:
    """A program as instructions: entry -> instructions and, beside each, the layer and policy line it came from.

    writable  (first, end) of the DRAM that STA may write, if the program says it
    """

    code: Mapping[str, Sequence[Instruction]]
    debug: Mapping[str, Sequence[Origin]] = field(factory=dict)
    symbols: tuple[Symbol, ...] = ()
    data: tuple[tuple[int, bytes], ...] = ()
    writable: tuple[int, int] | None = None

    @property
    def dram(self) -> bytes:
        """The DRAM image that the ``data`` lines make, zero elsewhere."""
        image = bytearray(max((at + len(block) for at, block in self.data), default=0))
        for at, block in self.data:
            image[at: at + len(block)] = block
        return bytes(image)


_TYPES = {"u8": "<u1", "i8": "<i1", "i16": "<i2", "i32": "<i4"}
_PIECE = re.compile(r"\S+")


def assemble(text: str) -> Assembly:
    """The program that ``text`` spells.  AssemblyError: the first line that is wrong."""
    code: dict[str, list[Instruction]] = {}
    debug: dict[str, list[Origin]] = {}
    symbols, data = [], []
    entry, writable = "", None
    for number, line in enumerate(text.splitlines(), 1):
        body = line.split(";", 1)[0].rstrip()
        pieces = [(m.group(), m.start() + 1) for m in _PIECE.finditer(body)]
        if not pieces:
            continue
        word, column = pieces[0]
        if word == "data":
            data.append(_data(pieces, number))
        elif word == "symbol":
            symbols.append(_symbol(pieces, number))
        elif word == "writable":
            if writable is not None:
                raise AssemblyError("`writable` is said twice", number, column, len(word))
            writable = _writable(pieces, number)
        elif word == "entry":
            entry = body.strip()[5:].strip().rstrip(":").strip()
            if not entry or entry in code:
                raise AssemblyError(f"entry `{entry}` is written twice" if entry else "an entry needs a name", number,
                                    column, len(word))
            code[entry], debug[entry] = [], []
        else:
            if not entry:
                entry = "main"
                code[entry], debug[entry] = [], []
            item, origin = _instruction(body, pieces, number)
            code[entry].append(item)
            debug[entry].append(origin)
    return Assembly(code, debug, tuple(symbols), tuple(data), writable)


def _instruction(body: str, pieces: list[tuple[str, int]], number: int) -> tuple[Instruction, Origin]:
    name, column = pieces[0]
    cls = registry.get(name)
    if cls is None:
        raise _unknown("instruction", name, registry, number, column)
    fields = {f.name: f for f in cls.fields}
    given: dict[str, int] = {}
    layer = origin = ""
    for text, at in pieces[1:]:
        if text.startswith("@"):
            layer, _, rest = body[at:].partition(" ")
            origin = rest.strip().strip('"')
            break
        if text.startswith('"'):
            origin = body[at - 1:].strip().strip('"')
            break
        key, equals, value = text.partition("=")
        if not equals:
            raise AssemblyError(f"`{text}` is not `operand=value`", number, at, len(text))
        if key in given:
            raise AssemblyError(f"operand `{key}` is given twice", number, at, len(text))
        if key in ("wait", "signal"):
            given[key] = _mask(value, number, at + len(key) + 1)
        elif key in fields:
            given[key] = _number(value, number, at + len(key) + 1)
        else:
            raise _unknown(f"operand of {name}", key, (*fields, "wait", "signal"), number, at)
    try:
        made = cls(**given)
        made.encode()
    except EncodingError as error:
        raise AssemblyError(str(error), number, column, len(body.strip())) from None
    return made, (layer, origin)


def _unknown(what: str, name: str, known: Any, number: int, column: int) -> AssemblyError:
    near = get_close_matches(name, known, 1) or get_close_matches(name.upper(), known, 1)
    help = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
    return AssemblyError(f"`{name}` is no {what}", number, column, len(name), help)


def _number(text: str, number: int, column: int) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise AssemblyError(f"`{text}` is not a number", number, column, max(1, len(text))) from None


def _mask(text: str, number: int, column: int) -> int:
    mask = 0
    for name in text.split(","):
        if not re.fullmatch(r"s\d{1,9}", name) or int(name[1:]) >= SEMAPHORES:
            raise AssemblyError(f"`{name}` is no semaphore", number, column, max(1, len(text)),
                                f"there are s0 … s{SEMAPHORES - 1}")
        mask |= 1 << int(name[1:])
    return mask


def _data(pieces: list[tuple[str, int]], number: int) -> tuple[int, bytes]:
    if len(pieces) < 3:
        raise AssemblyError("`data` needs an address, a type and values", number, pieces[0][1], 4)
    at = _number(pieces[1][0], number, pieces[1][1])
    kind, column = pieces[2]
    if kind == "hex":
        try:
            return at, bytes.fromhex("".join(p for p, _ in pieces[3:]))
        except ValueError:
            raise AssemblyError("hex data are pairs of hexadecimal digits", number, column, 3) from None
    if kind not in _TYPES:
        raise _unknown("type of data", kind, (*_TYPES, "hex"), number, column)
    limit = np.iinfo(_TYPES[kind])
    values = [_number(p, number, c) for p, c in pieces[3:]]
    for value, (text, c) in zip(values, pieces[3:], strict=True):
        if not limit.min <= value <= limit.max:
            raise AssemblyError(f"{value} does not fit {kind}", number, c, len(text))
    return at, np.array(values, _TYPES[kind]).tobytes()


def _writable(pieces: list[tuple[str, int]], number: int) -> tuple[int, int]:
    if len(pieces) != 3:
        raise AssemblyError("`writable` needs an address and a number of bytes", number, pieces[0][1], 8)
    first, size = (_number(text, number, column) for text, column in pieces[1:])
    if first < 0 or size < 0 or first % 16 or size % 16:
        raise AssemblyError("the writable part begins at a multiple of 16 and has a multiple of 16 bytes", number,
                            pieces[1][1], len(pieces[1][0]))
    return first, first + size


def _symbol(pieces: list[tuple[str, int]], number: int) -> Symbol:
    if len(pieces) < 3 or pieces[1][0] not in ("input", "output", "state"):
        raise AssemblyError("`symbol` needs a kind (input, output, state) and a name", number, pieces[0][1], 6)
    given: dict[str, Any] = dict(count=1)
    for text, at in pieces[3:]:
        key, _, value = text.partition("=")
        if key == "entry":
            given[key] = value
        elif key in ("address", "bits", "width", "count"):
            given[key] = _number(value, number, at + len(key) + 1)
        else:
            raise _unknown("property of a symbol", key, ("address", "bits", "width", "count", "entry"), number, at)
    missing = [k for k in ("address", "bits", "width") if k not in given]
    if missing:
        raise AssemblyError(f"symbol `{pieces[2][0]}` lacks {', '.join(missing)}", number, pieces[2][1],
                            len(pieces[2][0]))
    return Symbol(pieces[2][0], pieces[1][0], **given)


def disassemble(program: Assembly, *, numbers: bool = False) -> str:
    """Text that `assemble` turns back into the same program; ``numbers`` adds each instruction's index as a comment."""
    lines = [f"data {at:#x} hex {block.hex()}" for at, block in program.data] + [str(s) for s in program.symbols]
    if program.writable is not None:
        lines.append(f"writable {program.writable[0]:#x} {program.writable[1] - program.writable[0]:#x}")
    for entry, instructions in program.code.items():
        lines.append(f"entry {entry}:")
        origins = program.debug.get(entry) or [("", "")] * len(instructions)
        for index, (item, (layer, origin)) in enumerate(zip(instructions, origins, strict=True)):
            line = f"    {item}"
            if layer or origin:
                line = f"{line:<100} " + " ".join(([f"@{layer}"] if layer else []) +
                                                  ([f'"{origin}"'] if origin else []))
            lines.append(line + (f"  ; {index}" if numbers else ""))
    return "\n".join(lines) + "\n"
