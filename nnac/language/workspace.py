"""Files and what they import.  A workspace reads each file once and knows where every policy and target is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from nnac.diagnostics import Diagnostic, Label, Source, Span
from nnac.files import read_first, real, reason
from nnac.language import syntax as s
from nnac.language.parse import LONGEST, Cache, parse
from nnac.language.tables import data_file

MOST_FILES = 256               # imported by one policy, directly or not


@frozen
class Declared:
    """A declaration and the file it stands in."""

    file: s.File
    node: Any


@define(eq=False)
class Workspace:
    """Parsed files by path, with texts that override the disk (an editor's buffers).  ``shown`` shortens paths for
    messages."""

    overlays: dict[str, str] = field(factory=dict)
    cache: Cache = field(factory=Cache)
    _files: dict[str, tuple[Any, s.File]] = field(factory=dict)
    paths: dict[int, Path] = field(factory=dict)          # id of a Source -> where it lies

    def parse_text(self, name: str, text: str) -> s.File:
        return parse(Source(name, text), self.cache)

    def file(self, path: Path, shown: str | None = None) -> s.File:
        """The file at ``path``, parsed.  OSError if it cannot be read.  Bytes that are not UTF-8 are a problem of the
        file."""
        key = str(path)
        overlay = self.overlays.get(key)
        stamp: Any = overlay if overlay is not None else _stamp(path)
        known = self._files.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        name = shown or _shown(path)
        parsed = parse(Source(name, overlay), self.cache) if overlay is not None else _read(path, name, self.cache)
        self._files[key] = (stamp, parsed)
        self.paths[id(parsed.source)] = path
        return parsed


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _shown(path: Path) -> str:
    """Relative to where the user stands, if it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read(path: Path, name: str, cache: Cache) -> s.File:
    raw = read_first(path, LONGEST + 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        text = raw.decode("utf-8", errors="replace")
        source = Source(name, text)
        at = len(raw[:e.start].decode("utf-8", errors="replace"))
        problem = Diagnostic("not-utf8", f"byte {e.start} is not UTF-8",
                             (Label(Span(source, at, at + 1), ascii(raw[e.start:e.start + 1])[2:-1]),),
                             ("save the file as UTF-8",))
        return s.File(source, (), (problem,))
    return parse(Source(name, text), cache)


@define(eq=False)
class Scope:
    """Everything that one file can see: its own declarations and those it imports."""

    file: s.File
    policies: dict[str, Declared] = field(factory=dict)
    targets: dict[str, Declared] = field(factory=dict)
    files: list[s.File] = field(factory=list)
    places: dict[int, Path] = field(factory=dict)         # id of a Source -> where it lies
    problems: list[Diagnostic] = field(factory=list)


def scope(workspace: Workspace, path: Path | None, file: s.File) -> Scope:
    """What ``file`` (at ``path``, None for a text without a place) can see.  Missing and circular imports become
    problems."""
    found = Scope(file)
    _enter(workspace, found, path, file, (), {})
    return found


def _enter(workspace: Workspace, found: Scope, path: Path | None, file: s.File, chain: tuple[Path, ...],
           seen: dict[Path, None]) -> None:
    found.files.append(file)
    found.problems.extend(file.problems)
    if path is not None:
        seen[path] = None
        found.places[id(file.source)] = path
    for statement in file.imports:
        span = Span(file.source, statement.path.start, statement.path.end)
        target = locate(statement.path.value, path)
        if target is None:
            found.problems.append(_missing(statement.path.value, path, span))
        elif target == path or target in chain:
            trail = " → ".join(p.name for p in (*chain, path, target) if p is not None)
            found.problems.append(Diagnostic("circular-import", "this import leads back to itself",
                                             (Label(span, trail),), ("remove it",)))
        elif target not in seen:
            if len(seen) >= MOST_FILES:
                found.problems.append(Diagnostic("missing-import", f"more than {MOST_FILES} files are imported",
                                                 (Label(span),)))
                return
            try:
                other = workspace.file(target)
            except OSError as e:
                found.problems.append(Diagnostic("missing-import",
                                                 f"`{statement.path.value}` cannot be read: {reason(e)}",
                                                 (Label(span),)))
                continue
            _enter(workspace, found, target, other, (*chain, path) if path is not None else chain, seen)
    for node in file.declarations:
        table = found.policies if isinstance(node, s.Policy) else found.targets if isinstance(node,
            s.TargetDeclaration) else None
        if table is None:
            continue
        before = table.get(node.name.text)
        if before is not None:
            what = "policy" if isinstance(node, s.Policy) else "target"
            found.problems.append(Diagnostic(
                "duplicate-name", f"a {what} called `{node.name.text}` exists already",
                (Label(Span(file.source, node.name.start, node.name.end)),
                 Label(Span(before.file.source, before.node.name.start, before.node.name.end), "here")),
                                             ("choose another name",)))
        else:
            table[node.name.text] = Declared(file, node)


def locate(written: str, importer: Path | None) -> Path | None:
    """The file that an import means: beside the importing file, else among nnac's own specs.  None if there is none."""
    if not written or "\0" in written or len(written) > 4096:
        # what is no policy is not opened: its mistakes would show its lines to whoever reads the log
        return None
    places = [importer.parent if importer is not None else Path.cwd(), data_file("specs")]
    for place in places:
        try:
            candidate = real(place / written)
            if candidate.suffix == ".nnac" and candidate.is_file():
                return candidate
        except (OSError, ValueError):
            continue
    return None


def _missing(written: str, importer: Path | None, span: Span) -> Diagnostic:
    from nnac.diagnostics import near

    name = Path(written[:200]).name
    known: dict[str, str] = {}
    for place in (importer.parent if importer is not None else Path.cwd(), data_file("specs")):
        for pattern in ("*.nnac", "targets/*.nnac", "papers/*.nnac"):
            for f in sorted(place.glob(pattern))[:200]:
                known.setdefault(f.name, f.relative_to(place).as_posix())
    close = near(name, known)
    help = (f'did you mean "{known[close[0]]}"?' if close
            else "imports are looked up beside the file, then among nnac's own specs")
    if not name.endswith(".nnac"):
        help = "an import names a .nnac file"
    return Diagnostic("missing-import", f"no file is called `{ascii(written[:80])[1:-1]}`", (Label(span),), (help,))
