"""``nnac profile PROGRAM``: where the cycles and the energy of every entry go, and the timeline as a trace file.

For each entry: cycles against the roofline, and against what no order of its instructions can beat; every unit's cycles
by reason, every layer's cycles, bytes, operations and energy (each event's as the target states it, or derived for its
process; the last line says from which figures).
``--trace FILE.json`` opens in ui.perfetto.dev or chrome://tracing.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source

    p = subparsers.add_parser("profile", help="cycles, stalls, energy and timeline of a program", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", type=source, metavar="PROGRAM", help="a program file, or assembler text (.s)")
    p.add_argument("--entry", action="append", default=[], help="only this entry (may be given several times)")
    p.add_argument("--trace", type=sink(), metavar="FILE.json", help="write the timeline")
    p.add_argument("--picture", type=sink(), metavar="FILE.svg",
                   help="draw the timeline of the entry (the first that is not `init`)")
    p.add_argument("--cycles", metavar="FIRST-END", help="of the picture: only these cycles")
    p.add_argument("--target", type=source, default="edge", metavar="NAME|FILE.nnac",
                   help="the machine, for assembler text (edge)")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.emulator.analysis import analyse
    from nnac.emulator.image import image
    from nnac.emulator.listing import load
    from nnac.emulator.trace import write_trace
    from nnac.rtl.macros import silicon
    from nnac.schedule.bounds import of_code

    loaded = load(args.program, args.target)
    made = image(loaded)
    runs = [analyse(made, name) for name in args.entry or made.entries]
    least = [of_code(r.entry.code, r.config, getattr(loaded, "host", ())) for r in runs]
    if args.json:
        print(json.dumps({r.entry.name: plain(r) | dict(bound=b.cycles, bound_by=b.shares)
                          for r, b in zip(runs, least, strict=True)}))
    else:
        print("\n\n".join(f"{r}\nno order of these instructions takes less than {b}; this one: "
                          f"{r.roofline.cycles / b.cycles:.4f} x" for r, b in zip(runs, least, strict=True)))
        if (target := runs[0].target) is not None:
            print(silicon(runs[0].config, target.sram))
    if args.trace:
        write_trace(args.trace, runs)
    if args.picture:
        return draw(args, next((r for r in runs if r.entry.name != "init"), runs[0]))
    return 0


def draw(args: argparse.Namespace, run: Any) -> int:
    """Write the picture; 2 if the cycles make no sense."""
    import sys

    from nnac.emulator.picture import svg
    from nnac.files import atomic

    try:
        span = [int(k.replace(",", "")) for k in args.cycles.split("-")] if args.cycles else [0,
            run.entry.timing.cycles]
        text = svg(run, *span)
    except (ValueError, TypeError) as error:
        sys.stderr.write(f"nnac profile: --cycles takes FIRST-END ({error})\n")
        return 2
    with atomic(args.picture, "w") as out:
        out.write(text)
    return 0


def plain(run: Any) -> dict[str, Any]:
    """An analysis as plain JSON."""
    from attrs import asdict

    r = run.roofline
    return dict(cycles=r.cycles, seconds=r.cycles / run.config.clock, macs=r.macs, dram_bytes=r.dram_bytes,
                roofline=r.ratio,
                compute_cycles=float(r.compute_cycles), memory_cycles=float(r.memory_cycles),
                matrix_cycles=r.matrix_cycles, utilisation=run.utilisation, reasons=run.reasons,
                energy=str(run.target.energy) if run.target else None,
                layers=[asdict(layer) for layer in run.layers])
