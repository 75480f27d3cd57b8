"""What is in the way of a user's model: each with the line of the user's own code, the reason, and what to write
instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)(?:\s*\n\s*(?P<code>[^\n]*))?')
LIBRARIES = ("/torch/", "\\torch\\", "/nnac/capture/", "<eval_with_key>", "<frozen")


@frozen
class Problem:
    """One part of a model that cannot become integer operators.

    what     the reason, naming the layer or call      instead  what to write
    file, line, code   the user's own line that makes the call; "" and 0 where there is none
    """

    what: str
    instead: str = ""
    file: str = ""
    line: int = 0
    code: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else ""
        return f"{place}{self.what}" + (f"; {self.instead}" if self.instead else "") + (f"\n    {self.code}"
            if self.code else "")


class PrepareError(ValueError):
    """The model has parts that cannot become integer operators: all of them, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(dict.fromkeys(map(str, problems))))


def place(trace: str) -> tuple[str, int, str]:
    """(file, line, code) of the innermost frame of a stack trace that is the user's own; ("", 0, "") where there is
    none."""
    frames = [m for m in FRAME.finditer(trace) if not any(library in m["file"] for library in LIBRARIES)]
    if not frames:
        return "", 0, ""
    last = frames[-1]
    return last["file"], int(last["line"]), (last["code"] or "").strip()


def problem(what: str, instead: str, trace: str) -> Problem:
    """A problem at the user's line that a stack trace leads to."""
    return Problem(what, instead, *place(trace))
