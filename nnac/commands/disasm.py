"""``nnac disasm PROGRAM``: the instructions of a program as text, each with its layer and the policy line that it came
from.

`nnac asm` turns the text back into the same instructions (with ``--data`` also the DRAM image).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import source

    p = subparsers.add_parser("disasm", help="list the instructions of a program", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", type=source, metavar="PROGRAM")
    p.add_argument("--entry", help="only this entry")
    p.add_argument("--numbers", action="store_true", help="number the instructions")
    p.add_argument("--cycles", action="store_true", help="start and done cycle of every instruction")
    p.add_argument("--data", action="store_true", help="the DRAM image too")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.emulator import MachineError
    from nnac.emulator.listing import to_assembly
    from nnac.isa import EncodingError
    from nnac.isa.text import disassemble
    from nnac.program import Program

    program = Program.load(args.program)
    try:
        if args.cycles:
            sys.stdout.write(timed(program, args.entry))
        else:
            sys.stdout.write(disassemble(to_assembly(program, args.entry, data=args.data), numbers=args.numbers))
    except (MachineError, EncodingError) as error:
        sys.stderr.write(f"{args.program}: {error}\n")
        return 1
    return 0


def timed(program: Any, entry: str | None) -> str:
    """A listing with cycles, in program order."""
    from nnac.emulator.image import image

    made = image(program)
    lines = []
    for name in [entry] if entry else made.entries:
        e = made.entry(name)
        lines.append(f"entry {name}:  ; {e.timing.cycles} cycles")
        for at, (i, (layer, origin)) in enumerate(zip(e.code, e.origins, strict=True)):
            lines.append(f"  {at:>6} {e.timing.start[at]:>9} {e.timing.done[at]:>9}  {i!s:<100} {layer} "
                         f"{origin}".rstrip())
    return "\n".join(lines) + "\n"
