"""What an editor asks while one types, without any protocol: diagnostics, completion, hover, definition, rename, formatting.

``Session`` holds the open texts.  Positions are offsets.  After an edit only the touched sentence is parsed and compiled again.
``nnac/language/server.py`` speaks the Language Server Protocol around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from nnac.compression.base import find, forms, methods
from nnac.diagnostics import Diagnostic, DiagnosticError, Edit, Label, Source, Span
from nnac.language import manual
from nnac.language import syntax as s
from nnac.language.blocks import BUDGET_DOCS, BUDGETS, TRAINING
from nnac.language.check import Checked, check, collecting_later
from nnac.language.format import format_text
from nnac.language.parse import SENTENCE, Token, _lexer
from nnac.language.resolution import Memo, Resolution, Statement
from nnac.language.select import Node, Sites, _advance, matched
from nnac.language.settings import GRANULARITIES, SETTINGS
from nnac.language.tables import data_file
from nnac.language.workspace import Workspace, locate
from nnac.model.graph import builders
from nnac.target import FIELDS
from nnac.units import UNITS, dimension_name

MOST_DIAGNOSTICS = 200         # shown in an editor for one file
MOST_PER_RULE = 100
SENTENCES = {"layers": "a rule: settings for the layers that a path selects", "let": "a parameter, overridden by -D", "sweep": "a parameter "
             "with several values, one variant each", "model": "the model that is compressed", "target": "the machine it runs on",
             "budget": "upper bounds that are checked", "training": "how long training is, for schedules"}
DECLARATIONS = {"import": "declarations of another file", "policy": "how a model is compressed", "target": "a machine"}


@frozen
class Item:
    """A completion: its text, what kind of thing it is, a sentence about it."""

    text: str
    kind: str
    doc: str = ""


@define(eq=False)
class Session:
    """Open files.  ``check`` answers with everything known about one."""

    workspace: Workspace = field(factory=Workspace)
    memos: dict[Path, dict[str, Memo]] = field(factory=dict)
    checked: dict[Path, Checked] = field(factory=dict)

    def change(self, path: Path, text: str) -> list[Diagnostic]:
        """A file was opened or edited: its new diagnostics, errors first if there are too many."""
        self.workspace.overlays[str(path)] = text
        with collecting_later():
            return self.diagnose(path)

    def close(self, path: Path) -> None:
        self.workspace.overlays.pop(str(path), None)
        self.memos.pop(path, None)
        self.checked.pop(path, None)

    def diagnose(self, path: Path) -> list[Diagnostic]:
        file = self.workspace.file(path)
        checked = check(self.workspace, path, file, None, {}, self.memos.setdefault(path, {}), MOST_PER_RULE)
        self.checked[path] = checked
        own = [d for d in checked.diagnostics if d.span is None or d.span.source is file.source]
        own += elsewhere(checked, path)
        if len(own) > MOST_DIAGNOSTICS:
            own.sort(key=lambda d: (d.severity != "error", d.span.start if d.span else 0))
        return own[:MOST_DIAGNOSTICS]

    def format(self, path: Path) -> str | None:
        """The formatted text; None while it does not parse."""
        try:
            return format_text(self.workspace.file(path).source.text)
        except DiagnosticError:
            return None

    # -- where things are

    def at(self, path: Path, offset: int) -> tuple[Any, Statement | None, list[Any]]:
        """The declaration at an offset, the statement of a policy there, and the nodes around the offset from the outside in."""
        file = self.workspace.file(path)
        for declaration in file.declarations:
            if declaration.start <= offset <= declaration.end:
                if isinstance(declaration, s.Policy):
                    for item in declaration.items:
                        if item.offset + item.node.start <= offset <= item.offset + item.node.end:
                            return declaration, Statement(file, declaration, item, item.node), around(item.node, offset - item.offset)
                return declaration, None, around(declaration, offset)
        return None, None, []

    def resolution(self, path: Path, policy: s.Policy | None) -> Resolution | None:
        """The first variant of a policy in the last check."""
        checked = self.checked.get(path)
        if checked is None or policy is None:
            return None
        return next((r for r in checked.resolutions if r.name == policy.name.text), None)

    def definition(self, path: Path, offset: int) -> tuple[Path, Span] | None:
        """Where the name at an offset is defined: a `let`, a policy, a target, an imported file."""
        declaration, statement, nodes = self.at(path, offset)
        if isinstance(declaration, s.Import):
            found = locate(declaration.path.value, path)
            return (found, Span(self.workspace.file(found).source, 0, 0)) if found is not None else None
        name = next((n for n in reversed(nodes) if isinstance(n, s.Name)), None)
        checked = self.checked.get(path)
        if name is None or checked is None:
            return None
        if isinstance(declaration, s.Policy) and statement is None and name is declaration.extends:
            return self._declared(checked.scope.policies.get(name.text))
        if isinstance(declaration, s.TargetDeclaration) and name is declaration.extends:
            return self._declared(checked.scope.targets.get(name.text))
        if statement is None:
            return None
        if isinstance(statement.node, s.UseTarget):
            return self._declared(checked.scope.targets.get(name.text))
        r = self.resolution(path, declaration)
        if r is not None and name.text in r.parameters and (name in list(value_names(statement.node)) or defines(statement.node, name)):
            found_at = r.parameters[name.text]
            where = self.workspace.paths.get(id(found_at.file.source))
            return (where, found_at.span(found_at.node.name)) if where is not None else None
        return None

    def _declared(self, declared: Any) -> tuple[Path, Span] | None:
        if declared is None:
            return None
        where = self.workspace.paths.get(id(declared.file.source))
        name = declared.node.name
        return (where, Span(declared.file.source, name.start, name.end)) if where is not None else None

    def rename(self, path: Path, offset: int, new: str) -> dict[Path, list[Edit]] | str:
        """Edits that rename the `let` or `sweep` at an offset everywhere it is seen; or why that cannot be."""
        declaration, statement, nodes = self.at(path, offset)
        name = next((n for n in reversed(nodes) if isinstance(n, s.Name)), None)
        r = self.resolution(path, declaration) if isinstance(declaration, s.Policy) else None
        if name is None or r is None or statement is None or name.text not in r.parameters or not (
                defines(statement.node, name) or any(n is name for n in value_names(statement.node))):
            return "only a `let` or a `sweep` can be renamed"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", new) or new in ("true", "false", "none"):
            return f"`{new[:40]}` is not a name"
        if new in r.parameters:
            return f"`{new}` is defined already"
        edits: dict[Path, list[Edit]] = {}
        checked = self.checked[path]
        family = {id(d.node) for d in r.chain}
        for other in checked.resolutions:                    # policies of this file that extend one where it is seen
            if any(id(d.node) in family for d in other.chain):
                family |= {id(d.node) for d in other.chain}
        seen: set[tuple[Path, int]] = set()
        for file in checked.scope.files:
            where = self.workspace.paths.get(id(file.source))
            for policy in file.policies if where is not None else ():
                assert where is not None
                for item in policy.items if id(policy) in family else ():
                    for n in [*value_names(item.node), *([item.node.name] if isinstance(item.node, (s.Let, s.Sweep)) else [])]:
                        if n.text == name.text and (where, item.offset + n.start) not in seen:
                            seen.add((where, item.offset + n.start))
                            edits.setdefault(where, []).append(Edit(Span(file.source, item.offset + n.start, item.offset + n.end), new))
        return edits

    # -- hover

    def hover(self, path: Path, offset: int) -> tuple[str, Span] | None:
        """What is known about the word at an offset, and the extent of that word."""
        declaration, statement, nodes = self.at(path, offset)
        source = self.workspace.file(path).source
        base = statement.item.offset if statement is not None else 0
        r = self.resolution(path, declaration if isinstance(declaration, s.Policy) else None)
        selector = next((n for n in nodes if isinstance(n, s.Selector)), None)
        if selector is not None and r is not None and r.sites is not None:
            return self._selected(r, selector), Span(source, base + selector.start, base + selector.end)
        name = next((n for n in reversed(nodes) if isinstance(n, s.Name)), None)
        if name is None:
            return None
        words = self._words(name, nodes, declaration, statement, r)
        return (words, Span(source, base + name.start, base + name.end)) if words else None

    def _selected(self, r: Resolution, selector: s.Selector) -> str:
        """The sites that a selector means, and what is decided for the first of them, with lines."""
        assert r.sites is not None
        mask = matched(r.sites, selector)
        top = [p for p in r.sites.named(mask) if not any(p.startswith(q + ".") for q in r.sites.named(mask & r.sites.layers) if q != p)]
        lines = [f"{mask.bit_count()} sites: {', '.join(top[:6])}{', …' if len(top) > 6 else ''}"]
        if r.plan is not None and mask:
            from nnac.language.chains import chains

            first = r.sites.named(mask)[:1]
            owner = r.model.layer_of(first[0]) if r.model is not None else None
            kernels = [k.path for k in owner.kernels if r.sites.number[k.path] and mask >> r.sites.number[k.path] & 1][:1] if owner else []
            lines += ["", *chains(r.plan, [*first, *(k for k in kernels if k not in first)])]
        return "\n".join(lines)

    def _words(self, name: s.Name, nodes: list[Any], declaration: Any, statement: Statement | None, r: Resolution | None) -> str | None:
        text = name.text
        if r is not None and statement is not None and text in r.parameters and (
                defines(statement.node, name) or any(n is name for n in value_names(statement.node))):
            return f"{text} = {r.names.get(text)}"
        argument = next((n for n in reversed(nodes) if isinstance(n, s.Argument) and n.name is name), None)
        call = next((n for n in reversed(nodes) if isinstance(n, s.Call) and n.name is not name), None)
        if argument is not None and call is not None:
            cls: Any = find(call.name.text) or forms().get(call.name.text)
            if cls is not None and text in cls.arguments():
                return manual.argument(text, *cls.arguments()[text])
        setting = next((n for n in reversed(nodes) if isinstance(n, s.Setting)), None)
        if setting is not None and setting.name is name:
            if isinstance(declaration, s.TargetDeclaration):
                return f"{text}: {FIELDS[text].doc}" if text in FIELDS else None
            return manual.setting(text) if text in SETTINGS else None
        number = next((n for n in reversed(nodes) if isinstance(n, s.Number) and n.unit is name), None)
        if number is not None and text in UNITS:
            return f"{text}: {dimension_name(UNITS[text][1])}, {UNITS[text][0]} in base units"
        if isinstance(nodes[0], s.Bound) or any(isinstance(n, s.Bound) and n.name is name for n in nodes):
            return f"{text}: {BUDGET_DOCS[text]}" if text in BUDGET_DOCS else None
        method: Any = find(text) or forms().get(text)
        if method is not None:
            return manual.method(method)
        if isinstance(statement.node if statement else None, s.UseTarget) and r is not None and r.target is not None:
            return "\n".join(f"{k}: {v}" for k, v in r.target.to_json().items())
        if isinstance(statement.node if statement else None, s.Model) and r is not None and r.model is not None:
            return f"{r.model.name}: {r.model.weights:,} weights, {len(r.model.layers)} layers, {r.model.frame_ms} ms per step"
        return None

    # -- completion

    def complete(self, path: Path, offset: int) -> list[Item]:
        """What may stand at an offset, given the text before it."""
        text = self.workspace.file(path).source.text
        before = text[:offset]
        tokens = tokens_of(before)
        if tokens and tokens[-1].end == len(before) and tokens[-1].kind in ("NAME", "PERCENT"):
            tokens.pop()                                     # the word that is being typed
        starts = [m.start(1) for m in SENTENCE.finditer(before)]
        line_start = before.rfind("\n") + 1
        declaration, depth, opened = enclosing(tokens)
        start = max([p for p in starts if p < line_start or before[p:].split(None, 1)[1:]], default=0)
        sentence = [t for t in tokens if t.start >= start]
        if declaration == "":
            if sentence and sentence[0].text == "import":
                return [Item(f, "file") for f in importable(path)]
            if sentence and sentence[-1].text == "extends":
                return [Item(n, "policy") for n in (self._scope(path).policies if sentence[0].text == "policy" else self._scope(path).targets)]
            return [Item(k, "keyword", d) for k, d in DECLARATIONS.items()]
        return self._inside(path, offset, declaration, depth, opened, sentence)

    def _scope(self, path: Path) -> Any:
        checked = self.checked.get(path)
        if checked is None:
            self.diagnose(path)
            checked = self.checked[path]
        return checked.scope

    def _inside(self, path: Path, offset: int, declaration: str, depth: int, opened: str, sentence: list[Token]) -> list[Item]:
        policy = next((p for p in self.workspace.file(path).policies if p.start <= offset <= p.end + 1), None)
        if policy is None:
            policy = next(iter(reversed(self.workspace.file(path).policies)), None)
        r = self.resolution(path, policy)
        names = [Item(n, "parameter", str(r.names.get(n))) for n in r.parameters] if r is not None else []
        line = since_separator(sentence)
        if declaration == "target" or opened == "target":
            return target_words(line)
        if depth == 1:
            word = line[0].text if line else ""
            if word == "layers":
                return paths_after(r.sites if r is not None else None, line)
            if word == "target":
                return [Item(t, "target") for t in self._scope(path).targets]
            if word == "model":
                return [Item(n, "argument") for n in _parameters_of(line)] if len(line) > 2 else [Item(b, "model") for b in builders()]
            if word in ("let", "sweep") and len(line) > 2:
                return [*units(line), *names]
            return [Item(k, "keyword", d) for k, d in SENTENCES.items()] if not line else []
        if opened in ("budget", "training"):
            known: Any = BUDGETS if opened == "budget" else TRAINING
            docs = BUDGET_DOCS if opened == "budget" else {}
            return [Item(n, "setting", docs.get(n, dimension_name(known[n]))) for n in known] if not line else [*units(line), *names]
        return setting_words(line, names)


def _parameters_of(line: list[Token]) -> list[str]:
    import inspect

    known = builders().get(line[1].text)
    return [f"{n}=" for n in inspect.signature(known).parameters] if known else []


def elsewhere(checked: Checked, path: Path) -> list[Diagnostic]:
    """Errors in imported files, said at the import."""
    out = []
    source = checked.file.source
    others = [d for d in checked.diagnostics if d.severity == "error" and d.span is not None and d.span.source is not source]
    for statement in checked.file.imports if others else ():
        found = locate(statement.path.value, path)
        mine = [d for d in others if found is not None and d.span is not None and Path(d.span.source.name).name == found.name]
        if mine:
            out.append(Diagnostic(mine[0].code, f"in this file: {mine[0].message}" + (f", and {len(mine) - 1} more" if len(mine) > 1 else ""),
                                  (Label(Span(source, statement.path.start, statement.path.end)),)))
    return out


def around(node: Any, offset: int) -> list[Any]:
    """Nodes that contain an offset, from the outside in."""
    out = [node]
    while True:
        inner = next((c for c in s.children(out[-1]) if c.start <= offset <= c.end), None)
        if inner is None:
            return out
        out.append(inner)


def defines(node: Any, name: s.Name) -> bool:
    return isinstance(node, (s.Let, s.Sweep)) and node.name is name


def value_names(node: Any) -> Iterator[s.Name]:
    """The names in an item that may mean a parameter: those inside expressions and arguments, not words, methods or paths."""
    roots: list[Any] = []
    if isinstance(node, s.Let):
        roots = [node.value]
    elif isinstance(node, s.Sweep):
        roots = [node.values]
    elif isinstance(node, s.Model):
        roots = [node.call] if isinstance(node.call, s.Call) else []
    elif isinstance(node, s.BudgetBlock):
        roots = [b.limit for b in node.bounds]
    elif isinstance(node, s.TrainingBlock):
        roots = [w for x in node.settings for w in x.words]
    elif isinstance(node, s.Rule):
        roots = [w for x in node.settings for w in x.words if isinstance(w, s.Call)]
    while roots:
        one = roots.pop()
        if isinstance(one, s.Name):
            yield one
        elif isinstance(one, s.Call):
            roots += [a.value for a in one.arguments]
        elif isinstance(one, (s.Binary, s.Range, s.Arrow)):
            roots += [one.left, one.right]
        elif isinstance(one, s.Negative):
            roots.append(one.operand)
        elif isinstance(one, s.Values):
            roots += one.items


# -- completion: the text before the cursor as tokens

def tokens_of(text: str) -> list[Token]:
    pattern = _lexer()[0]
    return [Token(k, m.group(k), m.start(k), m.end(k)) for m in pattern.finditer(text) if (k := m.lastgroup or "") not in ("BLANK", "COMMENT", "")]


def enclosing(tokens: list[Token]) -> tuple[str, int, str]:
    """What the cursor stands in: ``policy`` or ``target`` or nothing; how many blocks deep; the word that opened the innermost."""
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
    """The name of the call that is open at the end, whether a value is awaited after ``=``, how many arguments precede."""
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
            words = list(spec.choices) or (list(forms(spec.form)) if spec.form else ["true", "false"] if spec.kind == "boolean" else [])
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
    out += [Item("fraction", "word", "fractional bits")] if line[0].text == "cell" else []
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
    return [Item(w, "word") for w in spec.choices if w not in said] + [Item(w.name, "word", w.doc) for w in spec.words if w.name not in said]


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


__all__ = ["Item", "Session", "Source", "around", "value_names"]
