"""``nnac align --corpus DIR --out FILE``: which HMM state each frame of a corpus is, for hybrids to learn from.

From nothing but texts and a lexicon: one Gaussian for each half of each phone, and Viterbi.  With ``--network FILE``,
what `nnac baseline --alignments` wrote, by that network instead, in its own states.  Splits `train` and `dev` are
aligned; the lexicon that comes with nnac has the demo corpus's words.  ``--picture`` draws one utterance of `dev` with
its words, phones and states.  ``--topology`` alone prints which state may follow which.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

SPLITS = ("train", "dev")


def register(subparsers: Any) -> None:
    from nnac.cli import corpus, sink, source, whole

    p = subparsers.add_parser("align", help="align a corpus with its texts: HMM states for hybrids",
                              description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", type=corpus, metavar="DIR")
    p.add_argument("--out", type=sink(), metavar="FILE", help="the alignments")
    p.add_argument("--network", type=source, metavar="FILE", help="a float hybrid, whose states and lexicon are kept")
    p.add_argument("--lexicon", type=source, metavar="FILE",
                   help="pronunciations, `WORD PHONE PHONE …` a line (default: the demo corpus's, from CMUdict)")
    p.add_argument("--states", type=whole(2), metavar="N", help="HMM states, those after a given phone included (512)")
    p.add_argument("--stack", type=whole(1, 256), metavar="N", help="10 ms frames of one label (3)")
    p.add_argument("--topology", action="store_true",
                   help="print which state may follow which, and the phones; needs no corpus")
    p.add_argument("--picture", type=sink(), metavar="FILE.svg", help="one utterance with its states (extra `plot`)")
    p.add_argument("--utterance", type=whole(), default=0, metavar="N", help="of `dev`, for --picture (0)")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.commands._training import misuse
    from nnac.hybrid import alignments, topology
    from nnac.hybrid.lexicon import OWN, read_lexicon
    from nnac.progress import progress
    from nnac.speech.corpus import load_split

    given = [f"--{name}" for name in ("lexicon", "states", "stack") if getattr(args, name) is not None]
    if args.network and given:
        return misuse(args, f"{given[0]} and --network: a network has states and a lexicon of its own")
    if args.topology and not args.corpus and not args.out:
        print(topology.table(read_lexicon(args.lexicon or OWN)))
        return 0
    if lacking := [f"--{name}" for name in ("corpus", "out") if getattr(args, name) is None]:
        return misuse(args, f"give {' and '.join(lacking)}: a corpus is aligned, and its alignments are a file")
    splits = [load_split(args.corpus, name) for name in SPLITS]
    if args.utterance >= len(splits[1]):
        return misuse(args, f"--utterance {args.utterance}: `dev` has {len(splits[1])} utterances, from 0")
    everything = sum(map(len, splits))
    if args.network:
        from nnac.decode import acoustic

        network = acoustic.load(args.network)
        with progress("aligning", everything, args.json) as advance:
            made = alignments.again(splits, network.hmm.inventory, network.model.config.stack, network.scores,
                                    advance=advance)
    else:
        lexicon = read_lexicon(args.lexicon or OWN)
        from nnac.hybrid.gaussians import PASSES

        learned = PASSES * min(alignments.FLAT, len(splits[0]))
        with progress("aligning", everything + learned, args.json) as advance:
            made = alignments.flat(splits, lexicon, args.states or 512, args.stack or 3, advance)
    made.save(args.out)
    if args.picture:
        from nnac.hybrid.picture import draw

        draw(args.picture, splits[1], args.utterance, made)
    facts = dict(out=args.out, states=made.inventory.count, phones=len(made.inventory.lexicon.phones),
                 frames={n: len(s.states) for n, s in made.splits.items()},
                 unaligned={n: int((s.states == alignments.NONE).sum()) for n, s in made.splits.items()}, **made.made)
    if args.json:
        print(json.dumps(facts))
        return 0
    if args.topology:
        print(topology.table(made.inventory.lexicon))
    frames, lost = (", ".join(f"{n} {facts[what][n]:,}" for n in made.splits) for what in ("frames", "unaligned"))
    print(f"{args.out}: {made.inventory}; frames: {frames}; of utterances too short for their words: {lost}")
    return 0
