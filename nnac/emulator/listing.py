"""Between program files and text: what `nnac asm`, `nnac disasm`, `nnac isa` and `nnac debug` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnac.diagnostics import Diagnostic, DiagnosticError, Label, Source, Span, did_you_mean
from nnac.files import TEXT_LIMIT, read
from nnac.isa import Instruction, decode_all, encode_all
from nnac.isa.text import Assembly, AssemblyError, Symbol, assemble
from nnac.program import Entry, Port, Program, Slot
from nnac.target import Target


def find_target(name: str) -> Target:
    """A target by the name of a shipped one (``edge``), or of a file that declares one (the last in it).
    DiagnosticError."""
    from nnac.language.check import check_file
    from nnac.language.machine import machine_of
    from nnac.language.tables import data_file

    folder = data_file("specs", "targets")
    path = Path(name) if name.endswith(".nnac") else folder / f"{name}.nnac"
    if not path.exists():
        shipped = sorted(f.stem for f in folder.glob("*.nnac"))
        raise DiagnosticError([Diagnostic("unknown-target", f"no target is called `{name}`", (),
                                          (did_you_mean(name, shipped),))])
    checked = check_file(path)
    declared = [d for d in checked.scope.targets.values() if d.file is checked.file]
    problems = [d for d in checked.diagnostics if d.severity == "error"]
    made = machine_of(checked.scope, declared[-1], problems) if declared and not problems else None
    if made is None:
        raise DiagnosticError(problems or [Diagnostic("unknown-target", f"{path} declares no target")])
    return made


def read_assembly(path: str) -> Assembly:
    """The program in a text file.  DiagnosticError with the place of the first wrong line; OSError."""
    text = read(path, TEXT_LIMIT).decode("utf-8", errors="replace")
    try:
        return assemble(text)
    except AssemblyError as error:
        source = Source(path, text)
        start = source.line_starts[error.line - 1] + error.column - 1
        span = Span(source, start, min(start + error.length, len(text)))
        raise DiagnosticError([Diagnostic("assembly", error.message, (Label(span),), (error.help,) if error.help
                                          else ())]) from None


def to_program(assembly: Assembly, target: Target) -> Program:
    """An assembled text as a program file for ``target``; cycles are counted, races and deadlock excluded.
    MachineError."""
    from nnac.emulator.image import image

    made = image(assembly, target=target)
    rows: dict[tuple[str, str, str], int] = {}
    entries = {}
    for name, e in made.entries.items():
        words = np.frombuffer(encode_all(e.code), "<u8").reshape(-1, 2)
        lines = np.array([rows.setdefault((layer, origin, ""), len(rows)) for layer, origin in e.origins], np.uint32)
        entries[name] = Entry(name, words, lines, e.inputs, e.outputs, cycles=e.timing.cycles)
    states = tuple(Slot(s.name, s.address, s.width, s.bits // 8, entry=s.entry) for s in assembly.symbols
                   if s.kind == "state")
    return Program(target, entries, np.frombuffer(assembly.dram, np.uint8), states, debug=tuple(rows), isa="nnac",
                   writable=made.scratch)


def code(program: Program, entry: str) -> list[Instruction]:
    """The instructions of an entry.  EncodingError."""
    return decode_all(np.ascontiguousarray(program.entry(entry).words, "<u8").tobytes())


def to_assembly(program: Program, entry: str | None = None, *, data: bool = False) -> Assembly:
    """A program file as text would have it; ``data``: its DRAM image too.  Ports that text cannot express (in pieces)
    are left out."""
    names = [entry] if entry else list(program.entries)
    symbols: list[Symbol] = []
    for name in names:
        e = program.entry(name)
        symbols += [_symbol(p, kind, name) for kind, ports in (("input", e.inputs), ("output", e.outputs))
                    for p in ports
                    if len(p.segments) == 1 and p.segments[0][0] == 0 and p.stride in (0, p.width * p.size)]
    symbols += [Symbol(s.name, "state", s.address, 8 * s.size, s.width, 1, s.entry) for s in program.states]
    debug = {name: [program.where(name, k)[:2] for k in range(len(program.entries[name].words))] for name in names}
    blocks = tuple((at, program.dram[at: at + 32].tobytes()) for at in range(0, len(program.dram), 32)) if data else ()
    return Assembly({name: code(program, name) for name in names}, debug, tuple(symbols), blocks, program.writable)


def _symbol(p: Port, kind: str, entry: str) -> Symbol:
    return Symbol(p.value, kind, p.address, 8 * p.size, p.width, p.vectors, entry)


def load(path: str, target: str = "edge") -> Any:
    """A program file, or assembler text (``.s``, ``.asm``) for ``target``.  ProgramError, DiagnosticError,
    MachineError."""
    if path.endswith((".s", ".asm")):
        return to_program(read_assembly(path), find_target(target))
    return Program.load(path)
