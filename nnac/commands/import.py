"""``nnac import CHECKPOINT --as TOOLKIT --out MODEL``: another toolkit's transducer, under its own names.

CHECKPOINT is a `.pt`, `.pth`, `.ckpt`, `.nemo` or `.safetensors` file; of a pickle tensors alone are read, no code of
its author runs.  Which tensors are which layers says the toolkit's map, a small TOML file; --map takes one of your own
(docs/models.md).  What no layer of the map reads is refused by name.

`nnac new MODEL` writes a first policy for what was imported, `nnac train POLICY --float MODEL` starts from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import corpus, sink, source

    p = subparsers.add_parser("import", help="another toolkit's checkpoint as a model of nnac's", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", type=source, metavar="CHECKPOINT")
    how = p.add_mutually_exclusive_group(required=True)
    how.add_argument("--as", dest="toolkit", metavar="TOOLKIT", help="mlperf, mlperf-inference, icefall-lstm, nemo, "
                     "espnet, speechbrain, torchaudio, plain")
    how.add_argument("--map", type=source, metavar="FILE.toml", help="a map of your own")
    p.add_argument("--out", type=sink(), required=True, metavar="MODEL")
    p.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER",
                   help="an option of the map, such as stack_time=2")
    p.add_argument("--outside", action="append", default=[], metavar="NAME",
                   help="tensors under this name stay on the host: the model begins behind them")
    p.add_argument("--tokens", type=source, metavar="FILE",
                   help="pieces, one a line, in the toolkit's order, with one for the blank: then the model "
                        "hears audio (else: arrays)")
    p.add_argument("--corpus", type=corpus, metavar="DIR", help="whose features and normalisation it hears with")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.imports import maps
    from nnac.imports.model import hears_otherwise, imported, read_tokens

    found = maps.load(args.map) if args.map else maps.named(args.toolkit)
    options = _options(args.set)
    features = None
    if args.corpus:
        from nnac.speech.corpus import load_split

        split = load_split(args.corpus, "train")
        features = split.recipe.features, split.normalisation()
    tokens = read_tokens(args.tokens, found.blank) if args.tokens else None
    made = imported(args.checkpoint, found, options, tuple(args.outside), tokens, features)
    made.save(args.out)
    facts = dict(model=args.out, toolkit=found.title, layers=len(made.graph.layers), weights=made.graph.weights,
                 entries=[e.name for e in made.graph.entries], hears=tokens is not None)
    if tokens is not None and features is None and (warning := hears_otherwise(found)):
        print(f"warning: {warning}", file=sys.stderr)
    if args.json:
        print(json.dumps(facts))
        return 0
    print(f"{args.out}: {found.title}, {facts['layers']} layers of {made.graph.weights:,} weights; takes "
          f"{'audio' if tokens else 'arrays of features'}")
    print(f"now: nnac new {args.out} --target edge --out mine.nnac")
    return 0


def _options(given: list[str]) -> dict[str, float]:
    """``NAME=NUMBER`` of each.  ImportError_: one is not that."""
    from nnac.imports.files import ImportError_
    from nnac.imports.maps import MOST, whole

    out = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        try:
            out[name] = float(text)
        except ValueError:
            equals = ""
        if not equals or not whole(out[name]):
            raise ImportError_(f"--set takes NAME=NUMBER, a whole number from 1 to {MOST}, not `{pair[:60]}`")
    return out
