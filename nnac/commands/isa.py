"""``nnac isa [INSTRUCTION]``: the hardware manual, or one page of it, printed from the code that runs.

State, clocked rules, DRAM and decoder time, encodings, and what every instruction does and costs, for the machine of
``--target``.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import source

    p = subparsers.add_parser("isa", help="print the hardware manual", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("instruction", nargs="?", metavar="INSTRUCTION")
    p.add_argument("--target", type=source, default="edge", metavar="NAME|FILE.nnac",
                   help="the machine whose numbers to print (edge)")
    p.add_argument("--text", action="store_true", help="how assembler text is written")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:

    from nnac.diagnostics import did_you_mean
    from nnac.emulator.listing import find_target
    from nnac.isa import MachineConfig, registry, text
    from nnac.isa.manual import manual
    from nnac.rtl.macros import silicon
    from nnac.words import doc

    if args.text:
        print(doc(text))
        return 0
    name = (args.instruction or "").upper()
    if name and name not in registry:
        sys.stderr.write(f"nnac isa: no instruction is called `{args.instruction}`\nhelp: "
                         f"{did_you_mean(name, registry)}\n")
        return 2
    target = find_target(args.target)
    config = MachineConfig.of(target)
    sys.stdout.write(manual(config, name))
    if not name:
        print(f"\n{silicon(config, target.sram)}\nEnergy of an event, an estimate beside the machine: {target.energy}")
    return 0
