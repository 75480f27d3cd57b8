"""``nnac run PROGRAM --audio FILE.wav`` or ``--manifest FILE.jsonl``: transcribe on the emulator.

Any 16-bit PCM WAV: other sample rates are resampled, channels mixed.  A manifest has one JSON object a line with ``audio`` and, for the
word error rate, ``text``.  Prints transcripts, then cycles and the real-time factor at the program's clock.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import source, whole

    p = subparsers.add_parser("run", help="transcribe audio on the emulator", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", type=source, metavar="PROGRAM")
    p.add_argument("--audio", type=source, action="append", default=[], metavar="FILE.wav",
                   help="may be given several times")
    p.add_argument("--manifest", type=source, metavar="FILE.jsonl")
    p.add_argument("--batch", type=whole(1), default=16, help="utterances in lockstep (16)")
    p.add_argument("--interpret", action="store_true", help="instruction by instruction, instead of translated plans")
    p.add_argument("--json", action="store_true", help="one JSON object a line per utterance, then one with the totals")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.audio and not args.manifest:
        sys.stderr.write("nnac run: give --audio FILE.wav or --manifest FILE.jsonl\n")
        return 2
    from nnac.program import Program
    from nnac.runtime import recognise_files
    from nnac.speech.audio import read_manifest

    listed = read_manifest(args.manifest) if args.manifest else []
    files = [u.audio for u in listed] + args.audio
    references = [u.text for u in listed] if listed and not args.audio else None
    done = recognise_files(Program.load(args.program), files, references, batch=args.batch, fast=not args.interpret, quiet=args.json)
    for i, (name, text) in enumerate(zip(files, done.texts, strict=True)):
        reference = listed[i].text if i < len(listed) else None
        if args.json:
            print(json.dumps({"audio": name, "text": text} | ({} if reference is None else {"reference": reference})))
        elif len(files) == 1:
            print(text)
        else:
            print(f"{name}: {text}" + (f"\n    reference: {reference}" if reference not in (None, text) else ""))
    print(json.dumps(done.totals()) if args.json else done)
    return 0
