"""Diagnostics for eyes and for machines: text in the manner of rustc, JSON, SARIF 2.1.0.

Text from files is never passed to a terminal as it is: control characters are shown as ``·``.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from nnac.diagnostics import Diagnostic, Label, Source

COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[1;36m", "bold": "\x1b[1m",
           "blue": "\x1b[1;34m", "off": "\x1b[0m"}
WIDEST = 150                    # characters of a source line that are shown


def text(diagnostics: Iterable[Diagnostic], *, colour: bool = False) -> str:
    """All diagnostics, a blank line between two."""
    return "\n\n".join(one(d, colour=colour) for d in diagnostics)


def one(d: Diagnostic, *, colour: bool = False) -> str:
    """One diagnostic: headline, source with underlines, help."""
    paint = (lambda kind, words: f"{COLOURS[kind]}{words}{COLOURS['off']}") if colour else (lambda kind, words: words)
    lines = [f"{paint(d.severity, f'{d.severity}[{d.code}]')}{paint('bold', f': {clean(d.message)}')}"]
    by_source: dict[int, list[Label]] = {}
    for label in d.labels:
        by_source.setdefault(id(label.span.source), []).append(label)
    wide = max((len(str(label.span.source.position(label.span.start)[0])) for label in d.labels), default=1) + 2
    for number, labels in enumerate(by_source.values()):
        source, first = labels[0].span.source, labels[0]
        line, column = source.position(first.span.start)
        arrow = "-->" if number == 0 else ":::"
        lines.append(f"{' ' * (wide - 1)}{paint('blue', arrow)} {clean(source.name)}:{line}:{column}")
        lines += _snippet(source, labels, d.labels[0], d, wide, paint)
    lines += [f"{paint('bold', 'help')}: {clean(h)}" for h in d.help]
    return "\n".join(lines)


def _snippet(source: Source, labels: list[Label], primary: Label, d: Diagnostic, wide: int, paint: Any) -> list[str]:
    """The lines that labels point at, in order, each underlined; `...` where lines are left out."""
    bar = paint("blue", "|")
    out = [f"{' ' * wide} {bar}"]
    before = None
    for label in sorted(labels, key=lambda x: x.span.start):
        line, column = source.position(label.span.start)
        shown, offset = _window(source.line(line), column - 1)
        if before is not None and line > before + 1:
            out.append(f"{' ' * wide} {paint('blue', '...')}")
        if line != before:
            out.append(f"{paint('blue', f'{line:>{wide}}')} {bar} {shown[0]}")
        before = line
        start = column - 1
        stop = min(len(source.line(line)), start + max(1, label.span.end - label.span.start))
        lead = width_of(shown[1](offset, start))
        marks = max(1, width_of(shown[1](start, max(stop, start + 1))))
        mark, kind = ("^", d.severity) if label is primary else ("-", "blue")
        words = f" {paint(kind, clean(label.text))}" if label.text else ""
        out.append(f"{' ' * wide} {bar} {' ' * lead}{paint(kind, mark * marks)}{words}")
    return out


def _window(line: str, column: int) -> tuple[tuple[str, Any], int]:
    """The part of a line around ``column``, cleaned; with a function that gives the shown text between two columns."""
    offset = 0 if len(line) <= WIDEST or column < WIDEST - 40 else max(0, column - 40)
    part = line[offset:offset + WIDEST]
    return (clean(part), lambda a, b: clean(line[a:b])), offset


def clean(words: str) -> str:
    """Tabs as four spaces; what does not print as `·`."""
    if words.isprintable():
        return words
    return "".join("    " if c == "\t" else c if c.isprintable() else "·" for c in words)


def width_of(words: str) -> int:
    """Columns of a terminal that a text takes."""
    if words.isascii():
        return len(words)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def summary(diagnostics: Iterable[Diagnostic], *, files: int) -> str:
    """``2 errors, 1 warning in 3 files``."""
    counts = {"error": 0, "warning": 0, "note": 0}
    for d in diagnostics:
        counts[d.severity] += 1
    parts = [f"{n} {word}{'s' if n != 1 else ''}" for word, n in counts.items() if n]
    return f"{', '.join(parts) or 'no problems'} in {files} {'file' if files == 1 else 'files'}"


def as_json(d: Diagnostic) -> dict[str, Any]:
    """Plain JSON of one diagnostic: code, severity, message, help, labels and fix with offsets, lines and columns."""
    return {"code": d.code, "severity": d.severity, "message": d.message, "help": list(d.help),
            "labels": [{"text": label.text} | _place(label.span) for label in d.labels],
            "fix": [{"replacement": e.text} | _place(e.span) for e in d.fix]}


def _place(span: Any) -> dict[str, Any]:
    (line, column), (end_line, end_column) = span.source.position(span.start), span.source.position(span.end)
    return {"file": span.source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column,
            "start": span.start, "end": span.end}


def sarif(diagnostics: Iterable[Diagnostic], rules: dict[str, str], version: str) -> str:
    """A SARIF 2.1.0 log.  ``rules`` maps codes to one sentence about each."""
    found = list(diagnostics)
    codes = sorted({d.code for d in found})
    level = {"error": "error", "warning": "warning", "note": "note"}
    results = []
    for d in found:
        words = "\n".join([d.message, *(label.text for label in d.labels[:1] if label.text),
                           *(f"help: {h}" for h in d.help)])
        result: dict[str, Any] = {"ruleId": d.code, "ruleIndex": codes.index(d.code), "level": level[d.severity],
                                  "message": {"text": words},
                                  "locations": [_location(label) for label in d.labels[:1]]}
        if d.labels[1:]:
            result["relatedLocations"] = [_location(label) | {"id": i} for i, label in enumerate(d.labels[1:])]
        if d.fix:
            changes: dict[str, list[Any]] = {}
            for e in d.fix:
                changes.setdefault(e.span.source.name, []).append({"deletedRegion": _region(e.span),
                                                                   "insertedContent": {"text": e.text}})
            result["fixes"] = [{"description": {"text": d.help[0] if d.help else "mend it"}, "artifactChanges": [
                {"artifactLocation": {"uri": _uri(name)}, "replacements": r} for name, r in changes.items()]}]
        results.append(result)
    driver = {"name": "nnac", "version": version,
              "rules": [{"id": c, "shortDescription": {"text": rules.get(c, c)}} for c in codes]}
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
           "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}]}
    return json.dumps(log, indent=1)


def _location(label: Label) -> dict[str, Any]:
    out: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(label.span.source.name)},
                                                "region": _region(label.span)}}
    return out | ({"message": {"text": label.text}} if label.text else {})


def _region(span: Any) -> dict[str, int]:
    p = _place(span)
    return {"startLine": p["line"], "startColumn": p["column"], "endLine": p["end_line"], "endColumn": p["end_column"]}


def _uri(name: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(PurePath(name).as_posix()))         # a name need not be text
