"""The command line: ``nnac COMMAND …``.  One command a file in ``nnac/commands``, found by the file's name and imported only when called.

A command's module has ``register(subparsers)``, which adds its parser and sets ``run``: a function of the parsed arguments that returns an
exit status: 0 fine, 1 problems were found, 2 misuse.  Modules of commands import nothing heavy at their top.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nnac import __version__
from nnac.diagnostics import DiagnosticError, did_you_mean
from nnac.errors import UserError


def commands() -> list[str]:
    """The names of all commands."""
    return sorted(f.stem for f in (Path(__file__).parent / "commands").glob("*.py") if not f.stem.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    word = next((a for a in arguments if not a.startswith("-")), None)
    if word is not None and arguments[0] == word and word not in known:
        sys.stderr.write(f"nnac: no command is called `{word}`\nhelp: {did_you_mean(word, known)}\n")
        return 2
    parser = argparse.ArgumentParser(prog="nnac", description="From a compression policy to a program for a neural network accelerator.")
    parser.add_argument("--version", action="version", version=f"nnac {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in [word] if word in known and arguments[0] == word else known:
        importlib.import_module(f"nnac.commands.{name}").register(subparsers)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return int(args.run(args) or 0)
    except DiagnosticError as e:
        from nnac import rendering

        sys.stderr.write(rendering.text(e.diagnostics, colour=colour(sys.stderr)) + "\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())     # `| head` went away: nothing to complain about
        return 1
    except KeyboardInterrupt as e:
        sys.stderr.write(f"\n{str(e) or 'interrupted'}\n")
        return 130
    except UserError as e:
        sys.stderr.write(f"nnac: {e}\n")
        return 1
    except OSError as e:
        sys.stderr.write(f"nnac: {e.filename or ''}{': ' if e.filename else ''}{e.strerror or e}\n")
        return 2


def colour(stream: object) -> bool:
    """Whether to colour what goes to ``stream``: a terminal, unless NO_COLOR says no."""
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb" and bool(getattr(stream, "isatty", lambda: False)())


def whole(low: int = 0) -> Callable[[str], int]:
    """An argument's type: a whole number of at least ``low``."""
    def read(text: str) -> int:
        if not text.strip().lstrip("+-").isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"takes a whole number of at least {low}, not {text!r}")
        return int(text)
    return read


def positive(text: str) -> float:
    """An argument's type: a finite real number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"takes a number above 0, not {text!r}")
    return value


def policy_files(names: Sequence[str]) -> list[str]:
    """The files that names on the command line mean: a folder means every .nnac file in it and below, in order."""
    out: list[str] = []
    for name in names:
        out += sorted(map(str, Path(name).rglob("*.nnac"))) if name != "-" and Path(name).is_dir() else [name]
    return out


def definitions(pairs: Sequence[str]) -> dict[str, str]:
    """``-D name=value`` options as a dict.  SystemExit 2 with a message for one without ``=``."""
    out: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            sys.stderr.write(f"nnac: -D takes name=value, not `{pair}`\n")
            raise SystemExit(2)
        out[name.strip()] = value.strip()
    return out


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads a policy."""
    parser.add_argument("-D", dest="define", action="append", default=[], metavar="NAME=VALUE", help="value of a `let` or `sweep`")
    parser.add_argument("--policy", help="name of the policy, where a file declares several")


if __name__ == "__main__":
    sys.exit(main())
