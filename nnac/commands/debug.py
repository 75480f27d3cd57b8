"""``nnac debug PROGRAM [ENTRY]``: step through a program, break on instruction, layer, cycle or address, look at every
memory.

PROGRAM is a program file, or assembler text (``.s``).  Commands are read from the terminal, from ``--commands FILE``,
or from standard input; `help` lists them.  ``--input NAME=FILE.npy`` gives integers [vectors, width] or [vectors,
batch, width]; inputs that are not given stay zero.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import named_source, source

    p = subparsers.add_parser("debug", help="step through a program", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", type=source, metavar="PROGRAM")
    p.add_argument("entry", nargs="?", metavar="ENTRY", help="which entry (the first that is not `init`)")
    p.add_argument("--input", type=named_source, action="append", default=[], metavar="NAME=FILE.npy")
    p.add_argument("--commands", type=source, metavar="FILE", help="read commands from a file")
    p.add_argument("--target", type=source, default="edge", metavar="NAME|FILE.nnac",
                   help="the machine, for assembler text (edge)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.emulator import Machine, MachineError
    from nnac.emulator.debug import Debugger
    from nnac.emulator.listing import find_target, load, read_assembly
    from nnac.program import INIT

    try:
        # assembler text is not made a program file first: that would refuse the races that one wants to look at
        text = args.program.endswith((".s", ".asm"))
        machine = Machine(read_assembly(args.program), target=find_target(args.target),
                          fast=False) if text else Machine(
            load(args.program), fast=False)
        entry = args.entry or next((n for n in machine.entries if n != INIT), INIT)
        give_inputs(machine, entry, args.input)
        debugger = Debugger(machine, entry)
    except (MachineError, ValueError) as error:
        sys.stderr.write(f"nnac debug: {error}\n")
        return 1
    if debugger.warning:
        print(f"warning: {debugger.warning}")
    print(debugger.do_where())
    for line in commands(args.commands):
        said = debugger.command(line)
        if said:
            print(said)
        if debugger.finished:
            break
    return 0


def commands(path: str | None) -> Iterator[str]:
    """Lines from a file, the terminal, or standard input (these are echoed)."""
    if path:
        from nnac.files import read_text

        yield from read_text(path).splitlines(keepends=True)
    elif sys.stdin.isatty():
        while True:
            try:
                yield input("(nnac) ")
            except EOFError:
                return
    else:
        for line in sys.stdin:
            print(f"(nnac) {line.strip()}")
            yield line


def give_inputs(machine: Any, entry: str, given: list[str]) -> None:
    """Put the integers of .npy files into the input ports.  ValueError: no such port, wrong shape, not a file of
    integers."""
    import numpy as np

    from nnac.arrays import read_arrays
    from nnac.errors import UserError

    ports = {p.value: p for p in machine.image.entry(entry).inputs}
    for text in given:
        name, _, path = text.partition("=")
        if name not in ports:
            raise ValueError(f"{entry} has no input `{name}` (it has: {', '.join(ports) or 'none'})")
        try:
            values = read_arrays(path)
        except UserError as error:
            raise ValueError(str(error)) from None
        if isinstance(values, dict):
            raise ValueError(f"{path}: several arrays (.npz); save the one that is meant with numpy.save")
        if values.dtype.kind not in "iu":
            raise ValueError(f"{path}: integers are expected, not {values.dtype}")
        if values.ndim not in (2, 3):
            raise ValueError(f"{path}: [vectors, width] or [vectors, batch, width] are expected, not "
                             f"{list(values.shape)}")
        if values.size and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{path}: {values.max()} is beyond every integer of the machine")
        values = values.astype(np.int64)
        ports[name].scatter(machine.memories.a, values[:, None] if values.ndim == 2 else values)
