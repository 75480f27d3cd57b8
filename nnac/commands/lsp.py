"""``nnac lsp``: the language server, over standard input and output.  Editors start it; see editors/README.md."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def register(subparsers: Any) -> None:
    p = subparsers.add_parser("lsp", help="the language server, for editors", description=__doc__)
    p.add_argument("--stdio", action="store_true",
                   help="speak over standard input and output (the only way, and the default)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from nnac.language.server import serve
    except ModuleNotFoundError as e:
        sys.stderr.write(f"nnac lsp: {e.name} is not installed; `pip install 'nnac[lsp]'`\n")
        return 2
    serve()
    return 0
