"""The command line: ``nnac COMMAND …``.  One command a file in ``nnac/commands``, found by the file's name and imported
only when called.

A command's module has ``register(subparsers)``, which adds its parser and sets ``run``: a function of the parsed
arguments that returns an exit status: 0 fine, 1 problems were found, 2 misuse.  Modules of commands import nothing
heavy at their top.  Arguments that name files say so by their type (`source`, `sink`, `folder`, `corpus`): then no
output of any command can be one of its inputs.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nnac import __version__, shipped
from nnac.diagnostics import DiagnosticError, did_you_mean
from nnac.errors import UserError
from nnac.files import check_destination, clash, real, reason, same


class Help(argparse.HelpFormatter):
    """As wide as the terminal: argparse asks for a formatter at every option, and its own imports shutil for the width,
    2 ms of every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)


class RawHelp(Help, argparse.RawDescriptionHelpFormatter):
    """The same, with the lines of a description as they are."""


class Parser(argparse.ArgumentParser):
    """The parser of nnac and, since argparse makes them alike, of each of its commands."""

    def __init__(self, *, formatter_class: type[argparse.HelpFormatter] = argparse.HelpFormatter,
                 **kwargs: Any) -> None:
        raw = issubclass(formatter_class, argparse.RawDescriptionHelpFormatter)
        super().__init__(formatter_class=RawHelp if raw else Help, **kwargs)


@cache
def columns() -> int:
    """Columns of the terminal: what COLUMNS says, what the terminal says, or 80; as `shutil.get_terminal_size` has
    it."""
    said = os.environ.get("COLUMNS", "")
    try:
        return int(said) if said.isdigit() and int(said) else os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def commands() -> list[str]:
    """The names of all commands; `tune-fusion` is the file ``tune_fusion.py``."""
    files = (Path(__file__).parent / "commands").glob("*.py")
    return sorted(f.stem.replace("_", "-") for f in files if not f.stem.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except DiagnosticError as e:
        from nnac import rendering

        complain(rendering.text(e.diagnostics, colour=colour(sys.stderr)))
        return 1
    except BrokenPipeError:
        return 1                                              # `| head` went away: nothing to complain about
    except KeyboardInterrupt as e:
        complain(f"\n{str(e) or 'interrupted'}")
        return 130
    except (UserError, OSError) as e:
        complain(said(e))
        return 1
    except ModuleNotFoundError as e:
        if (e.name or "nnac").partition(".")[0] == "nnac":
            raise
        complain(f"nnac: the package {(e.name or '').partition('.')[0]} is not installed here: `pip install nnac` "
                 f"brings all that is needed")
        return 2
    except MemoryError as e:
        complain(f"nnac: not enough memory{f': {e}' if str(e) else ''}")
        return 1
    finally:
        # what cannot be written is noticed here, not while Python ends
        for stream in (sys.stdout, sys.stderr):
            if not flushed(stream):
                forget(stream)


def said(error: UserError | OSError) -> str:
    """The one line that a command ends with."""
    if isinstance(error, UserError):
        return f"nnac: {error}"
    name = error.filename or ("standard output" if not flushed(sys.stdout) else "")
    return f"nnac: {name}{': ' if name else ''}{reason(error)}"


def complain(text: str) -> None:
    """Say on standard error what is wrong; if nobody hears it, go on all the same."""
    try:
        sys.stderr.write(text + "\n")
    except (OSError, ValueError):
        forget(sys.stderr)


def _run(arguments: list[str]) -> int:
    """As `main`, without what may go wrong."""
    known = commands()
    word = next((a for a in arguments if not a.startswith("-")), None)
    if word is not None and arguments[0] == word and word not in known:
        sys.stderr.write(f"nnac: no command is called `{word}`\nhelp: {did_you_mean(word, known)}\n")
        return 2
    parser = Parser(prog="nnac", description="From a compression policy to a program for a neural network accelerator.")
    parser.add_argument("--version", action="version", version=f"nnac {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in [word] if word in known and arguments[0] == word else known:
        module = importlib.import_module(f"nnac.commands.{name.replace('-', '_')}")
        module.register(subparsers)
        if sys.flags.optimize >= 2:                           # -OO: Python has dropped the words that --help shows
            from nnac.words import doc

            subparsers.choices[name].description = doc(module)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    if problem := conflict(args):
        sys.stderr.write(f"nnac {args.command}: {problem}\n")
        return 2
    status = int(args.run(args) or 0)
    sys.stdout.flush()
    return status


# ------------------------------------------------------------------------------------------------ standard streams

def open_streams() -> None:
    """Standard streams that can be used: closed ones become the null device, and what an encoding lacks is written as
    an escape.

    A closed one is opened at its own number: else the next file to be opened would take it, and a library's complaint
    would end up in there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (open as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace" if mode == "w" else "replace")


def flushed(stream: Any) -> bool:
    """Whether everything that was written to a stream has left."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def forget(stream: Any) -> None:
    """Send what is left of a stream nowhere: its other end is gone, or full."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass


def colour(stream: object) -> bool:
    """Whether to colour what goes to ``stream``: a terminal, unless NO_COLOR says no."""
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb" and bool(getattr(stream, "isatty",
        lambda: False)())


# ------------------------------------------------------------------------------------------------ numbers

MOST = 10**9                   # of anything that is counted on the command line, unless an argument says otherwise


def whole(low: int = 0, high: int = MOST) -> Callable[[str], int]:
    """An argument's type: a whole number from ``low`` to ``high``."""
    def read(text: str) -> int:
        plain = text.strip().lstrip("+-")
        # Python itself refuses thousands of digits, with an exception
        value = int(text) if plain.isdecimal() and len(plain) <= 20 else None
        if value is None or not low <= value <= high:
            shown = text if len(text) <= 24 else f"{text[:20]}… ({len(text)} characters)"
            raise argparse.ArgumentTypeError(f"takes a whole number from {low} to {high}, not {shown!r}")
        return value
    return read


SEED = whole(0, 2**32 - 1)     # what every generator takes


def positive(text: str, high: float = 1e6) -> float:
    """An argument's type: a real number above zero, and of a size that makes sense."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= high:
        raise argparse.ArgumentTypeError(f"takes a number above 0 and at most {high:g}, not {text[:24]!r}")
    return value


def rate(text: str) -> float:
    """An argument's type: a learning rate."""
    return positive(text, 10.0)


# ------------------------------------------------------------------------------------------------ files

class Source(str):
    """A file that is read.  ``path``: its name (of ``NAME=FILE`` the second half)."""

    __slots__ = ()

    @property
    def path(self) -> str:
        return str(self)


class NamedSource(Source):
    """``NAME=FILE`` or a file."""

    __slots__ = ()

    @property
    def path(self) -> str:
        return self.partition("=")[2] if "=" in self else str(self)


class Sink(str):
    """A file that is written; ``also``: endings of other files that are written beside it."""

    __slots__ = ("also",)
    also: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return (str(self), *(f"{self}{ending}" for ending in self.also))


class Corpus(str):
    """A folder that holds a corpus, and is read."""

    __slots__ = ()

    def holds(self, path: str) -> bool:
        """Whether a file is one of the corpus."""
        folder = os.path.realpath(self)
        inside = os.path.relpath(os.path.realpath(path), folder)
        return inside.startswith("wav" + os.sep) or (os.sep not in inside
                                                     and inside.endswith((".json", ".jsonl", ".features.npy")))


def _named(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("takes the name of a file or folder, not an empty one")
    if "\0" in text:
        raise argparse.ArgumentTypeError("takes a name, and no name has a NUL character")
    return text


def source(text: str) -> Source:
    """An argument's type: a file that is read."""
    return Source(_named(text))


def network(text: str) -> Source:
    """An argument's type: a float network that is read: a file, or the name of one that comes with nnac (``demo``)."""
    return Source(shipped.network(_named(text)))


def named_network(text: str) -> NamedSource:
    """An argument's type: ``NAME=NETWORK``, or as `network`."""
    given = named_source(text)
    name, equals, _ = given.rpartition("=")
    return NamedSource(name + equals + shipped.network(given.path))


def named_source(text: str) -> NamedSource:
    """An argument's type: ``NAME=FILE`` or a file that is read."""
    _named(NamedSource(text).path)
    return NamedSource(text)


def sink(*also: str) -> Callable[[str], Sink]:
    """An argument's type: a file that is written, and others with these endings beside it."""
    def read(text: str) -> Sink:
        made = Sink(_named(text))
        made.also = also
        return made
    return read


def folder(text: str) -> str:
    """An argument's type: a folder."""
    return _named(text)


def corpus(text: str) -> Corpus:
    """An argument's type: the folder of a corpus that is read."""
    return Corpus(_named(text))


def conflict(args: argparse.Namespace) -> str | None:
    """Why a command must not begin: an output that is an input, or another output, or that cannot be written.  None: it
    may."""
    given = [(name, v) for name, value in vars(args).items() for v in (value if isinstance(value, list) else [value])]
    sinks = [(name, path) for name, v in given if isinstance(v, Sink) for path in v.paths]
    if not sinks:
        return None
    sources = [v.path for _, v in given if isinstance(v, Source)]
    for name, path in sinks:
        option = f"--{name.replace('_', '-')}"
        if found := clash(path, sources) or clash(path, imported(sources) if os.path.exists(path) else ()):
            return f"{option} would write over {found}, which is read: choose another name"
        if any(v.holds(path) for _, v in given if isinstance(v, Corpus) and os.path.exists(path)):
            return f"{option} would write over {path}, which is a file of the corpus: choose another name"
        try:
            check_destination(path)
        except UserError as error:
            return f"{option}: {error}"
    for i, (name, path) in enumerate(sinks):
        for other, second in sinks[:i]:
            if same(path, second) and (not os.path.exists(path) or os.path.isfile(path)):
                return f"--{other.replace('_', '-')} and --{name.replace('_', '-')} would both write {path}"
    return None


def imported(sources: Sequence[str]) -> Iterator[str]:
    """The files that policies among ``sources`` import, and theirs."""
    from nnac.language.workspace import Workspace, scope

    for path in sources:
        if path.endswith(".nnac") and os.path.isfile(path):
            space, place = Workspace(), real(path)
            scope(space, place, space.file(place))
            yield from map(str, space.paths.values())


def policy_files(names: Sequence[str]) -> list[str]:
    """The files that names on the command line mean: a folder means every .nnac file in it and below, in order.

    UserError: a folder that has none.
    """
    out: list[str] = []
    for name in names:
        if name != "-" and Path(name).is_dir():
            found = sorted(map(str, Path(name).rglob("*.nnac")))
            if not found:
                raise UserError(f"{name}: no .nnac file is in this folder or below it")
            out += found
        else:
            out.append(name)
    return out


def definitions(pairs: Sequence[str]) -> dict[str, str]:
    """``-D name=value`` options as a dict.  SystemExit 2 with a message for one without ``=``."""
    out: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            sys.stderr.write(f"nnac: -D takes name=value, not `{pair[:80]}`\n")
            raise SystemExit(2)
        out[name.strip()] = value.strip()
    return out


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads a policy."""
    parser.add_argument("-D", dest="define", action="append", default=[], metavar="NAME=VALUE",
                        help="value of a `let` or `sweep`")
    parser.add_argument("--policy", help="name of the policy, where a file has several (the one called as the file)")


if __name__ == "__main__":
    sys.exit(main())
