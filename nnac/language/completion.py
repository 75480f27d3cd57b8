"""Completion: what may stand at a place, given the text before it.

The text before the cursor is taken as tokens, for a sentence that is being written does not parse; what they mean comes
from the last check.
"""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import frozen

from nnac.compression.base import find, forms, methods
from nnac.language import syntax as s
from nnac.language.blocks import BUDGET_DOCS, BUDGETS, TRAINING
from nnac.language.check import Checked
from nnac.language.decoding import ARGUMENT_DOCS, ARGUMENTS, DECODE_DOCS, FILES, FUSIONS, SEARCHES
from nnac.language.select import Node, Sites, _advance
from nnac.language.settings import GRANULARITIES, SETTINGS
from nnac.language.tables import data_file
from nnac.language.tokens import SENTENCE, Token, tokens
from nnac.model.graph import builders
from nnac.plan import AUTO
from nnac.target import FIELDS
from nnac.units import UNITS, dimension_name

SENTENCES = {"layers": "a rule: settings for the layers that a path selects", "let": "a parameter, overridden by -D",
             "sweep": "a parameter "
             "with several values, one variant each", "model": "the model that is compressed",
             "target": "the machine it runs on",
             "budget": "upper bounds that are checked", "training": "how long training is, for schedules",
             "decode": "how outputs become words: search and language models"}
DECLARATIONS = {"import": "declarations of another file", "policy": "how a model is compressed", "target": "a machine"}


@frozen
class Item:
    """A completion: its text, what kind of thing it is, a sentence about it."""

    text: str
    kind: str
    doc: str = ""


def complete(checked: Checked, path: Path, offset: int) -> list[Item]:
    """What may stand at ``offset`` of the file that was checked, which lies at ``path``."""
    before = checked.file.source.text[:offset]
    words = [t for t in tokens(before) if t.kind != "COMMENT"]
    if words and words[-1].end == len(before) and words[-1].kind in ("NAME", "PERCENT"):
        words.pop()                                          # the word that is being typed
    starts = [m.start(1) for m in SENTENCE.finditer(before)]
    line_start = before.rfind("\n") + 1
    declaration, depth, opened = enclosing(words)
    start = max([p for p in starts if p < line_start or before[p:].split(None, 1)[1:]], default=0)
    sentence = [t for t in words if t.start >= start]
    if declaration == "":
        if sentence and sentence[0].text == "import":
            return [Item(f, "file") for f in importable(path)]
        if sentence and sentence[-1].text == "extends":
            return [Item(n, "policy") for n in (checked.scope.policies if sentence[0].text == "policy"
                                                else checked.scope.targets)]
        return [Item(k, "keyword", d) for k, d in DECLARATIONS.items()]
    return _inside(checked, path, offset, declaration, depth, opened, since_separator(sentence))


def _inside(checked: Checked, path: Path, offset: int, declaration: str, depth: int, opened: str,
            line: list[Token]) -> list[Item]:
    """Inside a declaration; ``line`` is the sentence so far."""
    policies = checked.file.policies
    policy = next((p for p in policies if p.start <= offset <= p.end + 1), policies[-1] if policies else None)
    r = checked.of(policy)
    names = [Item(n, "parameter", str(r.names.get(n))) for n in r.parameters] if r is not None else []
    if declaration == "target" or opened == "target":
        return target_words(line)
    if depth == 1:
        word = line[0].text if line else ""
        if word == "layers":
            return paths_after(r.sites if r is not None else None, line)
        if word == "target":
            return [Item(t, "target") for t in checked.scope.targets]
        if word == "model":
            return [Item(n, "argument") for n in _parameters_of(line)] if len(line) > 2 else [Item(b, "model")
                for b in builders()]
        if word in ("let", "sweep") and len(line) > 2:
            return [*units(line), *names]
        return [Item(k, "keyword", d) for k, d in SENTENCES.items()] if not line else []
    if opened == "decode":
        owner, awaited, _ = call_around(line)
        if awaited and line[-2].text in FILES.get(owner, ()):
            return [Item(f'"{f.name}"', "file") for f in sorted(path.parent.glob("*.nnc"))]
        if owner in ARGUMENTS and (not line or line[-1].kind != "NUMBER"):
            given = {t.text for t, n in pairwise(line) if n.kind == "EQUAL"}
            wanted = [n for n in (*ARGUMENTS[owner], *FILES.get(owner, ())) if n not in given]
            return [*(Item(f"{n}=", "argument", ARGUMENT_DOCS[n]) for n in wanted), *names]
        words = {"search": SEARCHES, "fusion": FUSIONS}.get(line[0].text, {}) if line else DECODE_DOCS
        return [Item(n, "setting" if not line else "method", d) for n, d in words.items()] or [*units(line), *names]
    if opened in ("budget", "training"):
        known: Any = BUDGETS if opened == "budget" else TRAINING
        docs = BUDGET_DOCS if opened == "budget" else {}
        return [Item(n, "setting", docs.get(n, dimension_name(known[n])))
                for n in known] if not line else [*units(line), *names]
    return setting_words(line, names)


def _parameters_of(line: list[Token]) -> list[str]:
    known = builders().get(line[1].text)
    return [f"{n}=" for n in inspect.signature(known).parameters] if known else []


def enclosing(tokens: list[Token]) -> tuple[str, int, str]:
    """What the cursor stands in: ``policy`` or ``target`` or nothing; how many blocks deep; the word that opened the
    innermost."""
    stack: list[str] = []
    first = ""
    for i, token in enumerate(tokens):
        if token.kind == "END":
            first = ""
        elif token.kind == "LBRACE":
            before = tokens[i - 1] if i else token
            alternatives = before.kind in ("DOT", "COMMA") or before.text == "layers"
            stack.append("alternatives" if alternatives and first == "layers" else first)
            if not alternatives:
                first = ""
        elif token.kind == "RBRACE" and stack:
            first = "layers" if stack.pop() == "alternatives" else ""
        elif not first and token.kind == "NAME":
            first = token.text
    blocks = [x for x in stack if x != "alternatives"]
    return (blocks[0] if blocks else ""), len(blocks), (blocks[-1] if blocks else "")


def since_separator(sentence: list[Token]) -> list[Token]:
    """The tokens of the sentence that is being written: since the last line end or brace outside brackets."""
    out: list[Token] = []
    depth = 0
    for i, token in enumerate(sentence):
        depth += (token.kind in ("LPAR", "LSQB")) - (token.kind in ("RPAR", "RSQB"))
        alternatives = bool(out) and out[0].text == "layers" and (
            (token.kind == "LBRACE" and (sentence[i - 1].kind in ("DOT", "COMMA") or sentence[i - 1].text == "layers"))
            or (token.kind == "RBRACE" and _in_braces(out, len(out))))
        if (token.kind == "END" and depth <= 0) or (token.kind in ("LBRACE", "RBRACE") and not alternatives):
            out, depth = [], 0
        else:
            out.append(token)
    return out


def call_around(line: list[Token]) -> tuple[str, bool, int]:
    """The name of the call that is open at the end, whether a value is awaited after ``=``, how many arguments
    precede."""
    stack: list[tuple[str, int]] = []
    for i, token in enumerate(line):
        if token.kind == "LPAR":
            stack.append((line[i - 1].text if i and line[i - 1].kind == "NAME" else "", 0))
        elif token.kind == "RPAR" and stack:
            stack.pop()
        elif token.kind == "COMMA" and stack:
            stack[-1] = (stack[-1][0], stack[-1][1] + 1)
    if not stack:
        return "", False, 0
    return stack[-1][0], line[-1].kind == "EQUAL", stack[-1][1]


def units(line: list[Token]) -> list[Item]:
    """Units, after a number."""
    if not line or line[-1].kind != "NUMBER":
        return []
    return [Item(u, "unit", dimension_name(d)) for u, (_, d) in UNITS.items()]


def setting_words(line: list[Token], names: list[Item]) -> list[Item]:
    """Inside a rule: settings, then words, then arguments."""
    if not line:
        return [Item(n, "setting", spec.doc) for n, spec in SETTINGS.items()]
    if after_number := units(line):
        return after_number
    owner, awaited, _ = call_around(line)
    if owner:
        cls: Any = find(owner) or forms().get(owner)
        if cls is None:
            return names
        arguments = cls.arguments()
        if awaited and line[-2].text in arguments:
            spec = arguments[line[-2].text][0]
            words = list(spec.choices) or (list(forms(spec.form)) if spec.form else ["true", "false"]
                                           if spec.kind == "boolean" else [])
            return [*(Item(w, "value") for w in words + (["none"] if spec.optional else [])), *names]
        given = {t.text for t, n in pairwise(line) if n.kind == "EQUAL"}
        return [*(Item(f"{n}=", "argument", a.doc) for n, (a, _) in arguments.items() if n not in given), *names]
    spec = SETTINGS.get(line[0].text)
    if spec is None:
        return []
    said = {t.text for t in line[1:]}
    words = [f"int{b}" for b in spec.widths] + list(spec.choices)
    grain = list(GRANULARITIES) if spec.granularity else []
    out = [] if any(w in said for w in words) else [Item(w, "width") for w in words]
    out += [] if any(g in said for g in grain) else [Item(g, "granularity") for g in grain]
    out += [Item("fraction", "word", "fractional bits"),
            Item(AUTO, "word", "calibration chooses the fractional bits")] if line[0].text == "cell" else []
    if spec.methods:
        out += [Item(k, "method", (m.__doc__ or "").strip().split("\n")[0]) for k, m in methods(line[0].text).items()]
    return out


def target_words(line: list[Token]) -> list[Item]:
    """Inside a target: fields, then their words."""
    if not line:
        return [Item(n, "field", f.doc) for n, f in FIELDS.items()]
    if after_number := units(line):
        return after_number
    spec = FIELDS.get(line[0].text)
    if spec is None or call_around(line)[0]:
        return []
    said = {t.text for t in line[1:]}
    return [Item(w, "word") for w in spec.choices if w not in said] + [Item(w.name, "word", w.doc) for w in spec.words
                                                                       if w.name not in said]


def paths_after(sites: Sites | None, line: list[Token]) -> list[Item]:
    """After `layers`: the steps that may follow those written."""
    if sites is None:
        return []
    last = [i for i, t in enumerate(line) if t.kind == "COMMA" and not _in_braces(line, i)]
    steps: list[s.Step] = []
    tokens = line[(last[-1] + 1 if last else 1):]
    i = 0
    while i < len(tokens) and tokens[i].kind != "LBRACE":
        token = tokens[i]
        index: s.Index | None = None
        if i + 2 < len(tokens) and tokens[i + 1].kind == "LSQB":
            close = next((k for k in range(i + 1, len(tokens)) if tokens[k].kind == "RSQB"), None)
            if close is None:
                return []
            numbers = [int(t.text) for t in tokens[i + 1:close] if t.text.isdigit()][:2]
            index = s.Index(0, 0, numbers[0], numbers[-1]) if numbers else s.Index(0, 0, None, None)
            follow = close + 1
        else:
            follow = i + 1
        if token.kind == "STARSTAR":
            steps.append(s.Step(0, 0, (), True))
        elif token.kind == "STAR":
            steps.append(s.Step(0, 0))
        elif token.kind == "NAME":
            steps.append(s.Step(0, 0, ((s.Name(0, 0, token.text), index),)))
        i = follow + 1 if follow < len(tokens) and tokens[follow].kind == "DOT" else follow
        if follow >= len(tokens) and tokens and tokens[-1].kind not in ("DOT", "LBRACE", "COMMA"):
            steps.pop()                                      # still inside this step
            break
    here: list[Node] = [sites.root]
    for step in steps:
        here = _advance(here, step)
    out: dict[str, Item] = {}
    for node in here:
        for child in node.children.values():
            if child.key[1] is not None:
                out.setdefault(f"{child.key[0]}[*]", Item(f"{child.key[0]}[*]", "layer", "all of them"))
            text = child.path.rpartition(".")[2]
            out.setdefault(text, Item(text, "layer", child.path))
    return [*out.values(), Item("**", "layer", "everything below")]


def _in_braces(line: list[Token], i: int) -> bool:
    return sum((t.kind == "LBRACE") - (t.kind == "RBRACE") for t in line[:i]) > 0


def importable(path: Path) -> list[str]:
    """Files that an import could name."""
    found: dict[str, None] = {}
    for place in (path.parent, data_file("specs")):
        for pattern in ("*.nnac", "targets/*.nnac", "papers/*.nnac"):
            for f in sorted(place.glob(pattern)):
                if f != path:
                    found.setdefault(f.relative_to(place).as_posix())
    return list(found)
