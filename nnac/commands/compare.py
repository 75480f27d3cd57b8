"""``nnac compare CHECKPOINT PROGRAM --audio FILE.wav`` or ``--manifest FILE.jsonl``: training module against emulator.

Both transcribe the same utterances; every integer of every layer is compared, step by step.  The first that differs
is named with its layer, step and element: there should be none.  With --search beam the n-best lists are compared as
well: labels, times, scores.  --plant LAYER compiles the checkpoint again with one bias or weight of that layer
changed and compares with that instead of PROGRAM: the difference has to be found there.  Exit status: 0 all equal, 1
something differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.compare import Comparison
    from nnac.program import Program
    from nnac.train.policy import Trained


def register(subparsers: Any) -> None:
    from nnac.cli import source, whole
    from nnac.commands._search import add_search_arguments

    p = subparsers.add_parser("compare", help="every integer of the training module against the emulator", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", type=source, metavar="CHECKPOINT", help="what `nnac train` wrote")
    p.add_argument("program", type=source, metavar="PROGRAM", help="what `nnac compile` made of it")
    p.add_argument("--audio", type=source, action="append", default=[], metavar="FILE.wav",
                   help="may be given several times")
    p.add_argument("--manifest", type=source, metavar="FILE.jsonl")
    p.add_argument("--first", type=whole(1), metavar="N", help="no more than the first N utterances")
    p.add_argument("--batch", type=whole(1), default=16, help="utterances in lockstep (16)")
    p.add_argument("--interpret", action="store_true",
                   help="the emulator goes instruction by instruction, instead of translated plans")
    p.add_argument("--plant", metavar="LAYER",
                   help="change one bias or weight of this layer first, to see that it is found")
    p.add_argument("--json", action="store_true", help="one JSON object")
    add_search_arguments(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.audio and not args.manifest:
        sys.stderr.write("nnac compare: give --audio FILE.wav or --manifest FILE.jsonl\n")
        return 2
    from nnac import compare as comparing
    from nnac.commands._search import search_of
    from nnac.compiler import trained as load_trained
    from nnac.emulator.executor import Emulator
    from nnac.program import Program
    from nnac.progress import progress
    from nnac.speech.audio import read_manifest

    program, trained = Program.load(args.program), load_trained(args.checkpoint)
    comparing.same_model(trained, program, (args.checkpoint, args.program))
    planted = None
    if args.plant:
        program, planted = with_fault(trained, args.plant)
    files = ([u.audio for u in read_manifest(args.manifest)] if args.manifest else []) + args.audio
    files = files[: args.first]
    features = [trained.front.hear(f)[0] for f in files]
    search = search_of(args, trained.front.tokens)
    with progress("comparing", len(features), args.json) as advance:
        result = comparing.compare(trained.module, Emulator(program, not args.interpret), trained.front, features,
                                   args.batch, advance, search)
    if args.json:
        print(json.dumps(figures(result, files, planted)))
    else:
        report(result, files, planted)
    return 0 if result.equal else 1


def with_fault(trained: Trained, layer: str) -> tuple[Program, str]:
    """The program of a trained module with one fault planted in ``layer``, and what the fault is."""
    from nnac.compare import plant
    from nnac.compiler import bind
    from nnac.schedule.compile import Settings, compile_graph

    graph, what = plant(bind(trained), layer)
    return compile_graph(graph, trained.plan.target, Settings.of(trained.plan)), what


def figures(result: Comparison, files: list[str], planted: str | None) -> dict[str, Any]:
    """The whole result, plain."""
    first = None
    if (f := result.first) is not None:
        first = dict(audio=None if f.utterance is None else files[f.utterance], value=f.value, step=f.step, element=f.element,
                     expected=f.expected, got=f.got)
    values = {name: dict(compared=c, different=d, largest=result.largest.get(name, 0)) for name, (c, d) in result.by_value.items()}
    return dict(utterances=len(files), compared_integers=result.compared, different_integers=result.different,
                different_transcripts=result.different_transcripts, different_nbest=result.different_nbest, first=first,
                values=values) | ({"planted": planted} if planted else {})


def report(result: Comparison, files: list[str], planted: str | None) -> None:
    """A table, one value a row in the order in which they are made, then the verdict."""
    from rich.table import Table

    from nnac.console import console

    table = Table("value", title="training module against emulator")
    for column in ("integers", "different", "largest difference"):
        table.add_column(column, justify="right")
    for name, (compared, different) in result.by_value.items():
        style = "bold red" if different else ""
        table.add_row(name, f"{compared:,}", f"{different:,}", f"{result.largest[name]:,}" if name in result.largest else "", style=style)
    table.add_row("all", f"{result.compared:,}", f"{result.different:,}", "", style="bold")
    console().print(table)
    if planted:
        print(f"planted: {planted}")
    if result.first:
        at = result.first.utterance
        print(f"first difference: {result.first}" + ("" if at is None else f"  ({Path(files[at]).name})"))
    else:
        print(f"no difference in {len(files)} utterances")
    print(f"n-best lists that differ: {result.different_nbest} of {len(files)}")
    print(f"transcripts that differ: {result.different_transcripts} of {len(files)}")
