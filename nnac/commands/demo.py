"""``nnac demo --out DIR``: the whole path on real speech, in some minutes.

Speaks utterances, takes the float RNN-T that comes with nnac (or, --from-nothing, speaks hours and trains one), lints
and explains a policy, trains under it, compiles, and runs held-out speech on the emulator, comparing every integer
with the training module. Stop it at any time; called again it goes on.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import folder, network, positive, whole

    p = subparsers.add_parser("demo", help="the whole path, from speech to transcripts", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=folder, default="runs/demo", metavar="DIR", help="where everything goes (runs/demo)")
    start = p.add_mutually_exclusive_group()
    start.add_argument("--float", dest="float_path", type=network, default="demo", metavar="FILE",
                       help="the float recogniser to start from (`demo`: the one that comes with nnac)")
    start.add_argument(
        "--from-nothing", action="store_true", help="train the float recogniser too (a quarter of an hour)"
    )
    p.add_argument("--steps", type=whole(1), help="of the float training (1800); implies --from-nothing")
    p.add_argument(
        "--setup-s", type=positive, metavar="SECONDS", help="how long installing took: reported among the figures"
    )
    p.add_argument("--json", action="store_true", help="nothing but the JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from attrs import evolve

    from nnac.demo import FROM_NOTHING, Recipe
    from nnac.demo import run as demo
    from nnac.train.baseline import TrainConfig

    recipe = FROM_NOTHING if args.from_nothing or args.steps else Recipe(network=args.float_path)
    if args.steps:
        recipe = evolve(recipe, config=TrainConfig(steps=args.steps))
    say = (lambda text: None) if args.json else (lambda text: print(text, flush=True))
    figures = demo(Path(args.out), recipe, say, quiet=args.json, setup_s=args.setup_s)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if not figures["different_integers"] and not figures["different_transcripts"] else 1
