"""``nnac graph NETWORK --lm FILE.arpa --out FILE``: the decoding graph of a hybrid: lexicon and n-gram in one.

NETWORK says which words and HMM states there are: what `nnac baseline --alignments`, `nnac train` or `nnac compile`
wrote.  The language model is over words (`nnac ngram --tokens NETWORK`, or any ARPA file of the lexicon's words).
`nnac run --graph` searches the graph; another network of the same states may use it too.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source

    p = subparsers.add_parser("graph", help="make a hybrid's decoding graph of a word n-gram", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("network", type=source, metavar="NETWORK", help="float hybrid, checkpoint or program")
    p.add_argument("--lm", type=source, required=True, metavar="FILE.arpa", help="an n-gram over words")
    p.add_argument("--out", type=sink(), required=True, metavar="FILE")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.commands._network import front_of
    from nnac.decode.ngram import read_arpa
    from nnac.hybrid.graph import GraphError, build

    front = front_of(args.network)
    if front.hmm is None:
        raise GraphError(f"{args.network}: a transducer, which writes its words itself: graphs are for hybrids")
    model = read_arpa(args.lm, front.tokens)
    lacking = [w for k, w in enumerate(front.hmm.inventory.lexicon.words, 1) if k not in model.contexts[()][0]]
    made = build(model.contexts, model.order, front.hmm.inventory, dict(order=model.order, unsaid=lacking))
    made.save(args.out)
    if args.json:
        print(json.dumps(dict(out=args.out, states=made.states, arcs=len(made.arcs), words=len(made.words),
                              order=model.order, unsaid=lacking)))
    else:
        print(f"{args.out}: {made}, a {model.order}-gram"
              + (f"; {len(lacking)} words the language model never says: {', '.join(lacking[:6])}" if lacking else ""))
    return 0
