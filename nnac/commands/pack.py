"""``nnac pack FLOAT --out FILE``: a float recogniser in half the bytes, its weights rounded to bfloat16.

Every command that takes a float recogniser takes the packed one; it computes with float32, as before.  FILE.json says
for people and other programs what is inside: digest, sizes, word pieces, how it was trained.  So the network that
comes with nnac (``--float demo``) was made.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import sink, source

    p = subparsers.add_parser("pack", help="a float recogniser in half the bytes", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=source, metavar="FLOAT")
    p.add_argument("--out", type=sink(".json"), required=True, metavar="FILE")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import hashlib
    from pathlib import Path

    from nnac import checkpoint
    from nnac.decode.recogniser import load_recogniser, save_recogniser
    from nnac.files import atomic

    recogniser = load_recogniser(args.file)
    save_recogniser(args.out, recogniser, coding="bf16")
    data = Path(args.out).read_bytes()
    made = dict(
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        checkpoint=checkpoint.digest_of(args.out),
        coding="bf16",
        weights=sum(p.numel() for p in recogniser.model.parameters()),
    )
    more = dict(
        model=recogniser.model.config.to_json(),
        features=recogniser.features.to_json(),
        training=recogniser.training,
        tokens=recogniser.tokens.to_json(),
    )
    with atomic(f"{args.out}.json", "w") as out:
        out.write(json.dumps(made | more, indent=1) + "\n")
    said = f"{args.out}: {made['weights']:,} weights in {made['bytes']:,} bytes, sha256 {made['sha256']}"
    print(json.dumps(made) if args.json else said)
    return 0
