"""``nnac diff A B``: how two policies differ, layer by layer, and in bytes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.language.estimate import Estimate
    from nnac.plan import Plan


def register(subparsers: Any) -> None:
    from nnac.cli import source

    p = subparsers.add_parser("diff", help="how two policies differ, layer by layer and in bytes", description=__doc__)
    p.add_argument("a", type=source, metavar="A", help="a policy file; FILE:NAME chooses one of several policies")
    p.add_argument("b", type=source, metavar="B")
    p.add_argument("-D", dest="define", action="append", default=[], metavar="NAME=VALUE",
                   help="value of a `let` or `sweep`, in both")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.cli import definitions
    from nnac.language.estimate import estimate
    from nnac.policy import load

    plans = []
    for one in (args.a, args.b):
        path, name = (one, None) if Path(one).exists() else (one.rpartition(":")[0] or one, one.rpartition(":")[2])
        plans.append(load(path, name, **definitions(args.define)).plan)
    a, b = plans
    costs = estimate(a, a.graph), estimate(b, b.graph)
    rows, totals = changes(a, b, *costs), summary(*costs)
    if args.json:
        print(json.dumps({"a": a.name, "b": b.name, "changes": rows, "totals": totals}))
    else:
        print(f"{a.name} → {b.name}\n")
        for row in rows:
            print(f"{row['site']:<34} {row['setting']:<12} {row['a'] or '—'} → {row['b'] or '—'}{_bytes(row)}")
        print("" if rows else "no differences\n")
        for name, (was, now) in totals.items():
            print(f"{name:<16} {_shown(was):>12} → {_shown(now):>12}   {_percent(was, now)}")
        print("expected, before training")
    return 1 if rows else 0


def _bytes(row: dict[str, Any]) -> str:
    return f"   {row['bytes_a']:,} → {row['bytes_b']:,} bytes" if "bytes_a" in row else ""


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _percent(a: float, b: float) -> str:
    return f"{100 * (b - a) / a:+.1f} %" if a else ""


def changes(a: Plan, b: Plan, cost_a: Estimate, cost_b: Estimate) -> list[dict[str, Any]]:
    """Each setting that differs, at the highest site where it does; with bytes where weights are concerned."""
    out: list[dict[str, Any]] = []
    for path in dict.fromkeys([s.path for s in a] + [s.path for s in b]):
        left, right = (p[path].settings if path in p else {} for p in (a, b))
        if path not in a or path not in b:
            if (path in a and a[path].kind == "layer") or (path in b and b[path].kind == "layer"):
                out.append({"site": path, "setting": "", "a": "there" if path in a else None, "b": "there" if path in b
                            else None})
            continue
        kernel = path.rpartition(".gate.")[0]
        for name in dict.fromkeys([*left, *right]):
            was, now = left.get(name), right.get(name)
            if was == now or (kernel and (a[kernel].settings.get(name), b[kernel].settings.get(name)) == (was, now)):
                continue
            row: dict[str, Any] = {"site": path, "setting": name, "a": None if was is None else str(was),
                                   "b": None if now is None else str(now)}
            if name in ("weights", "sparsity") and path in cost_a.kernels:
                row |= {"bytes_a": cost_a.kernels[path].bytes, "bytes_b": cost_b.kernels[path].bytes}
            out.append(row)
    return out


def summary(a: Estimate, b: Estimate) -> dict[str, tuple[float, float]]:
    """The totals of both."""
    return {"weight bytes": (a.weight_bytes, b.weight_bytes), "bits per weight": (a.bits_per_weight, b.bits_per_weight),
            "sram bytes": (a.sram_bytes, b.sram_bytes), "cycles per step": (a.cycles, b.cycles),
            "step, us": (a.seconds * 1e6, b.seconds * 1e6)}
