"""Tokens: what a text is made of before it is understood.  For the parser, the formatter and completion."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from nnac.language.tables import tables

# A line that begins so begins a sentence, whatever was left open before it.
SENTENCE = re.compile(r"^[ \t]*(layers|let|sweep|model|target|budget|training|policy|import)\b(?![ "
                      r"\t]*(?:[=(,)\].]|\Z|\n))", re.M)
TOP = ("policy", "import")


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


@cache
def lexer() -> tuple[re.Pattern[str], dict[str, str], frozenset[str]]:
    """Pattern of one token with the blanks before it, keyword text -> terminal, terminals that mean nothing to the
    parser."""
    t = tables()
    shapes = "|".join(f"(?P<{name}>{pattern})" for name, pattern in t.lexer)
    return re.compile(f"[ \\t]*(?:{shapes})"), t.keywords, frozenset(t.ignored)


def tokens(text: str) -> list[Token]:
    """All tokens of a text, comments included, blanks and what begins no token left out."""
    return [Token(k, m.group(k), m.start(k), m.end(k)) for m in lexer()[0].finditer(text)
            if (k := m.lastgroup) is not None and k != "BLANK"]
