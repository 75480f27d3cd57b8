"""``nnac asm FILE.s --out PROGRAM``: assemble text into a program file, checked and timed.

The text: see `nnac isa --text`.  The program is for one machine (``--target edge``); races, deadlocks and bad addresses
are errors here already.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source

    p = subparsers.add_parser("asm", help="assemble instructions into a program", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=source, metavar="FILE.s")
    p.add_argument("--out", type=sink(), metavar="PROGRAM",
                   help="where the program goes; without it the file is only checked")
    p.add_argument("--target", type=source, default="edge", metavar="NAME|FILE.nnac", help="the machine (edge)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.emulator import MachineError
    from nnac.emulator.listing import find_target, read_assembly, to_program

    try:
        program = to_program(read_assembly(args.file), find_target(args.target))
    except MachineError as error:
        sys.stderr.write(f"{args.file}: {error}\n")
        return 1
    if args.out:
        program.save(args.out)
    for name, e in program.entries.items():
        print(f"{name}: {len(e.words)} instructions, {e.cycles:,} cycles")
    return 0
