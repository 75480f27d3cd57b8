"""``nnac tune-fusion NETWORK --corpus DIR --lm TARGET.arpa --source-lm SOURCE.arpa --out FILE``: weights of fusion on
a development set.

Every fusion (none, shallow, density ratio, internal LM) gets the same grid of weights and bonuses; each point is one
search over the set, the encoder runs once.  Resumes where it was stopped.  NETWORK is a float network, a checkpoint
or a program.  Prints the best of each fusion with the options that `nnac run` takes.  The optimum is narrow, and it
belongs to this domain: the target's model does harm elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.decode.ngram import Automaton
    from nnac.decode.tuning import Result


def numbers(low: float, high: float) -> Callable[[str], tuple[float, ...]]:
    """An argument's type: real numbers with commas between."""
    from nnac.commands._search import real

    one = real(low, high)
    return lambda text: tuple(one(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """An argument's type: names of fusions with commas between."""
    from nnac.decode.tuning import FUSIONS

    given = tuple(text.split(","))
    if unknown := [n for n in given if n not in FUSIONS]:
        raise argparse.ArgumentTypeError(f"there is no fusion `{unknown[0]}` (there are: {', '.join(FUSIONS)})")
    return given


def register(subparsers: Any) -> None:
    from nnac.cli import corpus, sink, source, whole
    from nnac.commands._search import real, within

    p = subparsers.add_parser("tune-fusion", help="weights of language models, on a development set",
                              description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("network", type=source, metavar="NETWORK")
    p.add_argument("--corpus", type=corpus, required=True, metavar="DIR")
    p.add_argument("--split", default="home_dev", help="the development set (home_dev)")
    p.add_argument("--first", type=whole(1), metavar="N", help="no more than its first N utterances")
    p.add_argument("--lm", type=source, metavar="FILE.arpa",
                   help="language model of the target's domain (a program's own)")
    p.add_argument("--source-lm", type=source, metavar="FILE.arpa",
                   help="language model of the training text (a program's own)")
    p.add_argument("--fusion", type=names, metavar="NAMES",
                   help="which (none,shallow,density_ratio,internal: what the models allow)")
    p.add_argument("--weights", type=numbers(0, 4), metavar="W,…", help="of the target's model (0.1,0.2,0.3,0.4,0.6)")
    p.add_argument("--shares", type=numbers(0, 4), metavar="S,…",
                   help="of that, taken off for the other model (0.5,0.75,1)")
    p.add_argument("--bonuses", type=numbers(-16, 16), metavar="B,…", help="nats a label (0,0.2,0.4,0.6)")
    p.add_argument("--beam", type=within("beam"), default=4, metavar="K", help="hypotheses kept (4)")
    p.add_argument("--max-symbols", type=within("max_symbols"), default=6, metavar="N",
                   help="labels that one frame may emit (6)")
    p.add_argument("--delta", type=real(0, 1e6), default=5.0, metavar="NATS", help="how far behind the best (5)")
    p.add_argument("--out", type=sink(), required=True, metavar="FILE", help="results, one a line")
    p.add_argument("--json", action="store_true", help="one JSON object with the best of each fusion")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from nnac.commands._network import listener
    from nnac.decode import tuning
    from nnac.decode.ngram import automaton, read_arpa
    from nnac.decode.search.beam import Beam
    from nnac.progress import progress
    from nnac.speech.corpus import load_split

    heard = listener(args.network)
    split = load_split(args.corpus, args.split)
    split = split if args.first is None else split.first(args.first)
    inside = {name: name for name in heard.entries}
    target, before = (inside.get(name) if path is None else automaton(read_arpa(path, heard.front.tokens))
                      for name, path in (("lm", args.lm), ("source_lm", args.source_lm)))
    possible = ["none", *(["shallow", "internal"] if target else []), *(["density_ratio"] if target and before else [])]
    wanted = args.fusion or [f for f in tuning.FUSIONS if f in possible]
    if impossible := [f for f in wanted if f not in possible]:
        needed = "--lm and --source-lm" if impossible[0] == "density_ratio" else "--lm"
        raise tuning.TuningError(f"{impossible[0]} needs {needed}")
    given = {k: v for k, v in (("weights", args.weights), ("shares", args.shares), ("bonuses", args.bonuses)) if v}
    points = tuning.grid(wanted, **given)
    belongs = tuning.identity(network=heard.digest, split=args.split, set=tuning.features_digest(split.features),
                              texts=split.texts, lm=_digest(target), source=_digest(before),
                              beam=args.beam, max_symbols=args.max_symbols, delta=args.delta)
    tuning.load(args.out, belongs)                         # say what does not belong together before an hour of work
    features = [heard.front.heard(np.asarray(f, np.float32)) for f in split.features]
    encoded = tuning.Encoded.of(heard.model, features, carry=heard.carry)
    beam, results = Beam(args.beam, args.max_symbols, args.delta), []
    with progress("tuning", len(points), args.json) as advance:
        for r in tuning.tune(heard.model, encoded, split.texts, heard.front.text, beam, points, (target, before),
                             args.out,
                             belongs):
            results.append(r)
            advance(1, f"{r.point.fusion} {r.rate:.1f} %")
    report(results, args.json)
    return 0


def _digest(model: Automaton | str | None) -> str | None:
    """What a language model is: an automaton's contents; an entry's name, since its program is the network."""
    return model if model is None or isinstance(model, str) else model.digest


def report(results: list[Result], as_json: bool) -> None:
    """The best of each fusion, and how far the grid's worst lies from it."""
    from nnac.decode import tuning

    best, points = tuning.best(results), [r.point for r in results]
    if as_json:
        print(json.dumps({f: dict(wer=round(r.rate, 3), weight=r.point.weight, less=r.point.less, bonus=r.point.bonus,
                                  at_the_edge=tuning.at_the_edge(r.point, points)) for f, r in best.items()}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("fusion", "best", "worst", "points", "options of nnac run", title="weights on the development set")
    for fusion, r in best.items():
        rates = [x.rate for x in results if x.point.fusion == fusion]
        edge = "  (at the grid's edge)" if tuning.at_the_edge(r.point, points) else ""
        table.add_row(fusion, f"{r.rate:.2f} %", f"{max(rates):.2f} %", str(len(rates)), r.point.options() + edge)
    Console(file=sys.stdout).print(table)
