"""The program: what the compiler makes and the machine runs.  One file, checked before it is used.

A safetensors file (no pickle): per entry point its instruction words and a line of the debug table for each of them,
the DRAM image (weights, parameters, tables), and one JSON text with everything else: where inputs, outputs, states and
taps lie, their formats, the target, the plan, the compile report, and opaque metadata (features, tokens) so that a host
needs nothing but this file. The same program always has the same bytes.

    entry      ``encoder.step`` …: instruction words; ports in and out; taps; predicted cycles
    port       a value in the machine's activation memory: vectors of integers, ``stride`` bytes apart
    tap        a port that is whole once instruction ``after`` is complete: how an emulator watches a layer
    state      a vector that outlives steps: named, resident, with its initial integers
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from attrs import asdict, field, frozen
from attrs.validators import ge, le
from numpy.typing import NDArray

from nnac.attributes import Attributes
from nnac.entry import Calls, EntryPoint
from nnac.errors import ABSURD, UserError
from nnac.files import FileError, atomic, read
from nnac.ir import Value
from nnac.ops import kinds, operator
from nnac.target import Target

FORMAT, VERSION = "nnac-program", 4
DRAM_BYTES = 1 << 29           # that an address can name: 25 bits in units of 16
INIT = "init"                  # the entry that runs once, before any other: pinned weights and tables


def model_entry(name: str) -> str:
    """The model's entry point that an entry or a pass of the program belongs to: ``encoder`` of
    ``encoder.lstm[0].forward.step``."""
    return name.partition(".")[0]


class ProgramError(UserError):
    """The file is absent, damaged, altered, of another kind or for another machine; one line that begins with its
    name."""


@frozen
class Port:
    """A value in memory: ``vectors`` vectors of little-endian signed integers of ``size`` bytes, ``stride`` bytes
    apart.

    segments  ((offset, width), ...): where the pieces of a vector lie; a vector without padding has one
    """

    value: str
    address: int
    segments: tuple[tuple[int, int], ...]
    size: int
    vectors: int = 1
    stride: int = 0

    @property
    def width(self) -> int:
        return sum(width for _, width in self.segments)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of every piece, pieces that touch joined."""
        out: list[tuple[int, int]] = []
        for t in range(self.vectors):
            for offset, width in self.segments:
                start = self.address + t * self.stride + offset
                if out and out[-1][1] == start:
                    start = out.pop()[0]
                out.append((start, self.address + t * self.stride + offset + width * self.size))
        return tuple(out)

    def gather(self, memory: NDArray) -> NDArray:
        """The integers: memory uint8 [..., bytes] -> int64 [vectors, ..., width]."""
        kind = np.dtype(f"<i{self.size}")
        vectors = []
        for t in range(self.vectors):
            first = self.address + t * self.stride
            pieces = [np.ascontiguousarray(memory[..., first + o:first + o + w * self.size]).view(kind)
                      for o, w in self.segments]
            vectors.append(np.concatenate(pieces, -1) if len(pieces) > 1 else pieces[0])
        return np.stack(vectors).astype(np.int64)

    def scatter(self, memory: NDArray, values: NDArray) -> None:
        """Write integers [vectors, ..., width] into ``memory`` uint8 [..., bytes].  ValueError: the wrong shape, or a
        value that does not fit."""
        if values.shape != (self.vectors, *memory.shape[:-1], self.width):
            raise ValueError(f"{self.value}: expected integers of shape "
                             f"{(self.vectors, *memory.shape[:-1], self.width)}, not {values.shape}")
        limit = 1 << (8 * self.size - 1)
        if values.size and (values.min() < -limit or values.max() >= limit):
            raise ValueError(f"{self.value}: {values.min()} … {values.max()} do not fit int{8 * self.size}")
        for t in range(self.vectors):
            at = 0
            for offset, width in self.segments:
                first = self.address + t * self.stride + offset
                piece = np.ascontiguousarray(values[t, ..., at:at + width].astype(f"<i{self.size}"))
                memory[..., first:first + width * self.size] = piece.view(np.uint8)
                at += width

    def __str__(self) -> str:
        return f"{self.value}: {self.vectors} x int{8 * self.size}[{self.width}] at {self.address:#x}"


@frozen
class Tap:
    """``port`` holds its value when instruction ``after`` (an index into the entry's words) is complete."""

    port: Port
    after: int


@frozen
class Slot:
    """A state: ``initial`` None stands for zeros.

    places, stride  how many hypotheses have a place for it, and the bytes from place to place; who goes step by step
                    uses the first
    most            as `nnac.ir.State` has it
    """

    name: str
    address: int
    width: int
    size: int
    scale: float | None = None
    initial: tuple[int, ...] | None = None
    entry: str = ""
    places: int = 1
    stride: int = 0
    most: int | None = None

    @property
    def port(self) -> Port:
        return self.of(1)

    def of(self, hypotheses: int) -> Port:
        """The places of so many hypotheses."""
        return Port(self.name, self.address, ((0, self.width),), self.size, hypotheses, self.stride)

    @property
    def bytes(self) -> int:
        """From the first byte of the first place to the last of the last."""
        return (self.places - 1) * self.stride + self.width * self.size

    def array(self) -> NDArray:
        return np.zeros(self.width, np.int64) if self.initial is None else np.asarray(self.initial, np.int64)


@frozen(eq=False)
class HostCall:
    """An operator that the machine lacks, done by the host on the machine's memory: `run` is the operator's own meaning
    (`nnac.ops`).

    cycles  what it costs: wake-up, moving the values both ways, computing
    """

    id: int
    path: str
    op: str
    attributes: Attributes
    inputs: tuple[Port, ...]
    output: Port
    states: tuple[Port, ...]
    cycles: int
    values: tuple[Value, ...]              # formats of inputs and output
    constants: Mapping[str, NDArray] = field(factory=dict)

    def run(self, memory: NDArray) -> None:
        """Read inputs and states from ``memory`` uint8 [batch, bytes], write output and new states."""
        from nnac.ir import Node, QGraph

        node = Node(self.path, self.op, tuple(p.value for p in self.inputs), self.output.value, "", self.attributes,
                    self.constants)
        graph = QGraph(self.path, {v.name: v for v in self.values}, (node,), {}, {})
        state = {p.value: p.gather(memory)[0] for p in self.states}
        constants = {k: v.astype(np.int64) for k, v in self.constants.items()}
        made = operator(self.op).integers(node, graph, [p.gather(memory) for p in self.inputs], state, constants)
        self.output.scatter(memory, np.asarray(made))
        for p in self.states:
            p.scatter(memory, np.asarray(state[p.value])[None])


@frozen
class Symbol:
    """A name for a range of memory: what a listing shows instead of a number."""

    name: str
    space: str
    address: int
    bytes: int


@frozen(eq=False)
class Entry:
    """One entry point.  words uint64 [n, 2] (low half first); lines uint32 [n], an index into the program's ``debug``
    table.

    steps     model steps that one call computes (frame batching)      cycles   predicted
    unread    stretches of activation memory (start, end) that no live weight reads: pruned away, not forgotten
    backward  it goes through a call's steps from the last, and wants its calls in that order
    hypotheses  it computes one step of each of so many hypotheses: vector k of a port is the k-th's, and so is place k
                of a state
    """

    name: str
    words: NDArray
    lines: NDArray
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    taps: tuple[Tap, ...] = ()
    steps: int = 1
    cycles: int = 0
    unread: tuple[tuple[int, int], ...] = ()
    backward: bool = False
    hypotheses: int = 1

    @property
    def model_entry(self) -> str:
        """``encoder`` of ``encoder.step``."""
        return model_entry(self.name)

    @property
    def part(self) -> str:
        """Which part of the model it computes, whatever the number of steps: ``encoder``, or a pass of it,
        ``encoder.lstm[0].forward``."""
        return self.name.rpartition(".")[0] or self.name


@frozen(eq=False)
class Program:
    """See the module.  ``debug`` rows are (layer path, policy line, what).

    joins  value -> the values that lie side by side in it: halves that two passes make (`nnac.schedule.passes`),
           brought together by the host
    writable  (first, end) of the DRAM that STA may write, if any
    model_entries  what the model declares of its entry points; none in files written before programs said so
    """

    target: Target
    entries: Mapping[str, Entry]
    dram: NDArray = field()
    states: tuple[Slot, ...] = ()
    symbols: tuple[Symbol, ...] = ()
    values: Mapping[str, Value] = field(factory=dict)
    debug: tuple[tuple[str, str, str], ...] = ()
    host: tuple[HostCall, ...] = ()
    isa: str = ""
    plan: Mapping[str, Any] = field(factory=dict)
    metadata: Mapping[str, Any] = field(factory=dict)
    report: Mapping[str, Any] = field(factory=dict)
    joins: Mapping[str, tuple[str, ...]] = field(factory=dict)
    model_entries: tuple[EntryPoint, ...] = ()
    writable: tuple[int, int] | None = None

    def entry(self, name: str) -> Entry:
        """The entry called ``name``.  ProgramError if there is none."""
        if name not in self.entries:
            raise ProgramError(f"the program has no entry `{name}` (it has: {', '.join(self.entries)})")
        return self.entries[name]

    def where(self, entry: str, index: int) -> tuple[str, str, str]:
        """(layer path, policy line, what) of an instruction."""
        return self.debug[int(self.entries[entry].lines[index])]

    def symbol(self, space: str, address: int) -> Symbol | None:
        """What lies at ``address``."""
        return next((s for s in self.symbols if s.space == space and s.address <= address < s.address + s.bytes), None)

    def parts(self, entry: str) -> tuple[Entry, ...]:
        """The entries that compute one step of the model's ``entry``, for one hypothesis, in the order in which they
        run: more than one for a bidirectional encoder (`nnac.schedule.passes`)."""
        return tuple(e for n, e in self.entries.items()
                     if n != INIT and e.steps == e.hypotheses == 1 and e.model_entry == entry)

    def sizes(self, entry: str) -> tuple[Entry, ...]:
        """The entries that compute a step of ``entry`` for several hypotheses at once, the fewest first."""
        several = [e for n, e in self.entries.items() if n != INIT and e.model_entry == entry and e.hypotheses > 1]
        return tuple(sorted(several, key=lambda e: e.hypotheses))

    def calls(self, entry: str, moved: bool = False) -> Calls:
        """What a step of ``entry`` costs, by the number of hypotheses that share the call.

        moved  the host brings the states of every hypothesis to their places and takes the new ones away, as a search
               does that goes on with another hypothesis each time: their bytes both ways, at the CPU's rate
        """
        states = sum(s.width * s.size for s in self.states if model_entry(s.entry) == entry) if moved else 0
        seconds = Fraction(2 * states, self.target.cpu.transfer)
        each = math.ceil(seconds * self.target.clock)
        one = sum(e.cycles for e in self.parts(entry))
        return Calls(((1, one + each), *((e.hypotheses, e.cycles + each * e.hypotheses) for e in self.sizes(entry))))

    def __str__(self) -> str:
        """A screen: entry points with their cycles, what lies where, what the host does."""
        policy = self.plan.get("name")
        lines = [f"program{f' of policy {policy}' if policy else ''} for `{self.target.name}`: {self.dram.nbytes:,} "
                 f"bytes of DRAM, ISA {self.isa}"]
        wide = max((len(name) for name in self.entries), default=0)
        for name, e in self.entries.items():
            ports = (f"{', '.join(map(str, e.inputs))} -> {', '.join(map(str, e.outputs))}" if e.inputs or e.outputs
                     else "")
            lines.append(f"  {name:<{wide}} {e.cycles:>11,} cycles {len(e.words):>7,} instructions  {ports}".rstrip())
        if self.states:
            held = sum(s.bytes for s in self.states)
            lines.append(f"  states: {', '.join(s.name for s in self.states)}; {held:,} bytes")
        lines += [f"  on the CPU: {h.path} ({h.op}), {h.cycles:,} cycles" for h in self.host]
        if kernels := self.report.get("layers"):
            total, size = (sum(k[what] for k in kernels.values()) for what in ("weights", "bytes"))
            lines.append(f"  weights: {total:,} in {len(kernels)} kernels, {size:,} bytes, "
                         f"{8 * size / max(1, total):.2f} bits each")
        if sram := self.report.get("sram"):
            lines.append(f"  activation memory: {sram['used']:,} of {sram['size']:,} bytes")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike) -> None:
        """Write the file, whole or not at all."""
        with atomic(path) as out:
            out.write(self.to_bytes())

    def to_bytes(self) -> bytes:
        from safetensors.numpy import save as serialise

        tensors = {"dram": np.ascontiguousarray(self.dram, np.uint8)}
        for e in self.entries.values():
            tensors[f"words.{e.name}"] = np.ascontiguousarray(e.words, np.uint64)
            tensors[f"lines.{e.name}"] = np.ascontiguousarray(e.lines, np.uint32)
        tensors |= {f"host.{h.id}.{k}": np.ascontiguousarray(v) for h in self.host for k, v in h.constants.items()}
        content = json.dumps(self._content(), sort_keys=True, allow_nan=False, separators=(",", ":"))
        # one metadata value only: safetensors keeps them in a hash map, whose order changes from run to run
        header = json.dumps({"format": FORMAT, "version": VERSION, "sha256": _digest(tensors, content),
                             "content": content})
        return serialise(tensors, {"nnac": header})

    def _content(self) -> dict[str, Any]:
        return dict(
            isa=self.isa, target=self.target.to_json(), plan=self.plan, metadata=self.metadata, report=self.report,
                    debug=self.debug,
            entries=[asdict(e, filter=lambda a, _: a.name not in ("words", "lines")) for e in self.entries.values()],
            host=[asdict(h, filter=lambda a, _: a.name not in ("constants", "attributes")) |
                  dict(attributes=dict(h.attributes)) for h in self.host],
            joins=self.joins, model_entries=[e.to_json() for e in self.model_entries],
            states=[asdict(s, filter=lambda a, v: a.name != "most" or v is not None) for s in self.states],
            symbols=[asdict(s) for s in self.symbols], values=[asdict(v) for v in self.values.values()],
            **({"writable": self.writable} if self.writable else {}))

    @classmethod
    def load(cls, path: str | os.PathLike, target: Target | None = None) -> Program:
        """Read and check a file; ``target``: the machine it must be for.  ProgramError: one clear line."""
        try:
            data = read(path)
        except FileError as error:
            raise ProgramError(str(error)) from None
        return cls.from_bytes(data, str(path), target)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "program", target: Target | None = None) -> Program:
        from safetensors import SafetensorError
        from safetensors.numpy import load as parse

        from nnac.checked import parse_json

        try:
            tensors = parse(data)
            size = int.from_bytes(data[:8], "little")
            header = parse_json(parse_json(data[8:8 + size])["__metadata__"]["nnac"])
            if header["format"] != FORMAT:
                raise ProgramError(f"{name}: not an nnac program")
            if header["version"] != VERSION:
                raise ProgramError(f"{name}: program version {str(header['version'])[:40]}; this nnac reads version "
                                   f"{VERSION}")
            content = header["content"]
            if _digest(tensors, content) != header["sha256"]:
                raise ProgramError(f"{name}: altered or damaged: its contents do not match its checksum")
            program = _program(tensors, parse_json(content))
        except ProgramError:
            raise
        except (SafetensorError, *ABSURD) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ProgramError(f"{name}: not a whole program file ({reason[:400]})") from None
        if target is not None and program.target != target:
            raise ProgramError(f"{name}: compiled for target "
                               f"`{program.target.name}`{_difference(program.target, target)}")
        return program


# ------------------------------------------------------------------------------------------------ what a file says

@frozen
class _Entry:
    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    taps: tuple[Tap, ...]
    steps: int = field(validator=[ge(1), le(1 << 16)])
    cycles: int = field(validator=ge(0))
    unread: tuple[tuple[int, int], ...]
    backward: bool
    hypotheses: int = field(default=1, validator=[ge(1), le(1 << 12)])


@frozen
class _Host:
    id: int = field(validator=ge(0))
    path: str
    op: str
    attributes: dict[str, Any]
    inputs: tuple[Port, ...]
    output: Port
    states: tuple[Port, ...]
    cycles: int = field(validator=ge(0))
    values: tuple[Value, ...]


@frozen
class _Kernel:
    OPEN: ClassVar = True              # what else a report says of a kernel is for people
    weights: int
    bytes: int
    bits: float
    codec: str


@frozen
class _Sram:
    OPEN: ClassVar = True
    used: int
    size: int


@frozen
class _Report:
    OPEN: ClassVar = True
    layers: dict[str, _Kernel] = field(factory=dict)
    sram: _Sram | None = None


@frozen
class _Content:
    isa: str
    target: dict[str, Any]
    plan: dict[str, Any]
    metadata: dict[str, Any]
    report: dict[str, Any]
    debug: tuple[tuple[str, str, str], ...]
    entries: tuple[_Entry, ...]
    host: tuple[_Host, ...]
    joins: dict[str, tuple[str, ...]]
    states: tuple[Slot, ...]
    symbols: tuple[Symbol, ...]
    values: tuple[Value, ...]
    model_entries: tuple[EntryPoint, ...] = ()
    writable: tuple[int, int] | None = None


def _program(tensors: Mapping[str, NDArray], content: Any) -> Program:
    """The program that a file describes.  ValueError: it is none, with everything that is wrong."""
    from nnac.checked import checked

    c = checked(_Content, content)
    checked(_Report, c.report, "report")
    policy = c.plan.get("name", "")
    if not isinstance(policy, str) or not policy.isprintable():
        raise ValueError("plan.name: a text is expected")
    entries = {}
    for e in c.entries:
        words, lines = tensors[f"words.{e.name}"], tensors[f"lines.{e.name}"]
        if (words.dtype != np.uint64 or words.ndim != 2 or words.shape[1] != 2 or lines.dtype != np.uint32
                or lines.shape != words.shape[:1]):
            raise ValueError(f"instruction words of {e.name} have the wrong shape")
        if e.name in entries:
            raise ValueError(f"two entries are called {e.name}")
        entries[e.name] = Entry(e.name, words, lines, e.inputs, e.outputs, e.taps, e.steps, e.cycles, e.unread,
                                e.backward, e.hypotheses)
    host = tuple(HostCall(h.id, h.path, h.op, operator(h.op).attributes_type(**h.attributes), h.inputs, h.output,
                          h.states, h.cycles, h.values,
                          {k.removeprefix(f"host.{h.id}."): v for k, v in tensors.items()
                           if k.startswith(f"host.{h.id}.")})
                 for h in c.host)
    made = Program(Target.from_json(c.target), entries, tensors["dram"], c.states, c.symbols,
                   {v.name: v for v in c.values}, c.debug,
                   host, c.isa, c.plan, c.metadata, c.report, c.joins, c.model_entries, c.writable)
    if problems := list(_absurd(made)):
        raise ValueError("; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else ""))
    return made


def _absurd(program: Program) -> Iterator[str]:
    """What cannot be: addresses outside their memory, names of nothing, numbers out of bounds."""
    from nnac.isa import MachineConfig

    memory = MachineConfig.of(program.target).a_bytes
    if program.dram.dtype != np.uint8 or program.dram.ndim != 1:
        yield "the DRAM image is not a row of bytes"
    if program.writable is not None and not 0 <= program.writable[0] <= program.writable[1] <= DRAM_BYTES:
        yield f"the writable part of DRAM is {program.writable[0]} … {program.writable[1]}"
    for v in program.values.values():
        if not 1 <= v.width <= 1 << 24 or not 1 <= v.bits <= 32 or not 1 <= v.rate <= 1 << 16:
            yield f"value {v.name} has {v.width} elements of {v.bits} bits, {v.rate} a step"
        if v.scale is not None and not 0 < v.scale < 1e30:
            yield f"value {v.name} has the scale {v.scale:g}"
        if abs(v.zero_point) > 1 << 32:
            yield f"value {v.name} has the zero point {v.zero_point}"
    for e in program.entries.values():
        if any(s.places < e.hypotheses for s in program.states if s.entry == e.part):
            yield f"entry {e.name} is of {e.hypotheses} hypotheses, and a state of it has fewer places"
        if e.lines.size and int(e.lines.max()) >= len(program.debug):
            yield f"entry {e.name} names a line that is not there"
        for p in (*e.inputs, *e.outputs, *(t.port for t in e.taps)):
            yield from _misplaced(p, memory, f"entry {e.name}", program.values)
        for t in e.taps:
            if not 0 <= t.after < len(e.words):
                yield f"entry {e.name}: {t.port.value} is whole after instruction {t.after}, of {len(e.words)}"
        for first, end in e.unread:
            if not 0 <= first <= end <= memory:
                yield f"entry {e.name}: {first} to {end} is no stretch of its memory"
    for s in program.states:
        yield from _misplaced(s.of(s.places), memory, "state")
        top = 1 << (8 * s.size - 1) if s.size in (1, 2, 4) else 0
        if s.initial is not None and (len(s.initial) != s.width or not all(-top <= k < top for k in s.initial)):
            yield f"state {s.name} starts at what it cannot hold"
        if s.scale is not None and not 0 < s.scale < 1e30:
            yield f"state {s.name} has the scale {s.scale:g}"
    for symbol in program.symbols:
        if symbol.address < 0 or symbol.bytes < 0:
            yield f"{symbol.name} lies at {symbol.address}, {symbol.bytes} bytes"
    if len({h.id for h in program.host}) < len(program.host):
        yield "two host calls have one number"
    for h in program.host:
        if h.op not in kinds():
            yield f"the host has no operator `{h.op}`"
        held = {v.name: v for v in h.values}
        for p in (*h.inputs, h.output):
            yield from _misplaced(p, memory, f"host call {h.path}", held)
        for p in h.states:
            yield from _misplaced(p, memory, f"host call {h.path}")
    for name, halves in program.joins.items():
        if not halves or any(h not in program.values for h in (name, *halves)):
            yield f"{name} is joined of values that are not there"


def _misplaced(p: Port, memory: int, where: str, values: Mapping[str, Value] | None = None) -> Iterator[str]:
    """What is wrong with a port; ``values``: those that are described."""
    if p.size not in (1, 2,
                      4) or not 1 <= p.vectors <= memory or p.stride < 0 or p.address < 0 or not p.segments or any(
            offset < 0 or width < 1 for offset, width in p.segments):
        yield f"{where}: {p.value} has an impossible shape"
        return
    end = p.address + (p.vectors - 1) * p.stride + max(offset + width * p.size for offset, width in p.segments)
    if end > memory:
        yield f"{where}: {p.value} ends at {end:#x}, beyond the {memory:,} bytes of activation memory"
    if values is not None and p.value in values and values[p.value].width != p.width:
        yield f"{where}: {p.value} is {p.width} wide, not {values[p.value].width}"


def _digest(tensors: Mapping[str, NDArray], content: str) -> str:
    """SHA-256 over the content and over name, type, shape and bytes of every tensor."""
    total = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"\0{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        total.update(np.ascontiguousarray(value).data)
    return total.hexdigest()


def _difference(ours: Target, theirs: Target) -> str:
    a, b = ours.to_json(), theirs.to_json()
    fields = [k for k in a if k != "name" and a[k] != b.get(k)]
    return f", not for this `{theirs.name}`" + (f" (they differ in {', '.join(fields)})" if fields else "")
