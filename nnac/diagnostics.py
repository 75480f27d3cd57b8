"""What is wrong with a text, where, why, and what instead: sources, spans, diagnostics.  Rendering is in
``nnac.rendering``.

A user's mistake is a ``Diagnostic``; a stage collects all it finds and raises them together as one ``DiagnosticError``,
an exception group of ``Problem``s.  Our own mistakes are assertions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from attrs import field, frozen

Severity = Literal["error", "warning", "note"]


@frozen(eq=False)
class Source:
    """A text with a name.  Positions are offsets into ``text``; lines and columns count from 1, columns in
    characters."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def line_starts(self) -> list[int]:
        starts, at = [0], self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (from 1), without its end."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] - 1 if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@frozen
class Span:
    """From ``start`` up to ``end`` (exclusive) in a source."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start:self.end]

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


@frozen
class Label:
    """A place, and what is to be said about it."""

    span: Span
    text: str = ""


@frozen
class Edit:
    """Replace ``span`` by ``text``."""

    span: Span
    text: str


@frozen
class Diagnostic:
    """One problem.

    code     names the rule: ``nnac lint --explain CODE``        message  one line, no full stop
    labels   the first is the place; others are related          help     what to do instead, a line each
    fix      edits that mend it safely (``nnac lint --fix``); empty if that needs a person
    """

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    help: tuple[str, ...] = ()
    severity: Severity = "error"
    fix: tuple[Edit, ...] = ()

    @property
    def span(self) -> Span | None:
        return self.labels[0].span if self.labels else None

    def __str__(self) -> str:
        place = f"{self.span}: " if self.span else ""
        return f"{place}{self.severity}[{self.code}]: {self.message}" + "".join(f"; {h}" for h in self.help)


class Problem(Exception):
    """One diagnostic as an exception: a member of ``DiagnosticError``."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


class DiagnosticError(ExceptionGroup[Problem]):
    """Everything wrong that a stage found.  ``diagnostics`` lists it in the order of the text."""

    diagnostics: tuple[Diagnostic, ...]

    def __new__(cls, diagnostics: Iterable[Diagnostic], message: str = "") -> DiagnosticError:
        found = in_order(diagnostics)
        errors = [d for d in found if d.severity == "error"] or list(found)
        words = message or f"{len(errors)} {'error' if len(errors) == 1 else 'errors'}, the first: {errors[0]}"
        self = super().__new__(cls, words, [Problem(d) for d in found])
        self.diagnostics = found
        return self

    def derive(self, excs: Sequence[Any]) -> DiagnosticError:  # type: ignore[override]
        return DiagnosticError([e.diagnostic for e in excs])

    def __str__(self) -> str:
        return "\n".join(map(str, self.diagnostics))


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By file, then place; what has no place comes first.  Exact repeats are dropped."""
    seen: dict[tuple[Any, ...], Diagnostic] = {}
    for d in diagnostics:
        place = (d.span.source.name, d.span.start, d.span.end) if d.span else ("", -1, -1)
        seen.setdefault((place, d.code, d.message), d)
    return tuple(d for _, d in sorted(seen.items(), key=lambda kv: kv[0][0]))


MANY = 200                     # names that a suggestion is looked for among


def near(word: str, names: Iterable[str], count: int = 1) -> list[str]:
    """The ``count`` names nearest to ``word``, best first; none that is not near.

    Distance is Damerau-Levenshtein (insert, delete, replace, swap neighbours) without regard to case, at most a third
    of the longer word and at most 3; a name that starts with the word, or the word with it, counts as near too.  Of
    more than `MANY` names the first are looked at: thousands of wrong names among thousands would take hours.
    """
    low = word.lower()[:64]
    scored = []
    for name in dict.fromkeys(islice(names, MANY)):
        other = name.lower()
        limit = min(3, max(1, max(len(low), len(other)) // 3))
        if abs(len(low) - len(other)) <= limit and (d := _distance(low, other, limit)) <= limit:
            scored.append((d, name))
        elif min(len(low), len(other)) >= 3 and (other.startswith(low) or low.startswith(other)):
            scored.append((limit + 1, name))
    return [name for _, name in sorted(scored)[:count]]


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The nearest name, or None: what a fix would write."""
    return next(iter(near(word, names)), None)


def _distance(a: str, b: str, limit: int) -> int:
    """Damerau-Levenshtein distance with adjacent swaps; gives up beyond ``limit``."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
        before, last = last, row
    return last[-1]


def did_you_mean(word: str, names: Iterable[str], what: str = "there are") -> str:
    """``did you mean `mracos`?  (also: …)``, or the names that exist when none is near."""
    known = list(dict.fromkeys(islice(names, MANY)))
    close = near(word, known)
    rest = [n for n in known if n not in close]
    shown = ", ".join(rest[:12]) + (", …" if len(rest) > 12 else "")
    if close:
        return f"did you mean `{close[0]}`?" + (f"  (also: {shown})" if shown and len(rest) <= 24 else "")
    return f"{what}: {shown}" if shown else "there are none"
