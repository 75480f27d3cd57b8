"""How fast the language answers.  ``make bench-language``.

Measured, medians of several runs in one process group:
    lint_start_s
    wall time of `nnac lint` on an ordinary policy, a fresh Python each time (with `lint_start_cpu_s`, its CPU time,
                        which other work on the machine disturbs less)
    lint_2000_rules_s   linting a policy of 2,000 rules over the 57 M-weight RNN-T, from text to diagnostics, cold
    lint_linearity      time for 4,000 rules over time for 1,000, divided by four: 1 is linear
    lsp_edit_ms
    from an edit of that policy in the editor to its new diagnostics, in the language server's own work
    lsp_round_trip_ms   the same, seen by a client over stdio, messages included
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATHS = [f"encoder.lstm[{i}].{d}.{k}{g}" for i in range(6) for d in ("forward", "backward")
         for k in ("input", "recurrent")
         for g in ("", ".gate.i", ".gate.f", ".gate.g", ".gate.o")]
WAYS = ["weights int8 per_channel", "weights int4 per_gate sawb", "weights gq({bits}, space=mu_law({mu}))",
        "weights lloyd_max({bits})",
        "codec entropy", "sparsity magnitude({percent}%, from=1k steps, to=5k steps)", "pin never"]


def policy(rules: int, seed: int = 0) -> str:
    """A policy of so many rules, none the same: paths of every depth, with methods and arguments."""
    rng = random.Random(seed)
    lines = ['import "targets/edge.nnac"', "", "policy many {", '  model   rnnt(size="saon57m")', "  target  edge",
             "  training { steps 10k steps }", "  layers ** {", "    weights      int8 per_channel",
             "    activations  int8", "  }"]
    for _ in range(rules):
        way = rng.choice(WAYS).format(bits=rng.randint(2, 8), mu=rng.randint(2, 10**6), percent=rng.randint(1, 90))
        other = rng.choice(WAYS[4:]).format(percent=rng.randint(1, 90))
        lines += [f"  layers {rng.choice(PATHS)} {{", f"    {way}",
                  *([f"    {other}"] if other.split()[0] != way.split()[0] else []), "  }"]
    return "\n".join([*lines, "}", ""])


def median(runs: int, work: Callable[[], float]) -> float:
    return statistics.median(work() for _ in range(runs))


def start() -> tuple[float, float]:
    """Wall and CPU seconds of one `nnac lint` in a new process."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT)}
    before, t = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "nnac", "lint", "specs/rnnt_int8.nnac"], cwd=ROOT, env=env, check=True,
                   stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def lint(text: str) -> float:
    """Seconds from a text to its diagnostics, nothing remembered from before."""
    from nnac.language.check import check_text

    gc.collect()
    t = time.perf_counter()
    checked = check_text(text, "many.nnac")
    assert checked.errors == 0 and checked.resolutions[0].plan is not None, checked.diagnostics[:3]
    return time.perf_counter() - t


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))

    start()                                                          # writes the byte code
    starts = [start() for _ in range(args.runs)]
    thousand, two, four = policy(1000), policy(2000), policy(4000)
    lint(thousand)
    one_s, two_s, four_s = (median(args.runs, lambda t=t: lint(t)) for t in (thousand, two, four))
    from benchmarks.lsp_latency import edits, round_trips

    result = {"lint_start_s": round(statistics.median(w for w, _ in starts), 4),
              "lint_start_cpu_s": round(statistics.median(c for _, c in starts), 4),
              "lint_2000_rules_s": round(two_s, 4), "lint_linearity": round(four_s / one_s / 4, 3),
              "lsp_edit_ms": round(1000 * edits(two, 3 * args.runs), 2),
              "lsp_round_trip_ms": round(1000 * round_trips(two, 3 * args.runs), 2)}
    for key, value in result.items():
        print(f"{key:<20} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
