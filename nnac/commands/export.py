"""``nnac export CHECKPOINT --to FORMAT --out DIR``: a model in files that other runtimes take.

``--to onnx``         integer operators alone: under onnxruntime its outputs are the machine's integers, every one
``--to onnx-qdq``     real numbers between QuantizeLinear and DequantizeLinear: near the machine's, not equal
``--to sherpa-onnx``  the same integers in the files of sherpa-onnx's own transducers, for phones and servers
``--to safetensors``  codes, scales and tables of every layer, in one file (docs/export.md says how they lie)

A recogniser becomes encoder.onnx, decoder.onnx, joiner.onnx and tokens.txt, in the layout of sherpa-onnx; another model
a file for each entry.  CHECKPOINT is what `nnac train` wrote, or a prepared model's `save`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import folder, source, whole

    p = subparsers.add_parser("export", help="a model as ONNX or safetensors", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", type=source, metavar="CHECKPOINT", help="what `nnac train` wrote")
    p.add_argument("--to", required=True, choices=("onnx", "onnx-qdq", "sherpa-onnx", "safetensors"))
    p.add_argument("--out", type=folder, required=True, metavar="DIR")
    p.add_argument("--steps", type=whole(1, 1000), default=1, metavar="N",
                   help="steps of the encoder in one call of its file (1)")
    p.add_argument("--json", action="store_true", help="what was written, as JSON")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.compiler import trained
    from nnac.export import write

    made = write(trained(args.checkpoint), args.to, args.out, args.steps)
    if args.json:
        print(json.dumps({"to": args.to, "files": made}))
        return 0
    for name, size in made.items():
        print(f"{name}: {size:,} bytes")
    return 0
