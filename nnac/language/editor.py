"""What an editor asks while one types, without any protocol: diagnostics, completion, hover, definition, rename,
formatting.

``Session`` holds the open texts.  Positions are offsets.  After an edit only the touched sentence is parsed and
compiled again. ``nnac/language/server.py`` speaks the Language Server Protocol around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

from nnac.compression.base import find, forms
from nnac.diagnostics import Diagnostic, DiagnosticError, Edit, Label, Span
from nnac.language import manual
from nnac.language import syntax as s
from nnac.language.blocks import BUDGET_DOCS
from nnac.language.check import Checked, check
from nnac.language.collecting import collecting_later
from nnac.language.completion import Item, complete
from nnac.language.format import format_text
from nnac.language.resolution import Memo, Resolution, Statement
from nnac.language.select import matched
from nnac.language.settings import SETTINGS
from nnac.language.workspace import Workspace, locate
from nnac.target import FIELDS
from nnac.units import UNITS, dimension_name

MOST_DIAGNOSTICS = 200         # shown in an editor for one file
MOST_PER_RULE = 100


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
        """The declaration at an offset, the statement of a policy there, and the nodes around the offset from the
        outside in."""
        file = self.workspace.file(path)
        for declaration in file.declarations:
            if declaration.start <= offset <= declaration.end:
                if isinstance(declaration, s.Policy):
                    for item in declaration.items:
                        if item.offset + item.node.start <= offset <= item.offset + item.node.end:
                            return declaration, Statement(file, declaration, item, item.node), around(item.node,
                                offset - item.offset)
                return declaration, None, around(declaration, offset)
        return None, None, []

    def resolution(self, path: Path, policy: s.Policy | None) -> Resolution | None:
        """The first variant of a policy in the last check."""
        checked = self.checked.get(path)
        return checked.of(policy) if checked is not None else None

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
        if r is not None and name.text in r.parameters and (name in list(value_names(statement.node))
                                                            or defines(statement.node, name)):
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
                    for n in [*value_names(item.node), *([item.node.name] if isinstance(item.node, (s.Let, s.Sweep))
                                                         else [])]:
                        if n.text == name.text and (where, item.offset + n.start) not in seen:
                            seen.add((where, item.offset + n.start))
                            edits.setdefault(where, []).append(Edit(Span(file.source, item.offset + n.start,
                                                                         item.offset + n.end), new))
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
        top = [p for p in r.sites.named(mask) if not any(p.startswith(q + ".")
                                                         for q in r.sites.named(mask & r.sites.layers) if q != p)]
        lines = [f"{mask.bit_count()} sites: {', '.join(top[:6])}{', …' if len(top) > 6 else ''}"]
        if r.plan is not None and mask:
            from nnac.language.chains import chains

            first = r.sites.named(mask)[:1]
            owner = r.model.layer_of(first[0]) if r.model is not None else None
            kernels = [k.path for k in owner.kernels if r.sites.number[k.path]
                       and mask >> r.sites.number[k.path] & 1][:1] if owner else []
            lines += ["", *chains(r.plan, [*first, *(k for k in kernels if k not in first)])]
        return "\n".join(lines)

    def _words(self, name: s.Name, nodes: list[Any], declaration: Any, statement: Statement | None,
               r: Resolution | None) -> str | None:
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
            return (f"{r.model.name}: {r.model.weights:,} weights, {len(r.model.layers)} layers, {r.model.frame_ms} "
                    f"ms per step")
        return None

    # -- completion

    def complete(self, path: Path, offset: int) -> list[Item]:
        """What may stand at an offset, given the text before it."""
        if path not in self.checked:
            self.diagnose(path)
        return complete(self.checked[path], path, offset)


def elsewhere(checked: Checked, path: Path) -> list[Diagnostic]:
    """Errors in imported files, said at the import."""
    out = []
    source = checked.file.source
    others = [d for d in checked.diagnostics if d.severity == "error" and d.span is not None
              and d.span.source is not source]
    for statement in checked.file.imports if others else ():
        found = locate(statement.path.value, path)
        mine = [d for d in others if found is not None and d.span is not None
                and Path(d.span.source.name).name == found.name]
        if mine:
            out.append(Diagnostic(mine[0].code, f"in this file: {mine[0].message}" +
                                  (f", and {len(mine) - 1} more" if len(mine) > 1 else ""),
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
    """The names in an item that may mean a parameter: those inside expressions and arguments, not words, methods or
    paths."""
    roots: list[Any] = []
    if isinstance(node, s.Let):
        roots = [node.value]
    elif isinstance(node, s.Sweep):
        roots = [node.values]
    elif isinstance(node, s.Model):
        roots = [node.call] if isinstance(node.call, s.Call) else []
    elif isinstance(node, s.BudgetBlock):
        roots = [b.limit for b in node.bounds]
    elif isinstance(node, (s.TrainingBlock, s.DecodeBlock)):
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
