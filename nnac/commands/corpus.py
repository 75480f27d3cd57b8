"""``nnac corpus --out DIR``: speak the corpus: a voice assistant's sentences in many voices, with rooms and noise.

Deterministic from its seed, for any number of processes; may be stopped and called again.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import SEED, folder, whole

    p = subparsers.add_parser("corpus", help="make the speech corpus", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=folder, required=True, metavar="DIR")
    p.add_argument("--train", type=whole(1), default=9000, metavar="N", help="utterances to train on (9000)")
    p.add_argument("--dev", type=whole(1), default=400, metavar="N")
    p.add_argument("--test", type=whole(1), default=1500, metavar="N",
                   help="utterances of each of the two held-out splits (1500)")
    p.add_argument("--wavs", type=whole(0), default=60, metavar="N",
                   help="of each held-out split, how many also become WAV files (60)")
    p.add_argument("--home", type=whole(0), default=400, metavar="N",
                   help="utterances of a household, a domain of its own (400)")
    p.add_argument("--home-dev", type=whole(0), default=120, metavar="N",
                   help="of the same household, to tune on (120)")
    p.add_argument("--noise", type=whole(0), default=0, metavar="N",
                   help="utterances of a held-out split in harder noise, 0 to 15 dB (none)")
    p.add_argument("--text", type=whole(0), default=20000, metavar="N",
                   help="sentences of its text and of the training's, for language models (20000)")
    p.add_argument("--features", choices=("log_mel", "kaldi"), default="log_mel",
                   help="log_mel: nnac's own (the default); kaldi: Kaldi's filter banks, as icefall and "
                   "sherpa-onnx hear")
    p.add_argument("--seed", type=SEED, default=1)
    p.add_argument("--processes", type=whole(1, 256), metavar="N")
    p.add_argument("--json", action="store_true", help="the summary as JSON")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.speech.corpus import CorpusSpec, Recipe, build
    from nnac.speech.features import KALDI, FeatureSpec

    features = FeatureSpec.kaldi(FeatureSpec().bins) if args.features == KALDI else FeatureSpec()
    spec = CorpusSpec(Recipe(features=features, seed=args.seed), args.train, args.dev, args.test, args.test, args.wavs,
                      args.home_dev, args.home, args.noise, args.text)
    made = build(args.out, spec, args.processes, quiet=args.json)
    if args.json:
        print(json.dumps(made))
        return 0
    from rich.table import Table

    from nnac.console import console

    table = Table("split", "utterances", "hours", "voices", "sentences", "words", "sha256",
                  title=f"corpus in {args.out}")
    for split, s in made.items():
        table.add_row(split, str(s["utterances"]), f"{s['hours']:.2f}", str(s["voices"]), str(s["sentences"]),
                      str(s["words"]), s["sha256"][:12])
    console().print(table)
    return 0
