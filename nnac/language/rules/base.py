"""What a lint rule is: a class with a code, a docstring, an example that breaks it, and a ``check``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from nnac.diagnostics import Diagnostic, Edit, Label, Severity, Span
from nnac.language.resolution import CompiledRule, Entry, Resolution
from nnac.language.select import bits

REGISTRY: dict[str, type[Rule]] = {}

HEADER = 'import "targets/edge.nnac"\n\npolicy example {\n  model   rnnt(size="small")\n  target  edge\n'


def example(body: str, header: str = HEADER) -> str:
    """A whole file around the sentences of a policy."""
    lines = "".join(f"  {line}\n" if line else "\n" for line in body.strip("\n").split("\n"))
    return f"{header}{lines}}}\n"


class Rule:
    """One kind of diagnostic.  Its docstring is the manual: first line what, then why, then what instead.

    Codes that the parser and resolve emit themselves have a class too, without ``check``: the manual is complete.
    """

    code: ClassVar[str]
    example: ClassVar[str]

    def __init_subclass__(cls) -> None:
        assert cls.code not in REGISTRY, f"two lint rules are called {cls.code}"
        REGISTRY[cls.code] = cls

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        """Its diagnostics on a policy.  Called only where model, sites and values exist."""
        return iter(())


def problem(code: str, span: Span, message: str, label: str = "", *help: str, severity: Severity = "error",
            related: tuple[Label, ...] = (),
            fix: tuple[Edit, ...] = ()) -> Diagnostic:
    return Diagnostic(code, message, (Label(span, label), *related), tuple(h for h in help if h), severity, fix)


def by_entry(r: Resolution, setting: str, mask: int | None = None) -> Iterator[tuple[tuple[CompiledRule, Entry] | None,
        list[int], Any]]:
    """The sites of a setting grouped by what decided them: (rule and entry, or None for the default), site numbers,
    value.

    Rules speak once about a setting of a rule, however many sites it reaches.
    """
    groups: dict[int, tuple[tuple[CompiledRule, Entry] | None, list[int], Any]] = {}
    table = r.winners[setting]
    for i, value in r.values[setting].items():
        if mask is not None and not mask >> i & 1:
            continue
        found = table.get(i)
        key = id(found[1]) if found else 0
        if key not in groups:
            groups[key] = ((r.rules[found[0]], found[1]) if found else None, [], value)
        groups[key][1].append(i)
    yield from groups.values()


def where(r: Resolution, sites: list[int], count: int = 2) -> str:
    """A few sites in words: ``encoder.lstm[0].input and 7 more``."""
    assert r.sites is not None
    names = list(dict.fromkeys(r.sites.paths[i].partition(".gate.")[0] if len(sites) > count else r.sites.paths[i]
                               for i in sites))
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def place(r: Resolution, decided: tuple[CompiledRule, Entry] | None) -> Span:
    """Where a value was written; for a default, the model (it is what brings the sites)."""
    if decided is not None:
        return r.entry_span(*decided)
    assert r.model_statement is not None
    return r.model_statement.span(r.model_statement.node)


def line_of(span: Span) -> Span:
    """The whole of a setting with its line, if it stands alone on it: what to delete so that nothing stays behind."""
    text = span.source.text
    start, end = span.start, span.end
    left = text.rfind("\n", 0, start) + 1
    right = text.find("\n", end)
    right = len(text) if right < 0 else right
    if not text[left:start].strip() and not text[end:right].strip():
        return Span(span.source, left, min(len(text), right + 1))
    after = end + (len(text[end:right]) - len(text[end:right].lstrip(" ;")))
    return Span(span.source, start, after)


__all__ = ["HEADER", "REGISTRY", "CompiledRule", "Entry", "Label", "Resolution", "Rule", "bits", "by_entry", "example",
           "line_of", "place",
           "problem", "where"]
