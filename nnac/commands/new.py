"""``nnac new MODEL --target TARGET [--out FILE.nnac]``: a first policy, commented, with every layer's path.

MODEL is what `nnac import` wrote, or a model as a policy says it: ``rnnt``, ``rnnt(size="small")``.  The policy lints
clean; what lint warns of all the same (an operator that runs on the target's CPU) is said.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import sink

    p = subparsers.add_parser("new", help="a first policy for a model", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", metavar="MODEL")
    p.add_argument("--target", default="edge", metavar="NAME", help="edge")
    p.add_argument("--out", type=sink(), metavar="FILE.nnac", help="(default: the terminal)")
    p.add_argument("--name", default="first", metavar="NAME", help="of the policy (first)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.files import write_text
    from nnac.language.check import check_text
    from nnac.language.first import first_policy
    from nnac.model.graph import builders
    from nnac.rendering import text as rendered

    called = args.model.strip()
    if called.partition("(")[0].strip() not in builders():
        called = f'saved("{called}")'
    start = (f'import "targets/{args.target}.nnac"\n\npolicy {args.name} {{\n  model  {called}\n'
             f'  target {args.target}\n}}\n')
    looked = check_text(start, args.out or "new.nnac")
    made = next((r for r in looked.resolutions if r.model is not None), None)
    if made is None or made.model is None or looked.errors:
        sys.stderr.write(rendered(looked.diagnostics))
        return 1
    policy = first_policy(made.model, called, args.target, args.name)
    checked = check_text(policy, args.out or "new.nnac")
    if args.out:
        write_text(args.out, policy)
    else:
        sys.stdout.write(policy)
    if checked.diagnostics:
        sys.stderr.write(rendered(checked.diagnostics))
    return 1 if checked.errors else 0
