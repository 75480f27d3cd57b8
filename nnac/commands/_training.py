"""The options that `nnac train` and `nnac baseline` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.train.pace import Run


def add_training_arguments(parser: argparse.ArgumentParser, every: int) -> None:
    """How fast, how it is run, and where its curves go."""
    from nnac.cli import folder, sink, whole

    parser.add_argument("--schedule", choices=("cosine", "one_cycle"),
                        help="of the learning rate (cosine, after a warm-up)")
    parser.add_argument("--ema", type=float, metavar="DECAY",
                        help="keep an average of the weights, 0.999 say, and end with it")
    parser.add_argument("--processes", type=whole(1, 256), metavar="N",
                        help="at most two (default: as many as there are cores)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--every", type=whole(1), default=every, metavar="STEPS",
                        help=f"between saved states ({every}); Ctrl-C saves one too")
    parser.add_argument("--tensorboard", type=folder, metavar="DIR",
                        help="also write event files (OUT.log.jsonl is always written)")
    parser.add_argument("--job", type=sink(), metavar="FILE",
                        help="do nothing but write FILE, for `torchrun -m nnac.train.loop FILE`")
    parser.add_argument("--json", action="store_true")


def run_of(args: argparse.Namespace) -> Run:
    """What the options say of how a training is run."""
    from nnac.train.pace import Run

    return Run(every=args.every, device=args.device, tensorboard=args.tensorboard)


def pace_of(args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """What the options say of the pace; only what was given.  SystemExit 2 with a message for numbers out of range."""
    if args.ema is not None and not 0.0 <= args.ema < 1.0:
        raise SystemExit(misuse(args, f"--ema is at least 0 and below 1, not {args.ema:g}"))
    if getattr(args, "distil", None) is not None and not args.distil >= 0.0:
        raise SystemExit(misuse(args, f"--distil is at least 0, not {args.distil:g}"))
    return {k: v for k in ("schedule", "ema", *more) if (v := getattr(args, k)) is not None}


def misuse(args: argparse.Namespace, message: str) -> int:
    """Say what is wrong with the command line; its exit status."""
    import sys

    sys.stderr.write(f"nnac {args.command}: {message}\n")
    return 2


def torchrun(job: str) -> str:
    return f"{job}: now, on every machine,\n  torchrun --nproc-per-node 2 -m nnac.train.loop {job}"
