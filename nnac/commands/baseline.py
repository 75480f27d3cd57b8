"""``nnac baseline --corpus DIR --out FILE``: train the float RNN-T that policies start from.

Resumes where it was stopped; the same steps give the same weights, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import SEED, corpus, sink, whole
    from nnac.commands._training import add_training_arguments

    p = subparsers.add_parser("baseline", help="train the float RNN-T", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", type=corpus, required=True, metavar="DIR")
    p.add_argument("--out", type=sink(".part", ".log.jsonl"), required=True, metavar="FILE")
    p.add_argument("--steps", type=whole(1), help="optimiser steps (default: the demo's 1800)")
    p.add_argument("--longer", action="store_true", help="the longer run: 2600 steps")
    p.add_argument("--cells", type=whole(1, 1 << 16), metavar="N", help="of every LSTM, and width of the joint (256)")
    p.add_argument("--seed", type=SEED, default=0)
    add_training_arguments(p, every=100)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from attrs import evolve

    from nnac.commands._training import pace_of, run_of, torchrun
    from nnac.train.baseline import LONGER, TrainConfig, task, train
    from nnac.train.loop import write_job

    how = run_of(args)
    config = LONGER if args.longer else TrainConfig()
    if args.cells:
        config = evolve(config, model=evolve(config.model, hidden=args.cells, prediction=args.cells, joint=args.cells))
    config = evolve(config, seed=args.seed, steps=args.steps or config.steps, **pace_of(args))
    if args.job:
        write_job(task(args.corpus, args.out, config, args.device), how, args.job)
        print(torchrun(args.job))
        return 0
    last = train(args.corpus, args.out, config, args.processes, quiet=args.json, run=how)[-1]
    print(json.dumps(last) if args.json else f"{args.out}: {last['step']} steps, dev WER {last['dev']:.2f} %")
    return 0
