"""``nnac demo --out DIR``: the whole path on real speech.

Speaks a corpus, trains a float RNN-T on it, lints and explains a policy, trains under it, compiles, and runs held-out speech on the
emulator, comparing every integer with the training module.  Stop it at any time; called again it goes on.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import folder, whole

    p = subparsers.add_parser("demo", help="the whole path, from nothing to transcripts", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=folder, default="runs/demo", metavar="DIR", help="where everything goes (runs/demo)")
    p.add_argument("--steps", type=whole(1), help="of the float training (1800)")
    p.add_argument("--json", action="store_true", help="nothing but the JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from attrs import evolve

    from nnac.demo import Recipe
    from nnac.demo import run as demo

    recipe = Recipe()
    if args.steps:
        recipe = evolve(recipe, config=evolve(recipe.config, steps=args.steps))
    say = (lambda text: None) if args.json else (lambda text: print(text, flush=True))
    figures = demo(Path(args.out), recipe, say, quiet=args.json)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if not figures["different_integers"] and not figures["different_transcripts"] else 1
