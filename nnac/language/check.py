"""Checking: everything that can be said about a file, at once.

In:  a file or a text, values for parameters.
Out: ``Checked``: resolutions of every policy and variant, diagnostics in order.
Parsing, resolving and lint rules each add theirs; a rule looks only at what the stages before it could make sense of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from nnac.diagnostics import Diagnostic, Label, Source, Span, did_you_mean, in_order
from nnac.files import real
from nnac.language import syntax as s
from nnac.language.collecting import collecting_later
from nnac.language.machine import machine_of
from nnac.language.parse import parse
from nnac.language.resolution import Memo, Resolution
from nnac.language.resolve import MOST_EXTENDED, depths, resolve, too_deep, variants
from nnac.language.rules import run_rules
from nnac.language.values import describe, evaluate
from nnac.language.workspace import Scope, Workspace, scope

VARIANTS_CHECKED = 64          # of a sweep; each is linted on its own


@define(eq=False)
class Checked:
    """See the module.  ``variants`` maps a variant's name (``gq[bits=4]``) to its resolution."""

    file: s.File
    scope: Scope
    variants: dict[str, Resolution] = field(factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def resolutions(self) -> list[Resolution]:
        return list(self.variants.values())

    def of(self, policy: s.Policy | None) -> Resolution | None:
        """The first variant of a policy."""
        return next((r for r in self.resolutions if policy is not None and r.name == policy.name.text), None)

    @property
    def errors(self) -> int:
        return sum(d.severity == "error" for d in self.diagnostics)


def check_file(path: Path, policy: str | None = None, parameters: Mapping[str, str] | None = None,
               workspace: Workspace | None = None) -> Checked:
    """Check the file at ``path``.  OSError if it cannot be read."""
    space = workspace or Workspace()
    resolved = real(path)
    with collecting_later():
        return check(space, resolved, space.file(resolved, str(path)), policy, parameters or {})


def check_text(text: str, name: str = "<text>", policy: str | None = None,
               parameters: Mapping[str, str] | None = None) -> Checked:
    """Check a text; imports are looked up from the current folder."""
    space = Workspace()
    with collecting_later():
        return check(space, None, space.parse_text(name, text), policy, parameters or {})


def check(workspace: Workspace, path: Path | None, file: s.File, policy: str | None, parameters: Mapping[str, str],
          memos: dict[str, Memo] | None = None, most: int | None = None) -> Checked:
    """Check a parsed file.  ``memos`` (by variant) keep compiled rules between runs for the language server, which also
    wants at most ``most`` diagnostics from each lint rule."""
    seen = scope(workspace, path, file)
    checked = Checked(file, seen)
    problems = list(seen.problems)
    values, bad = _parameters(parameters)
    problems += bad
    own = [p.name.text for p in file.policies if seen.policies[p.name.text].node is p]
    if policy is not None and policy not in own:
        problems.append(Diagnostic("unknown-policy", f"no policy is called `{policy}`",
                                   (Label(Span(file.source, 0, 0)),),
                                   (did_you_mean(policy, own),)))
    known: set[str] = set()
    shared = Memo()                    # a policy and those that extend it have their rules in common
    deep = depths(seen)
    for name in own if policy is None else [policy] if policy in own else []:
        if deep[name] > MOST_EXTENDED:
            if deep[name] == MOST_EXTENDED + 1 or policy is not None:      # those that extend it have been told by it
                problems.append(too_deep(seen.policies[name]))
            continue
        for number, combination in enumerate(variants(seen, name)):
            chosen = {k: v for k, v in combination.items() if k not in values}
            variant = f"{name}[{', '.join(f'{k}={_shown(v)}' for k, v in chosen.items())}]" if chosen else name
            if variant in checked.variants:
                continue
            if number >= VARIANTS_CHECKED:
                break
            memo = memos.setdefault(variant, Memo()) if memos is not None else shared
            r = resolve(seen, name, chosen | values, memo)
            known |= set(r.parameters)
            if r.plan is not None and variant != name:
                r.plan = evolve(r.plan, name=variant)
            run_rules(r, most)
            checked.variants[variant] = r
            problems += r.problems
    for declared in seen.targets.values():
        if declared.file is file and not any(r.target_statement
                                             and r.target_statement.node.name.text == declared.node.name.text
                                             for r in checked.resolutions):
            machine_of(seen, declared, problems)
    if checked.variants:
        problems += _unknown_parameters(values, known, file.source)
    checked.diagnostics = in_order(problems)
    return checked


def _parameters(given: Mapping[str, str]) -> tuple[dict[str, Any], list[Diagnostic]]:
    """Parameters from the command line: each value is an expression of the language."""
    values: dict[str, Any] = {}
    problems: list[Diagnostic] = []
    for name, text in given.items():
        source = Source(f"-D {name}", text)
        wrapped = parse(Source(source.name, f"policy p {{ let p = {text}\n}}"))
        alone = len(wrapped.policies) == len(wrapped.declarations) == 1 and not wrapped.imports and not wrapped.problems
        items = wrapped.policies[0].items if alone else ()            # `5 } policy q {` is no value
        bare = text.replace("_", "").isalnum() and not text[:1].isdigit() and text not in ("true", "false")
        if len(items) == 1 and isinstance(items[0].node, s.Let) and not bare:
            values[name] = items[0].node.value
        elif bare:
            values[name] = s.Text(0, len(text), text)      # `-D size=small` needs no quotes that a shell would eat
        else:
            problems.append(Diagnostic("wrong-type", f"`{text[:40]}` is not a value",
                                       (Label(Span(source, 0, len(text))),),
                                       ("for example 4, 25%, 2k steps",)))
    return values, problems


def _unknown_parameters(values: Mapping[str, Any], known: set[str], source: Source) -> list[Diagnostic]:
    return [Diagnostic("unknown-name", f"`-D {name}`: no `let` or `sweep` of {source.name} defines `{name}`",
                       (Label(Span(source, 0, 0)),),
                       (did_you_mean(name, known, "defined are"),)) for name in values if name not in known]


def _shown(node: Any) -> str:
    value = evaluate(node, {}, lambda *a, **k: None)
    if isinstance(value, str):
        return value
    return describe(value).replace("the number ", "").split("`")[1] if "`" in describe(value) else "?"
