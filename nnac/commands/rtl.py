"""``nnac rtl --target NAME --out core.v``: the machine's RTL core as Verilog.

The core is described in Amaranth (extra ``rtl``); its memories are macros at its ports, whose reads are registered.  ``--ports`` lists the ports.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source

    p = subparsers.add_parser(
        "rtl",
        help="write the machine's RTL core as Verilog",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--target", type=source, default="edge", metavar="NAME|FILE.nnac", help="the machine to build (edge)")
    p.add_argument("--out", type=sink(), metavar="FILE.v", help="where to write it (default: standard output)")
    p.add_argument("--ports", action="store_true", help="list the ports instead")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.emulator.listing import find_target
    from nnac.errors import UserError
    from nnac.files import atomic
    from nnac.isa import MachineConfig

    try:
        from nnac.rtl.core import ports, verilog
    except ImportError as error:
        raise UserError(
            f"the core is described in Amaranth, which is not installed ({error}): pip install 'nnac[rtl]'"
        ) from None
    config = MachineConfig.of(find_target(args.target))
    if args.ports:
        for name, (way, bits) in ports(config).items():
            print(f"{way:<4} {bits:>6}  {name}")
        return 0
    text = verilog(config)
    if not args.out:
        sys.stdout.write(text)
        return 0
    with atomic(args.out) as out:
        out.write(text.encode())
    print(f"{args.out}: core of `{config.name}`, {text.count(chr(10)):,} lines")
    return 0
