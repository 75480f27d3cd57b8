"""``nnac compare CHECKPOINT [PROGRAM] --audio FILE.wav`` or ``--manifest FILE.jsonl``: two engines, every integer.

Both transcribe the same utterances, or score the same sentences (``--text FILE``, of a language model); every integer
of every layer is compared, step by step.  The first that differs is named with its layer, step and element: there
should be none.  The two are the training module and the emulator, or what --engine says, twice; an engine that runs
programs takes PROGRAM, or compiles the checkpoint.  With --search beam the n-best lists are compared as well: labels,
times, scores. --plant LAYER changes one bias or weight of that layer for the second engine: the difference has to be
found there. Exit status: 0 all equal, 1 something differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.compare import Comparison
    from nnac.executors import Subject


def register(subparsers: Any) -> None:
    from nnac.cli import source, whole
    from nnac.commands._search import add_search_arguments
    from nnac.executors import names

    p = subparsers.add_parser("compare",
                              help="every integer of the training module against the emulator, or of any two engines",
                              description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", type=source, metavar="CHECKPOINT", help="what `nnac train` wrote")
    p.add_argument("program", type=source, metavar="PROGRAM", nargs="?",
                   help="what `nnac compile` made of it (default: compile it now)")
    p.add_argument("--engine", action="append", default=[], metavar="NAME",
                   help=f"twice, the reference first: {', '.join(names())} (torch, emulator)")
    p.add_argument("--audio", type=source, action="append", default=[], metavar="FILE.wav",
                   help="may be given several times")
    p.add_argument("--manifest", type=source, metavar="FILE.jsonl")
    p.add_argument("--text", type=source, metavar="FILE", help="sentences, one a line, of a language model")
    p.add_argument("--tensors", type=source, metavar="FILE.npz", help="the arguments of a prepared model, by name")
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
    if not args.audio and not args.manifest and not args.tensors and not args.text:
        sys.stderr.write("nnac compare: give --audio FILE.wav, --manifest FILE.jsonl, --text FILE or --tensors "
                         "FILE.npz\n")
        return 2
    if len(args.engine) not in (0, 2):
        sys.stderr.write("nnac compare: give --engine twice, or not at all: two are compared\n")
        return 2
    from attrs import evolve

    from nnac import compare as comparing
    from nnac.commands._search import searched
    from nnac.executors import executor
    from nnac.progress import progress
    from nnac.speech.audio import read_manifest

    engines = args.engine or ["torch", "emulator"]
    subject = load(args.checkpoint, args.program, args.interpret)
    other, planted = comparing.with_fault(subject, args.plant) if args.plant else (subject, None)
    if args.tensors:
        from nnac import tensors

        arrays = tensors.read_arrays(args.tensors, subject.tensors)
        result = tensors.compare(subject, other, arrays, (engines[0], engines[1]))
        if args.json:
            print(json.dumps(figures(result, [args.tensors], planted) | {"engines": engines}))
        else:
            report(result, [args.tensors], planted, engines, heard=False)
        return 0 if result.equal else 1
    if args.text:
        result = _read(args, subject, other, engines)
        if args.json:
            print(json.dumps(figures(result, [args.text], planted) | {"engines": engines}))
        else:
            report(result, [args.text], planted, engines, heard=False)
        return 0 if result.equal else 1
    subject, search = searched(args, subject)
    other = evolve(other, languages=subject.languages)
    one, two = executor(engines[0], subject), executor(engines[1], other)
    files = ([u.audio for u in read_manifest(args.manifest)] if args.manifest else []) + args.audio
    files = files[: args.first]
    front = subject.front
    features = [heard for heard, _ in front.listen_all(files)]
    with progress("comparing", len(features), args.json) as advance:
        result = comparing.compare(one, two, front, features, args.batch, advance, search)
    if args.json:
        print(json.dumps(figures(result, files, planted) | {"engines": engines}))
    else:
        report(result, files, planted, engines)
    return 0 if result.equal else 1


def _read(args: argparse.Namespace, subject: Subject, other: Subject, engines: list[str]) -> Comparison:
    """The comparison of a language model on sentences."""
    from nnac.compare import compare_labels
    from nnac.executors import executor
    from nnac.files import read_text
    from nnac.progress import progress
    from nnac.speech.tokens import TokenError

    lines = [line for line in map(str.strip, read_text(args.text).splitlines()) if line][: args.first]
    try:
        sentences = [subject.text.tokens.encode(line) for line in lines]
    except TokenError as error:
        raise TokenError(f"{args.text}: {error}") from None
    with progress("comparing", len(sentences), args.json) as advance:
        return compare_labels(executor(engines[0], subject), executor(engines[1], other), sentences, args.batch,
                              advance)


def load(checkpoint: str, program: str | None, interpret: bool) -> Subject:
    """What is compared, of one file or two.  CompareError: the two do not belong together."""
    from attrs import evolve

    from nnac.compare import same_model
    from nnac.executors import Subject
    from nnac.program import Program

    subject = Subject.load(checkpoint, interpret=interpret)
    if program is None:
        return subject
    compiled = Program.load(program)
    same_model(subject.module, compiled, (checkpoint, program))
    return evolve(subject, compiled=compiled)


def figures(result: Comparison, files: list[str], planted: str | None) -> dict[str, Any]:
    """The whole result, plain."""
    first = None
    if (f := result.first) is not None:
        first = dict(audio=None if f.utterance is None else files[f.utterance], value=f.value, step=f.step,
                     element=f.element,
                     expected=f.expected, got=f.got)
    values = {name: dict(compared=c, different=d, largest=result.largest.get(name, 0))
              for name, (c, d) in result.by_value.items()}
    return dict(utterances=len(files), compared_integers=result.compared, different_integers=result.different,
                different_transcripts=result.different_transcripts, different_nbest=result.different_nbest, first=first,
                values=values, unseen=dict(result.unseen)) | ({"planted": planted} if planted else {})


def report(result: Comparison, files: list[str], planted: str | None, engines: list[str], heard: bool = True) -> None:
    """A table, one value a row in the order in which they are made, then the verdict.  heard: the files are audio,
    which has transcripts."""
    from rich.table import Table

    from nnac.console import console

    table = Table("value", title=" against ".join(engines))
    for column in ("integers", "different", "largest difference"):
        table.add_column(column, justify="right")
    for name, (compared, different) in result.by_value.items():
        style = "bold red" if different else ""
        table.add_row(name, f"{compared:,}", f"{different:,}", f"{result.largest[name]:,}" if name in result.largest
                      else "", style=style)
    table.add_row("all", f"{result.compared:,}", f"{result.different:,}", "", style="bold")
    console().print(table)
    if result.unseen:
        print(f"not compared: {result.unseen.total():,} integers of {len(result.unseen)} values that one of the two "
              "computes and does not show")
    if planted:
        print(f"planted: {planted}")
    if result.first:
        at = result.first.utterance
        print(f"first difference: {result.first}" + ("" if at is None else f"  ({Path(files[at]).name})"))
    else:
        print(f"no difference in {f'{len(files)} utterances' if heard else files[0]}")
    if not heard:
        return
    print(f"n-best lists that differ: {result.different_nbest} of {len(files)}")
    print(f"transcripts that differ: {result.different_transcripts} of {len(files)}")
