"""``nnac fmt FILE…``: lay files out in the one way, in place; comments are kept, meaning is not touched."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    from nnac.cli import source

    p = subparsers.add_parser("fmt", help="format policies and targets", description=__doc__)
    p.add_argument("files", type=source, nargs="+", metavar="FILE",
                   help="files to format, or folders of them; - reads standard input, writes to output")
    p.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    p.add_argument("--diff", action="store_true", help="show what would change, and change nothing")
    p.add_argument("--json", action="store_true", help="say what was done as JSON")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac import rendering
    from nnac.cli import colour, policy_files
    from nnac.diagnostics import DiagnosticError
    from nnac.files import TEXT_LIMIT, read
    from nnac.language.fixes import write
    from nnac.language.format import format_text

    changed, broken = [], []
    files = policy_files(args.files)
    for name in files:
        try:
            raw = (sys.stdin.buffer.read() if name == "-" else read(name, TEXT_LIMIT)).decode("utf-8")
            text = format_text(raw, "<stdin>" if name == "-" else name)
        except UnicodeDecodeError as e:
            sys.stderr.write(f"nnac fmt: {name}: byte {e.start} is not UTF-8\n")
            broken.append(name)
            continue
        except DiagnosticError as e:
            sys.stderr.write(rendering.text(e.diagnostics, colour=colour(sys.stderr)) + "\n")
            broken.append(name)
            continue
        if name == "-" and not (args.check or args.diff):
            sys.stdout.write(text)
        elif text != raw:
            changed.append(name)
            if args.diff:
                _show(name, raw, text)
            elif not args.check:
                write(Path(name), text)
    if args.json:
        print(json.dumps({"changed": changed, "not_parsed": broken, "files": len(files)}))
    elif not args.diff and "-" not in args.files:
        for name in changed:
            print(f"{'would change' if args.check else 'formatted'} {name}")
    return 1 if broken or (changed and (args.check or args.diff)) else 0


def _show(name: str, before: str, after: str) -> None:
    import difflib

    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), name,
                                               f"{name} (formatted)"))
