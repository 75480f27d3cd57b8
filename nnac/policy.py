"""Loading a policy from Python: ``nnac.load("x.nnac")``.

The policy prints, its plans are there by variant, and everything wrong with the file arrives as one exception group:

    try:
        policy = nnac.load("specs/rnnt_int8.nnac", bits=4)
    except* nnac.Problem as group: …
    policy.plan["encoder.lstm[0].input"].weights
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any

from attrs import field, frozen

from nnac.diagnostics import Diagnostic, DiagnosticError, Label, Span, did_you_mean
from nnac.language import syntax as s
from nnac.language.check import Checked, check_file, check_text
from nnac.plan import Plan


@frozen
class Policy:
    """A policy without errors.  ``plans`` has one Plan per variant (``name`` alone without sweeps); ``diagnostics`` its
    warnings."""

    name: str
    path: str
    plans: dict[str, Plan] = field(hash=False)
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def plan(self) -> Plan:
        """The plan of the first variant."""
        return next(iter(self.plans.values()))

    @property
    def target(self) -> Any:
        return self.plan.target

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.plans.values()))


def load(path: str | os.PathLike[str], policy: str | None = None, /, **parameters: Any) -> Policy:
    """The policy in a file.

    policy      its name; without it the one that is called as the file is, or else the only one that no other extends
    parameters  values for its ``let``s: numbers, texts, booleans, or expressions as text (``prune="25%"``); ``bits=4``
                also selects from a sweep
    DiagnosticError (an exception group of ``Problem``s) with everything that is wrong; OSError if the file cannot be
    read.
    """
    return _policy(check_file(Path(path), policy, {k: spelled(v) for k, v in parameters.items()}), policy)


def loads(text: str, policy: str | None = None, /, *, name: str = "<text>", **parameters: Any) -> Policy:
    """The policy in a text; imports are looked up from the current folder.  Errors as ``load``."""
    return _policy(check_text(text, name, policy, {k: spelled(v) for k, v in parameters.items()}), policy)


def spelled(value: Any) -> str:
    """A Python value as an expression of the language.  A text is taken as one: ``"4k steps"``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _policy(checked: Checked, wanted: str | None) -> Policy:
    errors = [d for d in checked.diagnostics if d.severity == "error"]
    source = checked.file.source
    if errors:
        raise DiagnosticError(checked.diagnostics)
    if not checked.resolutions:
        place = (Label(Span(source, 0, 0)),)
        raise DiagnosticError([Diagnostic("no-policy", "this file declares no policy", place)])
    names = list(dict.fromkeys(r.name for r in checked.resolutions))
    chosen = wanted or main_policy(checked.file, names)
    plans = {variant: r.plan for variant, r in checked.variants.items() if r.name == chosen and r.plan is not None}
    if not plans:
        place = (Label(Span(source, 0, 0)),)
        message = (f"policy `{chosen}` names no model and no target, so there is nothing to plan" if chosen in names
                   else
             f"no policy is called `{chosen}`")
        raise DiagnosticError([Diagnostic("no-policy", message, place, (did_you_mean(chosen, names),))])
    return Policy(chosen, source.name, plans, checked.diagnostics)


def main_policy(file: s.File, names: list[str]) -> str:
    """The policy that a file is about: the one that is called as the file is, or else the only one that no other of it
    extends.  DiagnosticError where those are several: to take any would be a guess."""
    stem = PurePath(file.source.name).name.removesuffix(".nnac")
    if stem in names:
        return stem
    extended = {p.extends.text for p in file.policies if p.extends is not None}
    last = [p for p in file.policies if p.name.text in names and p.name.text not in extended]
    if len(last) < 2:
        return last[0].name.text if last else names[-1]
    called = [p.name.text for p in last]
    raise DiagnosticError([Diagnostic(
        "which-policy", f"{file.source.name} is about {len(last)} policies, and none is asked for by its name",
        tuple(Label(Span(file.source, p.name.start, p.name.end)) for p in last),
        (f"say which: `--policy {called[0]}` (`policy_name` in a comparison), or another of {', '.join(called[1:])}",
         f"or call one `{stem}`, as the file is"))])
