"""``nnac lint FILE…``: every mistake in policies and targets, with its place, its reason and its mend."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import source

    p = subparsers.add_parser("lint", help="find every mistake in policies and targets", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", type=source, nargs="*", metavar="FILE",
                   help="policy or target files, or folders of them; - for standard input")
    p.add_argument("--format", choices=("text", "json", "sarif"), default="text")
    p.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    p.add_argument("--fix", action="store_true", help="mend what can be mended safely, then report the rest")
    p.add_argument("--strict", action="store_true", help="warnings count as problems")
    p.add_argument("--explain", metavar="CODE", help="what a diagnostic means, with an example; `all` lists them")
    p.add_argument("-D", dest="define", action="append", default=[], metavar="NAME=VALUE",
                   help="value of a `let` or `sweep`")
    p.add_argument("--policy", help="check this policy only")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.explain:
        from nnac.language.rules import explain

        words = explain(args.explain)
        (sys.stdout if words.known else sys.stderr).write(words.text + "\n")
        return 0 if words.known else 2
    if not args.files:
        sys.stderr.write("nnac lint: which files?  (nnac lint specs/*.nnac)\n")
        return 2
    return _lint(args)


def _lint(args: argparse.Namespace) -> int:
    from nnac.language.collecting import collecting_later

    with collecting_later():
        from nnac import __version__, rendering
        from nnac.cli import colour, complain, definitions, policy_files, said
        from nnac.diagnostics import Diagnostic, in_order
        from nnac.errors import UserError
        from nnac.language.check import check_file, check_text
        from nnac.language.workspace import Workspace

    parameters = definitions(args.define)
    workspace = Workspace()
    found: list[Diagnostic] = []
    unread: list[str] = []                 # a file that cannot be read does not keep the others' mistakes back
    fixed = 0
    files = policy_files(args.files)
    for name in files:
        if name == "-":
            found += check_text(sys.stdin.buffer.read().decode("utf-8", errors="replace"), "<stdin>", args.policy,
                                parameters).diagnostics
            continue
        try:
            if args.fix:
                from nnac.language.fixes import fix_file

                fixed += fix_file(Path(name), args.policy, parameters)
                workspace = Workspace()
            found += check_file(Path(name), args.policy, parameters, workspace).diagnostics
        except (UserError, OSError) as error:
            if len(files) == 1:
                raise
            unread.append(said(error))
    diagnostics = in_order(found)
    errors = any(d.severity == "error" or (args.strict and d.severity == "warning") for d in diagnostics)
    if args.format == "json":
        print(json.dumps({"diagnostics": [rendering.as_json(d) for d in diagnostics], "files": len(files) - len(unread),
                          "fixed": fixed, "unread": unread,
                          "errors": sum(d.severity == "error" for d in diagnostics)}))
    elif args.format == "sarif":
        from nnac.language.rules import summaries

        print(rendering.sarif(diagnostics, summaries(), __version__))
    else:
        if diagnostics:
            print(rendering.text(diagnostics, colour=colour(sys.stdout)) + "\n")
        tail = f", {fixed} mended" if args.fix else ""
        print(rendering.summary(diagnostics, files=len(files) - len(unread)) + tail)
    for line in unread:
        complain(line)
    return 1 if errors or unread else 0
