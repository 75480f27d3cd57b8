"""Formatting: one way to lay out a file, comments kept.

In:  a text that parses.
Out: the same sentences, indented by two, settings of a block aligned, one sentence a line; a block written on
one line stays on it if it is short.  Formatting a formatted text changes nothing, and the trees of both texts are equal
(checked here).
"""

from __future__ import annotations

from typing import Any

from attrs import define, field

from nnac.diagnostics import DiagnosticError, Source
from nnac.language.parse import parse
from nnac.language.tokens import Token, tokens

WIDTH = 120
INLINE = 110                     # a block on one line is at most this wide
PARAMETERS = ("model", "target", "let", "sweep")
OPERATORS = ("PLUS", "MINUS", "STAR", "SLASH", "ARROW", "COMPARE")


@define
class Piece:
    """A sentence, a comment of its own, or a block: what becomes one or more lines."""

    tokens: list[Token] = field(factory=list)
    block: list[Piece] | None = None
    inline: bool = False
    comment: str | None = None             # at the end of its (first) line
    closing: str | None = None             # after the `}` of its block
    blank: bool = False                    # an empty line before it

    @property
    def word(self) -> str:
        return self.tokens[0].text if self.tokens else ""


def format_text(text: str, name: str = "<text>") -> str:
    """The formatted text.  DiagnosticError with the syntax problems if it does not parse."""
    before = parse(Source(name, text))
    if before.problems:
        raise DiagnosticError(before.problems)
    lines = _lines(_Reader(tokens(text)).block(), 0)
    out = "\n".join(_align_comments(lines)).strip("\n")
    out = out + "\n" if out else ""
    after = parse(Source(name, out))
    assert not after.problems and after.declarations == before.declarations, "formatting must not change the meaning"
    return out


class _Reader:
    """Tokens into pieces."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def block(self) -> list[Piece]:
        """Pieces up to the `}` that closes this block, or the end."""
        pieces: list[Piece] = []
        newlines = 2
        while (token := self.peek()) is not None and token.kind != "RBRACE":
            if token.kind == "END":
                newlines += token.text == "\n"
                self.at += 1
            elif token.kind == "COMMENT":
                self.at += 1
                if newlines == 0 and pieces:
                    last = pieces[-1]
                    if last.block is not None:
                        last.closing = token.text.rstrip()
                    else:
                        last.comment = token.text.rstrip()
                else:
                    pieces.append(Piece(comment=token.text.rstrip(), blank=newlines > 1 and bool(pieces)))
                    newlines = 0
            else:
                piece = self.sentence()
                piece.blank = newlines > 1 and bool(pieces)
                pieces.append(piece)
                newlines = 0
        return pieces

    def sentence(self) -> Piece:
        piece, depth = Piece(), 0
        while (token := self.peek()) is not None:
            if token.kind == "LBRACE" and depth == 0 and not self.alternatives(piece):
                self.body(piece)
                return piece
            if token.kind in ("LPAR", "LSQB", "LBRACE"):
                depth += 1
            elif token.kind in ("RPAR", "RSQB", "RBRACE"):
                if depth == 0:
                    return piece
                depth -= 1
            elif token.kind in ("END", "COMMENT") and depth == 0 and not self.after_comma(piece):
                return piece
            self.at += 1
            if token.kind != "END":
                piece.tokens.append(token)
        return piece

    @staticmethod
    def after_comma(piece: Piece) -> bool:
        """Whether a sentence goes on in the next line: its last token, comments aside, is a comma."""
        last = next((t for t in reversed(piece.tokens) if t.kind != "COMMENT"), None)
        return last is not None and last.kind == "COMMA"

    @staticmethod
    def alternatives(piece: Piece) -> bool:
        """Whether a `{` here opens alternatives of a selector."""
        last = next(t for t in reversed(piece.tokens) if t.kind != "COMMENT")
        return piece.word == "layers" and (last.kind in ("DOT", "COMMA") or len(piece.tokens) == 1)

    def body(self, piece: Piece) -> None:
        opened = self.at
        self.at += 1
        if (token := self.peek()) is not None and token.kind == "COMMENT":
            piece.comment = token.text.rstrip()
            self.at += 1
        piece.block = self.block()
        closed = self.peek()
        self.at += 1
        between = self.tokens[opened:self.at] if closed is not None else []
        piece.inline = not any(t.kind == "COMMENT" or t.text == "\n" for t in between)


Line = tuple[str, str | None]             # text, comment at its end


def _lines(pieces: list[Piece], depth: int) -> list[Line]:
    lines: list[Line] = []
    widths = _widths(pieces)
    indent = "  " * depth
    for i, piece in enumerate(pieces):
        if (piece.blank or (depth == 0 and i and _apart(pieces[i - 1], piece))) and lines:
            lines.append(("", None))
        if not piece.tokens:
            lines.append((indent + (piece.comment or ""), None))
            continue
        head = _laid_out(piece, indent, widths[i])
        if piece.block is None:
            lines += [(line, None) for line in head[:-1]] + [(head[-1], piece.comment)]
        elif (inline := _inlined(piece, head)) is not None:
            lines.append((inline, piece.closing))
        else:
            lines += [(line, None) for line in head[:-1]] + [(head[-1] + " {", piece.comment)]
            lines += _lines(piece.block, depth + 1)
            lines.append((indent + "}", piece.closing))
    return lines


def _apart(before: Piece, piece: Piece) -> bool:
    """At the top of a file declarations stand apart, imports together, comments with what they are about."""
    return bool(before.tokens) and (before.block is not None or piece.block is not None) and bool(piece.tokens
        or before.block is not None)


def _widths(pieces: list[Piece]) -> list[int]:
    """How wide the first word of each piece is set: that of the longest in its run."""
    out = [0] * len(pieces)
    run: list[int] = []

    def close() -> None:
        words = {pieces[i].word for i in run}
        for i in run:
            out[i] = max(map(len, words)) + (1 if words in ({"let"}, {"sweep"}) else 2)
        run.clear()

    for i, piece in enumerate(pieces):
        simple = piece.tokens and piece.block is None and piece.word not in ("import", "layers")
        if piece.blank or not (simple or (not piece.tokens)):
            close()
        if simple:
            run.append(i)
    close()
    return out


def _inlined(piece: Piece, head: list[str]) -> str | None:
    """The block on one line, if it was written so and is short."""
    assert piece.block is not None
    if not piece.inline or len(head) > 1 or any(p.block is not None or p.comment for p in piece.block):
        return None
    inner = "; ".join(_joined(p.tokens) for p in piece.block)
    line = f"{head[0]} {{ {inner} }}" if inner else f"{head[0]} {{ }}"
    return line if len(line) <= INLINE else None


def _joined(tokens: list[Token]) -> str:
    out = ""
    for i, token in enumerate(tokens):
        out += (" " if i and _spaced(tokens, i) else "") + token.text
    return out


def _laid_out(piece: Piece, indent: str, width: int) -> list[str]:
    """The lines of a sentence: broken after commas where it would be too wide, and after comments inside brackets."""
    tokens = piece.tokens
    first = tokens[0].text
    line = indent + (first.ljust(width) if width and len(tokens) > 1 and tokens[1].kind not in ("COMPARE",) else first)
    lines: list[str] = []
    open_at: list[int] = []
    padded = width > 0
    for i in range(1, len(tokens)):
        token, before = tokens[i], tokens[i - 1]
        if before.kind == "COMMENT" or (before.kind == "COMMA" and len(line) + _until_comma(tokens, i) > WIDTH):
            lines.append(line.rstrip())
            line = " " * (open_at[-1] if open_at else len(indent) + 7)
        elif not (padded and i == 1 and line.endswith(" ")):
            line += "  " if token.kind == "COMMENT" else " " if _spaced(tokens, i) else ""
        line += token.text.rstrip() if token.kind == "COMMENT" else token.text
        if token.kind in ("LPAR", "LSQB"):
            open_at.append(len(line))
        elif token.kind in ("RPAR", "RSQB") and open_at:
            open_at.pop()
    return [*lines, line]


def _until_comma(tokens: list[Token], i: int) -> int:
    """Characters up to the next place where the line can be broken."""
    count, depth = 1, 0
    for k in range(i, len(tokens)):
        count += len(tokens[k].text) + _spaced(tokens, k)
        depth += (tokens[k].kind in ("LPAR", "LSQB")) - (tokens[k].kind in ("RPAR", "RSQB"))
        if tokens[k].kind == "COMMA" and depth <= 0:
            break
    return count


def _spaced(tokens: list[Token], i: int) -> bool:
    """Whether a space stands between token i - 1 and token i."""
    before, token = tokens[i - 1], tokens[i]
    if tokens[0].text == "layers":
        return before.kind in ("COMMA", "COMMENT") or i == 1
    if token.kind in ("COMMA", "RPAR", "RSQB", "PERCENT", "DOTDOT", "DOT") or before.kind in ("LPAR", "LSQB", "DOTDOT",
        "DOT"):
        return False
    if token.kind == "LPAR":
        return before.kind != "NAME" or before.text == "over"
    if token.kind == "EQUAL" or before.kind == "EQUAL":
        return tokens[0].text == "let" and i in (2, 3)
    if before.kind == "MINUS":
        return not _unary(tokens, i - 1)
    return True


def _unary(tokens: list[Token], i: int) -> bool:
    before: Any = tokens[i - 1].kind if i else None
    return before in (None, "LPAR", "LSQB", "COMMA", "EQUAL", "DOTDOT", *OPERATORS)


def _align_comments(lines: list[Line]) -> list[str]:
    """Comments at the ends of neighbouring lines stand in one column."""
    out: list[str] = []
    i = 0
    while i < len(lines):
        j = i
        while j < len(lines) and lines[j][1] is not None:
            j += 1
        if j == i:
            out.append(lines[i][0].rstrip())
            i += 1
            continue
        column = max(len(text) for text, _ in lines[i:j]) + 2
        out += [f"{text:<{column}}{comment}" for text, comment in lines[i:j]]
        i = j
    return out
