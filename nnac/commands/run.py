"""``nnac run FILE --audio FILE.wav`` or ``--manifest FILE.jsonl``: transcribe, on the emulator or another engine.

``nnac run FILE --tensors IN.npz [--out OUT.npz]``: the same for a model of your own (`nnac.prepare`): arrays in, arrays
out.

FILE is a program, or a checkpoint: it is compiled first where the engine wants a program.

Greedy search, or beam search in exact integers (--search beam), alone or with language models beside it: --lm and
--lm-scale alone are shallow fusion, with --source-lm and --source-scale density ratio, with --ilm-scale internal-LM
subtraction.  Fusion belongs to one domain: on other sentences it does harm.

Any 16-bit PCM WAV: other sample rates are resampled, channels mixed.  A manifest has one JSON object a line with
``audio`` and, for the word error rate, ``text``.  Prints transcripts, then cycles and the real-time factor at the
program's clock.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.decode.front_end import FrontEnd
    from nnac.decode.search import Hypothesis

LOG_UNIT = 1 << 11             # of a score: 2^-11 nat


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source, whole
    from nnac.commands._search import add_search_arguments
    from nnac.executors import names

    p = subparsers.add_parser("run", help="transcribe audio on the emulator or another engine", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=source, metavar="FILE", help="what `nnac compile` or `nnac train` wrote")
    p.add_argument("--audio", type=source, action="append", default=[], metavar="FILE.wav",
                   help="may be given several times")
    p.add_argument("--manifest", type=source, metavar="FILE.jsonl")
    p.add_argument("--tensors", type=source, metavar="FILE.npz",
                   help="the arguments of a prepared model, by name (.npz), or the only one (.npy)")
    p.add_argument("--out", type=sink(), metavar="FILE.npz", help="where its results go (with --tensors)")
    p.add_argument("--engine", default="emulator", metavar="NAME", help=f"{', '.join(names())} (emulator)")
    p.add_argument("--batch", type=whole(1), default=16, help="utterances in lockstep (16)")
    p.add_argument("--normalise", action="store_true",
                   help="count word errors without regard to case and punctuation, in references and transcripts alike")
    p.add_argument("--interpret", action="store_true", help="instruction by instruction, instead of translated plans")
    p.add_argument("--json", action="store_true", help="one JSON object a line per utterance, then one with the totals")
    add_search_arguments(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.tensors:
        return run_tensors(args)
    if not args.audio and not args.manifest:
        sys.stderr.write("nnac run: give --audio FILE.wav, --manifest FILE.jsonl, or --tensors FILE.npz\n")
        return 2
    from nnac.commands._search import searched
    from nnac.executors import Subject
    from nnac.rendering import clean
    from nnac.runtime import recognise_files
    from nnac.speech.audio import read_manifest
    from nnac.speech.wer import normalised

    listed = read_manifest(args.manifest) if args.manifest else []
    files = [u.audio for u in listed] + args.audio
    references = [u.text for u in listed] if listed and not args.audio else None
    if references and args.normalise:
        references = list(map(normalised, references))
    subject, search = searched(args, Subject.load(args.file, interpret=args.interpret))
    front = subject.front
    done = recognise_files(subject, files, references, engine=args.engine, batch=args.batch, quiet=args.json,
                           search=search, normalise=args.normalise)
    if references and (unwritable := front.unwritable(references)):
        sys.stderr.write(f"nnac run: the references have {unwritable}, which no token writes: words with them count as "
                         f"errors"
                         f"{'' if args.normalise else '; --normalise counts without case and punctuation'}\n")
    shown = args.nbest or 1
    for i, (name, text, nbest) in enumerate(zip(files, done.texts, done.nbest, strict=True)):
        reference = listed[i].text if i < len(listed) else None
        if args.json:
            more = {} if args.nbest is None else {"nbest": [listing(h, front) for h in nbest]}
            known = {} if reference is None else {"reference": reference}
            print(json.dumps({"audio": name, "text": text} | known | more))
        elif len(files) == 1:
            print(text)
        else:
            print(f"{clean(name)}: {text}" + (f"\n    reference: {clean(reference or '')}"
                                              if reference not in (None, text) else ""))
        if shown > 1 and not args.json:
            for h in nbest:
                print(f"    {(h.score or 0) / LOG_UNIT:10.3f}  {front.text(h.tokens)}")
    print(json.dumps(done.totals()) if args.json else done)
    return 0


def run_tensors(args: argparse.Namespace) -> int:
    """Arrays in, arrays out."""
    from nnac import tensors
    from nnac.executors import Subject
    from nnac.files import clash

    if args.out and (problem := clash(args.out, [args.file, args.tensors])):
        sys.stderr.write(f"nnac run: {problem}\n")
        return 2
    subject = Subject.load(args.file, interpret=args.interpret)
    made = tensors.run(subject, tensors.read_arrays(args.tensors, subject.tensors), args.engine)
    if args.out:
        tensors.write_arrays(args.out, made.results)
    facts = {"shapes": [list(r.shape) for r in made.results], "steps": made.steps} | (
        {} if made.cycles is None else {"cycles": made.cycles})
    if args.json:
        print(json.dumps(facts | ({} if args.out else {"results": [r.tolist() for r in made.results]})))
        return 0
    for i, r in enumerate(made.results):
        of = f" {i}" if len(made.results) > 1 else ""
        print(f"result{of} {list(r.shape)}: {float(r.min()):.6g} … {float(r.max()):.6g}" +
              (f", in {args.out}" if args.out else ""))
    if made.cycles is not None:
        print(f"{made.steps:,} steps: {made.cycles:,} cycles")
    return 0


def listing(h: Hypothesis, front: FrontEnd) -> dict[str, Any]:
    """One hypothesis, plain: score in nats, and the encoder frame of every token."""
    score = None if h.score is None else h.score / LOG_UNIT
    return dict(text=front.text(h.tokens), score=score, tokens=h.tokens, frames=h.times)
