"""What lint expects of a policy beside what the compiler makes of it.  ``python -m benchmarks.bench_estimate``

Every policy of specs/ for a small recogniser: normally distributed weights, its schedule run to the end (pruned,
annealed), calibrated on noise, compiled.  A row each: cycles, bytes of weights and SRAM as compiled, and by how much
the estimate differs; and the least that lint would refuse. Ends with one line of JSON: the mean and the largest
magnitude of the relative errors in cycles, and whether the least was ever above the program.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def heard(plan: Any) -> bool:
    """Whether it is a recogniser's: of what is spoken, or of its alignments."""
    from nnac.train.families import module_of

    return module_of(plan.model.builder).learns_from in ("corpus", "alignments")


def module(plan, moments: int = 20):
    """A training module of ``plan`` at the end of its schedule, of which it lives so many moments, on random
    weights."""
    import torch

    from nnac.lower import lower_plan
    from nnac.train.families import module_of
    from nnac.train.schedule import Compression

    torch.manual_seed(0)
    made = module_of(plan.model.builder)(lower_plan(plan), None, plan)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim == 2:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
    total = plan.training.total or 1000
    compression = Compression(made, total, 100)
    noise = torch.Generator().manual_seed(1)
    frames = torch.randn(24, 2, made.graph.values["features"].width, generator=noise)
    labels = (torch.randint(1, 40, (6, 2), generator=noise),) if made.learns_from == "corpus" else ()
    made.calibrate([(frames, torch.full((2,), 24), *labels)])
    for step in range(0, total + 1, max(1, total // moments)):
        compression.on_step(step)
    return made.eval()


def compared(plan) -> dict[str, float]:
    """The figures of a row."""
    from attrs import evolve

    from nnac.language.estimate import estimate
    from nnac.schedule.budget import measured
    from nnac.schedule.compile import Settings, compile_graph

    program = compile_graph(module(plan).bind(), plan.target, evolve(Settings.of(plan), budgets=()))
    real, cost = measured(program), estimate(plan, plan.graph)
    out = {q: real[q] for q in ("cycles", "weights", "sram")}
    out |= {f"{q}_error": cost.quantity(q) / real[q] - 1 for q in ("cycles", "weights", "sram")}
    return out | {"least_cycles": cost.least("cycles"), "sound": all(cost.least(q) <= v for q, v in real.items())}


def main() -> None:
    from nnac.language.check import check_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", help="files; all of specs/ if none")
    args = parser.parse_args()
    rows, seen = {}, set()
    for path in [Path(p) for p in args.policies] or sorted((ROOT / "specs").rglob("*.nnac")):
        for name, r in check_file(path).variants.items():
            if r.plan is None or not heard(r.plan) or r.plan.graph.weights > 3_000_000 or r.plan.digest in seen:
                continue
            seen.add(r.plan.digest)
            row = rows[f"{path.stem}:{name}"] = compared(r.plan)
            print(f"{path.stem + ':' + name:<44} {row['cycles']:>9,.0f} cycles {row['cycles_error']:+7.1%}   "
                  f"{row['weights']:>9,} bytes "
                  f"{row['weights_error']:+7.1%}   SRAM {row['sram_error']:+7.1%}   at least {row['least_cycles']:,} "
                  f"cycles", flush=True)
    errors = [abs(row["cycles_error"]) for row in rows.values()]
    print(json.dumps({"policies": len(rows), "mean_error": round(statistics.mean(errors), 4),
                      "largest_error": round(max(errors), 4),
                      "sound": all(row["sound"] for row in rows.values())}))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
