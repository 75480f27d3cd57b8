"""From text to syntax: the LALR tables of the grammar, run with recovery from errors and reuse of what has not changed.

In:  a Source.   Out: a File: its declarations, and one diagnostic for each sentence that was not understood.
Never raises for any text.  After an error the parser forgets the sentence it was in, skips to the next one, and goes
on, so that one run shows every mistake.  Items of policies are remembered by their text (``Cache``): after an edit only
the touched ones are parsed again.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from attrs import define, field

from nnac.diagnostics import Diagnostic, Edit, Label, Source, Span, near
from nnac.language import syntax as s
from nnac.language.builders import BUILDERS, flat
from nnac.language.tables import Tables, tables
from nnac.language.tokens import SENTENCE, TOP, Token, lexer

ERRORS_SHOWN = 50           # beyond that a file is not a policy, and more lines help nobody
# brackets in brackets: far beyond use, well within Python's stack for whoever walks the tree
DEEPEST = 64
LONGEST = 4 << 20           # characters of a file
LONE_RETURN = re.compile(r"\r(?!\n)")
CACHED = 20_000             # items remembered


@define
class Cache:
    """Parsed items by their text: (node, length up to its end).  Clears itself when it has grown too large."""

    items: dict[str, tuple[Any, int]] = field(factory=dict)

    def put(self, text: str, node: Any, length: int) -> None:
        if len(self.items) >= CACHED:
            self.items.clear()
        self.items[text] = (node, length)


def parse(source: Source, cache: Cache | None = None) -> s.File:
    """The file that ``source`` spells.  Whatever is wrong is in ``File.problems``; nothing is raised."""
    if len(source.text) > LONGEST:
        problem = Diagnostic("syntax", f"the file is longer than {LONGEST >> 20} MiB", (Label(Span(source, 0, 0)),))
        return s.File(source, (), (problem,))
    if (lone := LONE_RETURN.search(source.text)) is not None:
        problem = Diagnostic("syntax", "a line ends in a carriage return alone",
                             (Label(Span(source, lone.start(), lone.start()),
                             "from here on a comment would swallow what follows"),),
                             ("save the file with line ends LF or CR LF",))
        return s.File(source, (), (problem,))
    return _Parser(source, cache).run()


BRACKETS = ("LPAR", "LSQB", "LBRACE", "RPAR", "RSQB", "RBRACE")


@cache
def _steps() -> tuple[str | None, ...]:
    """For each production of one symbol that builds nothing, its nonterminal; None for the others."""
    return tuple(n if k == 1 and b not in BUILDERS and n != "item" and not n.startswith("__") else None
                 for n, k, b in tables().rules)


class _Parser:
    """One run.  A stack of (state, value); ``base`` is the start of the item being parsed, which its positions count
    from."""

    def __init__(self, source: Source, cache: Cache | None) -> None:
        self.source, self.text, self.cache = source, source.text, cache
        self.t: Tables = tables()
        pattern, self.keywords, self.ignored = lexer()
        self.match_at, self.length = pattern.match, len(source.text)
        self.problems: list[Diagnostic] = []
        self.states: list[int] = [self.t.start]
        self.values: list[Any] = []
        self.at = 0                           # where the lexer stands
        self.open: list[Token] = []           # brackets not yet closed
        self.comma = False                    # whether the last token was one
        self.base = 0
        self.shifted = 0                      # end of the last token taken
        self.item_clean = True                # no error since the item began
        starts = [m.start(1) for m in SENTENCE.finditer(self.text)]
        # where the text of a sentence ends at the latest
        self.ends = dict(zip(starts, [*starts[1:], len(self.text)], strict=False))
        self.declarations: list[Any] = []

    # -- lexing

    def next(self) -> Token:
        """The next token that matters.  Line ends inside ( ) and [ ], and after a comma, do not."""
        match_at, text, ignored = self.match_at, self.text, self.ignored
        while self.at < self.length:
            match = match_at(text, self.at)
            if match is None:
                if (token := self._strange()) is not None:
                    return token
                continue
            kind = match.lastgroup
            self.at = end = match.end()
            if kind in ignored or (kind == "END" and (self.comma
                                                      or (self.open and self.open[-1].kind in ("LPAR", "LSQB")))):
                continue
            assert kind is not None
            self.comma = kind == "COMMA"
            return Token(kind, match.group(kind), match.start(kind), end)
        return Token("$END", "", self.length, self.length)

    def _strange(self) -> Token | None:
        """A character that begins nothing: say so once for a run of them, and go on.  A text that is not closed is
        taken as if it were."""
        start, pattern = self.at, lexer()[0]
        if self.text[start] == '"':
            stop = self.text.find("\n", start)
            stop = len(self.text) if stop < 0 else stop
            self.at = stop
            self.report("syntax", "this text is not closed", start, stop, "the line ends before the second `\"`",
                        ("add a `\"`",))
            return Token("STRING", self.text[start:stop].rstrip() + '"', start, stop)
        while self.at < len(self.text) and self.text[self.at] not in '"\n' and not pattern.match(self.text, self.at):
            self.at += 1
        shown = (ascii(self.text[start:self.at][:12])[1:-1] if not self.text[start:self.at].isprintable()
                 else self.text[start:self.at][:12])
        self.report("syntax", f"`{shown}` means nothing here", start, self.at, "", ())
        return None

    # -- driving the tables

    def run(self) -> s.File:
        actions_of, gotos_of, keywords, steps = self.t.actions, self.t.gotos, self.keywords, _steps()
        states, values, accepting = self.states, self.values, self.t.end
        token = self.next()
        while len(self.problems) < ERRORS_SHOWN:
            state = states[-1]
            actions = actions_of[state]
            kind = token.kind
            if kind == "NAME":
                if token.start in self.ends and (reused := self._reuse(token, state)) is not None:
                    token = reused
                    continue
                keyword = keywords.get(token.text)
                if keyword is not None and (keyword in actions or token.start in self.ends):
                    # at the start of a line it begins a sentence even where a name could stand: a `}` is missing
                    kind = keyword
            action = actions.get(kind)
            if kind == "NAME" and values and type(values[-1]) is Token and values[-1].kind == "NUMBER" and (
                    "\n" in self.text[values[-1].end:token.start]):
                action = None                  # a unit stands on the line of its number: a bracket is missing
            if action is None:
                if kind == "$END" and len(states) == 1:
                    break
                resumed = self._recover(token)
                if resumed is None:
                    break
                token = resumed
            elif action >= 0:
                if kind == "$END" or action == accepting:
                    break
                if kind not in ("END", "RBRACE") and "item" in gotos_of[state]:
                    self.base, self.item_clean = token.start, True
                if kind in BRACKETS and not self._bracket(token):
                    break
                states.append(action)
                values.append(token)
                self.shifted = token.end
                token = self.next()
            # a production of one symbol that builds nothing: only the state changes
            elif (name := steps[~action]) is not None:
                states[-1] = gotos_of[states[-2]][name]
            else:
                self._reduce(~action)
                if states[-1] == accepting:
                    break
        if values and isinstance(values[-1], list):
            self.declarations = [v for v in values[-1] if isinstance(v, s.Node)]
        elif not self.declarations:
            self.declarations = [v for v in flat(values) if isinstance(v, (s.Policy, s.TargetDeclaration, s.Import))]
        return s.File(self.source, tuple(self.declarations), tuple(self.problems))

    def _reuse(self, token: Token, state: int) -> Token | None:
        """If the text of this item has been parsed before, take its node, and those after it likewise; the token after
        them, or None."""
        goto = self.t.gotos[state].get("item")
        if self.cache is None or goto is None:
            return None
        text, ends, known_items, at = self.text, self.ends, self.cache.items, token.start
        items = self.values[-1] if isinstance(self.values[-1], list) else None
        while (known := known_items.get(text[at:ends.get(at, at)])) is not None:
            node, length = known
            following = ends[at]
            if items is None or following == len(text) or not text[at + length:following].isspace():
                self.states.append(goto)
                self.values.append(s.Item(at, node))
                self.at = at + length
                return self.next()
            # nothing but line ends up to the next sentence: the list of items grows, the state stays
            items.append(s.Item(at, node))
            at = following
        if at == token.start:
            return None
        self.at = at
        return self.next()

    def _reduce(self, rule: int) -> None:
        name, count, builder = self.t.rules[rule]
        children = self.values[len(self.values) - count:] if count else []
        if count:
            del self.values[-count:]
            del self.states[-count:]
        if name.startswith("__"):             # the helper of a repetition: a list that grows in place
            value: Any = children[0] if children and isinstance(children[0], list) else []
            value.extend(children[1:] if children and value is children[0] else children)
        elif name == "item":
            value = s.Item(self.base, children[0])
            length = self.shifted - self.base     # not the node's end: brackets around its last value belong to no node
            text = self.text[self.base:self.ends.get(self.base, self.base)]
            # its end and one token beyond lie inside
            if self.cache is not None and self.item_clean and length < len(text):
                self.cache.put(text, children[0], length)
            self.base = 0
        else:
            build = BUILDERS.get(builder)
            value = children[0] if build is None else build(self, children)
        self.states.append(self.t.gotos[self.states[-1]][name])
        self.values.append(value)

    def _bracket(self, token: Token) -> bool:
        """Keep account of brackets.  False if they are nested absurdly deep."""
        if token.kind in ("LPAR", "LSQB", "LBRACE"):
            self.open.append(token)
            if len(self.open) > DEEPEST:
                self.report("syntax", f"brackets are nested more than {DEEPEST} deep", token.start, token.end, "", ())
                return False
        elif token.kind in ("RPAR", "RSQB", "RBRACE") and self.open:
            self.open.pop()
        return True

    # -- errors

    def report(self, code: str, message: str, start: int, end: int, label: str, help: tuple[str, ...],
                related: tuple[Label, ...] = (), fix: tuple[Edit, ...] = ()) -> None:
        self.item_clean = False
        span = Span(self.source, start, end)
        self.problems.append(Diagnostic(code, message, (Label(span, label), *related), help, fix=fix))

    def _recover(self, token: Token) -> Token | None:
        """Report ``token``, forget the sentence it stands in, and return the token to go on with; None at the end."""
        anew = self._ahead(token)
        self._complain(token)
        if token.kind == "$END":
            self.open.clear()
            return self._close(token)
        sentence = token.kind == "NAME" and token.start in self.ends
        self._unwind(self._level(sentence and token.text in TOP, sentence))
        self.open = [b for b in self.open if b.kind == "LBRACE"][:self._braces()]
        depth = 0
        if (sentence or anew) and self._accepts(token):
            return token
        while True:
            if token.kind == "$END":
                return self._close(token)
            if token.kind == "LBRACE":
                depth += 1
            elif token.kind == "RBRACE":
                if depth == 0:
                    return token if self._accepts(token) else self._skip(token)
                depth -= 1
            elif token.kind == "END" and depth == 0 and self._accepts(token):
                return token
            at = self.at
            token = self.next()
            if token.start in self.ends and token.kind == "NAME" and token.start >= at:
                top = token.text in TOP or (token.text == "target" and self._looks_like_declaration(token))
                self._unwind(self._level(top, True))
                self.open = self.open[:self._braces()]
                if self._accepts(token):
                    return token

    def _skip(self, token: Token) -> Token:
        """A `}` too many: pass it by."""
        return self.next()

    def _looks_like_declaration(self, token: Token) -> bool:
        return bool(re.compile(r"target[ \t]+\w+[ \t]*(extends[ \t]+\w+[ \t]*)?\{").match(self.text, token.start))

    def _accepts(self, token: Token) -> bool:
        actions = self.t.actions[self.states[-1]]
        keyword = self.t.keywords.get(token.text) if token.kind == "NAME" else None
        return keyword in actions or (token.kind in actions and not (keyword is not None and token.start in self.ends))

    def _level(self, top: bool, sentence: bool) -> int:
        """How far to unwind the stack: the innermost place where a sentence (or, for ``sentence``, an item; for
        ``top``, a declaration) can begin."""
        wanted = ("policy",) if top else ("item", "policy") if sentence else ("setting", "bound", "item", "policy")
        for level in range(len(self.states) - 1, -1, -1):
            gotos = self.t.gotos[self.states[level]]
            if any(w in gotos for w in wanted):
                return level
        return 0

    def _unwind(self, level: int) -> None:
        """Forget what stands on the stack above a level."""
        del self.states[level + 1:]
        del self.values[level:]
        gotos = self.t.gotos[self.states[-1]]
        if "setting" not in gotos and "bound" not in gotos:
            self.base = 0                     # no longer inside an item

    def _braces(self) -> int:
        """How many `{` are open on the stack."""
        count = 0
        for v in self.values:
            if isinstance(v, Token):
                count += (v.kind == "LBRACE") - (v.kind == "RBRACE")
        return max(0, count)

    def _close(self, end: Token) -> Token | None:
        """At the end of the file: close what is open as if its `}` stood there, keeping what was understood.  None if
        nothing was."""
        closing = Token("RBRACE", "}", end.start, end.end)
        while self.states[-1] != self.t.end:
            actions = self.t.actions[self.states[-1]]
            action = actions.get("$END", actions.get("RBRACE"))
            if action is not None and action < 0:
                self._reduce(~action)
            elif "$END" in actions:
                return end
            elif action is not None:
                self.states.append(action)
                self.values.append(closing)
                self.shifted = closing.end
            elif (level := self._level(False, False)) < len(self.states) - 1:
                self._unwind(level)
            else:
                return None
        return None

    def _ahead(self, token: Token) -> bool:
        """Whether a ( or [ was left open on an earlier line and ``token`` begins the next sentence."""
        line = self.text.rfind("\n", 0, token.start) + 1
        opened = self.open[-1] if self.open else None
        return (opened is not None and opened.kind != "LBRACE" and opened.start < line
                and not self.text[line:token.start].strip())

    def _complain(self, token: Token) -> None:
        """Say what was expected, in words people know."""
        expected = self.t.actions[self.states[-1]]
        opened = next((b for b in reversed(self.open)), None)
        close = {"LPAR": ")", "LSQB": "]", "LBRACE": "}"}
        if self._ahead(token) or token.kind in ("$END", "RBRACE") or (token.kind == "NAME"
                                                                      and token.start in self.ends):
            unclosed = opened and (token.kind != "RBRACE" or opened.kind != "LBRACE")
            if unclosed and opened is not None and opened.kind == "LBRACE" and any(d.span
                and d.span.start > opened.start for d in self.problems):
                return                          # what stands in its place has been reported
            if unclosed and opened is not None:
                mark = close[opened.kind]
                self.report("syntax", f"this `{opened.text}` is never closed", opened.start, opened.end,
                            f"no `{mark}` belongs to it",
                             (f"add `{mark}` before {_shown(token)}",))
                return
        others = {"LPAR": {"RSQB", "RBRACE", "END"}, "LSQB": {"RPAR", "RBRACE", "END"}, "LBRACE": {"RPAR", "RSQB"}}
        words = self._expected(set(expected) - (others[opened.kind] if opened is not None else set()))
        keywords = [t for t, k in self.t.keywords.items() if k in expected]
        close_by = near(token.text, keywords) if token.kind == "NAME" and keywords else []
        span = Span(self.source, token.start, max(token.end, token.start + (token.kind == "END")))
        if close_by:
            self.report("syntax", f"`{token.text}` begins no sentence here", token.start, token.end, "",
                         (f"did you mean `{close_by[0]}`?",), fix=(Edit(span, close_by[0]),))
            return
        if token.kind == "RBRACE" and not self.open:
            self.report("syntax", "this `}` closes nothing", token.start, token.end, "", ("remove it",))
            return
        listed = (words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" or {words[-1]}" if words
                  else "nothing more")
        before = self.text[self.base if self.base else max(0, token.start - 40):token.start].split()
        after = f" after `{before[-1][-24:]}`" if before and token.start else ""
        self.report("syntax", f"expected {listed}{after}, not {_shown(token)}", token.start, span.end, "", ())

    def _expected(self, terminals: set[str]) -> list[str]:
        """What could stand here, in few words: values and operators are not listed one by one."""
        extra = []
        for several, word in (({"NAME", "NUMBER", "STRING"}, "a value"), ({"PLUS", "STAR", "SLASH"}, "an operator")):
            if several <= terminals:
                terminals = terminals - several - {"MINUS", "ARROW", "DOTDOT", "LPAR", "LSQB"}
                extra.append(word)
        return extra + sorted({w for k in terminals if (w := self._word(k))}, key=_order)

    def _word(self, terminal: str) -> str | None:
        """A terminal as people write it."""
        names = {"NAME": "a name", "NUMBER": "a number", "STRING": "a text in quotes", "END": "the end of the line",
                 "RATE": None,
                 "$END": None, "COMPARE": "`<=`", "PERCENT": None, "COMMENT": None, "BLANK": None}
        return names[terminal] if terminal in names else f"`{self.t.spelling[terminal]}`"


def _order(word: str) -> tuple[bool, str]:
    return (word.startswith("`"), word)


def _shown(token: Token) -> str:
    if token.kind == "$END":
        return "the end of the file"
    if token.kind == "END" and token.text != ";":
        return "the end of the line"
    return f"`{token.text[:40]}`"
