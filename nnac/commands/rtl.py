"""``nnac rtl --target NAME --out core.v``: the machine's RTL core as Verilog.

The core is described in Amaranth (extra ``rtl``); its memories are macros at its ports, whose reads are registered.
``--ports`` lists the ports.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.isa import MachineConfig


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source

    p = subparsers.add_parser(
        "rtl",
        help="write the machine's RTL core as Verilog",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--target", type=source, default="edge", metavar="NAME|FILE.nnac",
                   help="the machine to build (edge)")
    p.add_argument("--out", type=sink(), metavar="FILE.v", help="where to write it (default: standard output)")
    p.add_argument("--ports", action="store_true", help="list the ports instead")
    p.add_argument("--memories", action="store_true", help="list the memories, their ports, and what is ideal, instead")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.emulator.listing import find_target
    from nnac.errors import UserError
    from nnac.files import atomic
    from nnac.isa import MachineConfig

    try:
        from nnac.rtl.core import ports, verilog
        from nnac.rtl.params import lacking
    except ImportError as error:
        raise UserError(
            f"the core is described in Amaranth, which is not installed ({error}): pip install 'nnac[rtl]'"
        ) from None
    config = MachineConfig.of(find_target(args.target))
    if args.ports:
        for name, (way, bits) in ports(config).items():
            print(f"{way:<4} {bits:>6}  {name}")
        return 0
    if args.memories:
        memories(config)
        return 0
    text = verilog(config)
    if not args.out:
        sys.stdout.write(text)
        return 0
    with atomic(args.out) as out:
        out.write(text.encode())
    without = f"; it lacks {', '.join(cls.__name__ for cls in lacking())}" if lacking() else ""
    print(f"{args.out}: core of `{config.name}`, {text.count(chr(10)):,} lines{without}")
    return 0


def memories(config: MachineConfig) -> None:
    """Print the memories: size, ports, what the SRAM budget counts; then what the core takes for granted."""
    from nnac.rtl.macros import IDEAL, macros

    print(
        f"{'memory':<8}{'words':>8}{'bits':>7}{'KiB':>8}{'copies':>8}{'KiB in all':>11}{'in the budget':>15}   "
        "read; written"
    )
    total = counted = 0
    for m in macros(config):
        kib = m.size / 8192
        total, counted = total + m.size * m.copies, counted + m.budget
        print(
            f"{m.name:<8}{m.words:>8}{m.bits:>7}{kib:>8.1f}{m.copies:>8}{kib * m.copies:>11.1f}{m.budget / 8192:>15.1f}"
            f"   {', '.join(m.reads)}; {', '.join(m.writes)}"
        )
    print(f"{'all':<8}{'':>31}{total / 8192:>11.1f}{counted / 8192:>15.1f}\n")
    for what, core, chip in IDEAL:
        print(f"{what}: here {core}; on a chip {chip}")
