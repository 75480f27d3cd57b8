"""A program made ready to run: bytes decoded and checked, time computed once an entry, races excluded.

Anything that the machine takes becomes an `Image`: a `nnac.program.Program`, an `Assembly`, or a list of instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac.emulator.errors import CodeError, MachineError
from nnac.emulator.hazards import Touched, check_addresses, check_races, ranges
from nnac.emulator.memory import DecodedStreams
from nnac.emulator.timing import Timing, check_code, simulate
from nnac.isa import EncodingError, Instruction, MachineConfig, decode_all, encode_all
from nnac.isa.text import Assembly
from nnac.program import INIT, Port, Program, Slot
from nnac.target import Target

Origin = tuple[str, str]


@define(eq=False, slots=False)
class Entry:
    """One entry point, decoded.  ``origins``: (layer, policy line) of each instruction."""

    name: str
    code: tuple[Instruction, ...]
    origins: Sequence[Origin]
    config: MachineConfig
    sizes: dict[str, int]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    taps: tuple[Any, ...] = ()
    steps: int = 1
    predicted: int | None = None
    whats: Sequence[str] = ()
    writable: tuple[int, int] | None = None

    def locate(self, error: MachineError) -> MachineError:
        """The error with the entry's name, the layer and the policy line."""
        error.entry = self.name
        if error.index is not None:
            error.instruction = error.instruction or self.code[error.index]
            error.layer, error.origin = self.origins[error.index]
        return error

    @cached_property
    def touched(self) -> list[Touched]:
        """What each instruction reads and writes."""
        return [ranges(i, self.config) for i in self.code]

    @cached_property
    def timing(self) -> Timing:
        """Cycles of every instruction, from a machine at rest.  MachineError: deadlock, overflow of a semaphore, a
        race."""
        try:
            timing = simulate(self.code, self.config, checked=True)
            check_races(self.code, timing, self.config, self.sizes, self.touched)
            if self.predicted not in (None, timing.cycles):
                raise MachineError(f"the program promises {self.predicted:,} cycles of {self.name}; it takes "
                                   f"{timing.cycles:,}")
        except MachineError as error:
            raise self.locate(error) from None
        return timing

    def check(self) -> None:
        try:
            check_code(self.code, self.config)
            check_addresses(self.code, self.config, self.sizes, self.writable, self.touched)
        except MachineError as error:
            raise self.locate(error) from None


@frozen(eq=False, slots=False)
class Image:
    """Everything that a machine needs.  ``scratch``: the part of DRAM that the program may write."""

    config: MachineConfig
    entries: Mapping[str, Entry]
    dram: NDArray
    states: tuple[Slot, ...] = ()
    target: Target | None = None
    scratch: tuple[int, int] | None = None
    source: Any = field(default=None, repr=False)
    # of the plans, shared by all machines of this image
    matrices: dict[bytes, Any] = field(factory=dict, repr=False)

    @cached_property
    def streams(self) -> DecodedStreams:
        """The weight tiles, decoded once for all machines of this image."""
        return DecodedStreams(self.dram, self.config.lanes)

    def entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CodeError(f"there is no entry `{name}` (there are: {', '.join(self.entries)})")
        return self.entries[name]


def image(program: Any, config: MachineConfig | None = None, target: Target | None = None) -> Image:
    """Make ``program`` ready: a Program, an Assembly, or instructions (entry ``main``).  MachineError: what is wrong,
    and where."""
    if isinstance(program, Image):
        return program
    if isinstance(program, Program):
        return _of_program(program, config)
    if not isinstance(program, Assembly):
        program = Assembly({"main": tuple(program)})
    return _of_assembly(program, config or (MachineConfig.of(target) if target else MachineConfig()), target)


def _sizes(config: MachineConfig, dram: int) -> dict[str, int]:
    return dict(A=config.a_bytes, W=config.words, ACC=config.banks * config.columns, LUT=config.luts,
                TABLE=config.decoder_tables, DRAM=dram)


def _decoded(name: str, data: bytes) -> tuple[Instruction, ...]:
    try:
        return tuple(decode_all(data))
    except EncodingError as error:
        raise CodeError(f"entry {name}: {error}") from None


def _of_program(program: Program, config: MachineConfig | None) -> Image:
    config = config or MachineConfig.of(program.target)
    sizes = _sizes(config, max(len(program.dram), program.writable[1] if program.writable else 0))
    entries = {}
    for name, e in program.entries.items():
        rows = [program.debug[int(k)] for k in e.lines]
        entries[name] = Entry(name, _decoded(name, np.ascontiguousarray(e.words, "<u8").tobytes()),
                              [(r[0], r[1]) for r in rows], config, sizes,
                              e.inputs, e.outputs, e.taps, e.steps, e.cycles, [r[2] for r in rows], program.writable)
        entries[name].check()
    return Image(config, entries, np.ascontiguousarray(program.dram, np.uint8), program.states, program.target,
                 program.writable, program)


def _of_assembly(assembly: Assembly, config: MachineConfig, target: Target | None) -> Image:
    dram = np.frombuffer(assembly.dram, np.uint8)
    scratch = assembly.writable or stored(assembly, config)
    sizes = _sizes(config, max(len(dram), scratch[1] if scratch else 0))
    entries = {}
    for name, code in assembly.code.items():
        # through the bytes, so that what runs is what an encoded program would be
        code = _decoded(name, encode_all(code))
        ports = {kind: tuple(_port(s) for s in assembly.symbols if s.kind == kind and s.entry in ("", name))
                 for kind in ("input", "output")}
        entries[name] = Entry(name, code, assembly.debug.get(name) or [("", "")] * len(code), config, sizes,
                              ports["input"], ports["output"],
                              writable=scratch)
        entries[name].check()
    states = tuple(Slot(s.name, s.address, s.width, s.bits // 8) for s in assembly.symbols if s.kind == "state")
    return Image(config, entries, dram, states, target, scratch, assembly)


def stored(assembly: Assembly, config: MachineConfig) -> tuple[int, int] | None:
    """(first, end) of what the STAs of a program write; None if it has none."""
    stores = [r for code in assembly.code.values() for i in code for r in i.writes(config) if r[0] == "DRAM"]
    return (min(f for _, f, _ in stores) & ~15, -(-max(e for _, _, e in stores) // 16) * 16) if stores else None


def _port(s: Any) -> Port:
    size = s.bits // 8
    return Port(s.name, s.address, ((0, s.width),), size, s.count, s.width * size)


__all__ = ["INIT", "Entry", "Image", "image"]
