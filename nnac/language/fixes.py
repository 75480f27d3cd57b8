"""Applying the edits that diagnostics propose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nnac.diagnostics import Edit
from nnac.files import write_text
from nnac.language.check import Checked, check_file

MOST_ROUNDS = 20               # a mend can uncover another mistake


def applied(text: str, edits: Iterable[Edit]) -> tuple[str, int]:
    """``text`` with those edits that do not overlap an earlier one, and how many those were."""
    count, floor = 0, len(text) + 1
    for edit in sorted(set(edits), key=lambda e: (e.span.start, e.span.end), reverse=True):
        if edit.span.end <= floor and edit.span.start <= len(text):
            text = text[:edit.span.start] + edit.text + text[edit.span.end:]
            floor, count = edit.span.start, count + 1
    return text, count


def fix_file(path: Path, policy: str | None = None, parameters: Mapping[str, str] | None = None) -> int:
    """Mend a file in place, until nothing more can be mended; how many edits were made.  A mend that adds errors is not
    kept."""
    total = 0
    checked = check_file(path, policy, parameters)
    for _ in range(MOST_ROUNDS):
        edits = [e for d in checked.diagnostics for e in d.fix if e.span.source is checked.file.source]
        if not edits:
            break
        before = checked.file.source.text
        text, count = applied(before, edits)
        write(path, text)
        after = check_file(path, policy, parameters)
        if unmended(after) > unmended(checked):
            write(path, before)
            break
        total, checked = total + count, after
    return total


def unmended(checked: Checked) -> tuple[int, int]:
    """How far a file is from right: sentences not understood, then other errors.  Understanding one more may bring its
    own errors."""
    syntax = sum(d.code == "syntax" for d in checked.diagnostics)
    return syntax, checked.errors - syntax


def write(path: Path, text: str) -> None:
    """Replace a file's content in one step: a reader sees the old text or the new one, never half of it.  FileError:
    see `nnac.files`."""
    write_text(path, text)
