"""``nnac baseline --corpus DIR --out FILE``: train the float network that policies start from: an RNN-T, with
``--alignments`` a hybrid's acoustic model, or of ``--text`` a language model.

Resumes where it was stopped; the same steps give the same weights, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.train.pace import Run


def register(subparsers: Any) -> None:
    from nnac.cli import SEED, corpus, sink, source, whole
    from nnac.commands._training import add_training_arguments

    p = subparsers.add_parser("baseline", help="train the float network", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    data = p.add_mutually_exclusive_group(required=True)
    data.add_argument("--corpus", type=corpus, metavar="DIR", help="speech: an RNN-T")
    data.add_argument("--text", type=source, metavar="FILE", help="sentences, one a line: a language model")
    p.add_argument("--tokens", type=source, metavar="FILE",
                   help="the recogniser whose word pieces a language model takes (default: its own)")
    p.add_argument("--alignments", type=source, metavar="FILE",
                   help="what `nnac align` wrote: a hybrid, which learns the state of every frame")
    p.add_argument("--start", type=source, metavar="FILE",
                   help="a float hybrid of the same states to go on from")
    p.add_argument("--out", type=sink(".part", ".lock", ".log.jsonl"), required=True, metavar="FILE")
    p.add_argument("--model", choices=("rnnt", "conformer"), help="of the recogniser (rnnt: LSTMs)")
    p.add_argument("--steps", type=whole(1),
                   help="optimiser steps (default: the demo's 1800; 1000 of a language model)")
    p.add_argument("--longer", action="store_true", help="the longer run: 2600 steps")
    p.add_argument("--cells", type=whole(1, 1 << 16), metavar="N", help="of every LSTM, and width of the joint (256)")
    p.add_argument("--stateless", type=whole(0, 8), metavar="K",
                   help="labels that a Conformer's prediction network knows (default 0: an LSTM, which knows all)")
    p.add_argument("--vocabulary", type=whole(2, 1 << 20), metavar="N",
                   help="of a language model's own word pieces (64)")
    p.add_argument("--seed", type=SEED, default=0)
    add_training_arguments(p, every=100)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from attrs import evolve

    from nnac.commands._training import misuse, pace_of, run_of, torchrun
    from nnac.model.conformer_torch import ConformerConfig
    from nnac.train.baseline import CONFORMER, LONGER, TrainConfig, task, train
    from nnac.train.loop import write_job

    how = run_of(args)
    if args.text:
        return _language(args, how)
    if args.alignments and args.model:
        return misuse(args, "--model is of an RNN-T; a hybrid's --alignments say that it is one")
    if args.alignments:
        return _hybrid(args, how)
    if args.start:
        return misuse(args, "--start is of a hybrid's --alignments")
    if args.tokens or args.vocabulary:
        return misuse(args,
            "--tokens and --vocabulary are of a language model's --text; the demo's recogniser learns 64 of its own")
    if args.model == "conformer":
        if args.cells or args.longer:
            return misuse(args, "--cells and --longer are of LSTMs; of a Conformer say --steps")
        config = evolve(CONFORMER, model=ConformerConfig(stateless=args.stateless or 0))
    elif args.stateless is not None:
        return misuse(args, "--stateless is of a Conformer: say --model conformer")
    else:
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


def _hybrid(args: argparse.Namespace, how: Run) -> int:
    """The same of a hybrid."""
    from attrs import evolve

    from nnac.commands._training import misuse, pace_of, torchrun
    from nnac.train.hybrid import HybridTraining, float_task, train
    from nnac.train.loop import write_job

    if idle := [o for o in ("longer", "tokens", "vocabulary", "stateless") if getattr(args, o) not in (None, False)]:
        return misuse(args, f"--{idle[0]} is not a hybrid's; say --steps, and `nnac align --states`")
    config = HybridTraining()
    if args.cells:
        config = evolve(config, model=evolve(config.model, cells=args.cells))
    config = evolve(config, seed=args.seed, steps=args.steps or config.steps, **pace_of(args))
    task = float_task(args.corpus, args.alignments, args.out, config, args.start or "", args.device)
    if args.job:
        write_job(task, how, args.job)
        print(torchrun(args.job))
        return 0
    last = train(task, "training", args.processes, quiet=args.json, run=how)[-1]
    print(json.dumps(last) if args.json else f"{args.out}: {last['step']} steps, {task.measure.format(last['dev'])}")
    return 0


def _language(args: argparse.Namespace, how: Run) -> int:
    """The same of a language model."""
    from attrs import evolve

    from nnac.commands._training import misuse, pace_of, torchrun
    from nnac.train.language import LmTraining, float_task, train
    from nnac.train.loop import write_job

    if args.longer or args.model or args.stateless is not None:
        return misuse(args, "--longer, --model and --stateless are a recogniser's; of a language model say --steps")
    if args.alignments or args.start:
        return misuse(args, "--alignments and --start are a hybrid's, which learns from a --corpus")
    config = LmTraining()
    sizes = {k: v for k, v in dict(cells=args.cells, vocabulary=args.vocabulary).items() if v is not None}
    config = evolve(config, model=evolve(config.model, **sizes), seed=args.seed, steps=args.steps or config.steps,
                    **pace_of(args))
    task = float_task(args.text, args.out, config, args.tokens or "")
    if args.job:
        write_job(task, how, args.job)
        print(torchrun(args.job))
        return 0
    last = train(task, "training", args.processes, quiet=args.json, run=how)[-1]
    print(json.dumps(last) if args.json else f"{args.out}: {last['step']} steps, {task.measure.format(last['dev'])}")
    return 0
