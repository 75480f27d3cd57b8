"""Lint rules: one class each, in files by subject.  A new rule is a new class; everything else finds it here.

    effect     settings that decide nothing          methods    methods that contradict each other
    schedule   what cannot happen in training        hardware   what the target cannot run
    formats    methods that a layer cannot hold      scales     scales that kernels share
    budget     budgets, incomplete policies          stages     the manual of what parsing and resolving report
"""

from __future__ import annotations

import importlib
from functools import cache
from itertools import islice
from typing import NamedTuple

from nnac.diagnostics import did_you_mean
from nnac.language.resolution import Resolution
from nnac.language.rules.base import REGISTRY, Rule
from nnac.words import doc

CHECKED = ("effect", "methods", "schedule", "hardware", "formats", "scales", "budget", "decode")
MANUAL = (*CHECKED, "stages")


@cache
def checking() -> tuple[Rule, ...]:
    """One of each rule that looks at a resolved policy."""
    _import(CHECKED)
    return tuple(rule() for rule in REGISTRY.values() if rule.check is not Rule.check)


def run_rules(r: Resolution, most: int | None = None) -> None:
    """Add what the lint rules find to ``r.problems``, at most ``most`` from each.  Without a model only the rules that
    need none speak."""
    for rule in checking():
        if r.model is not None or rule.code == "incomplete-policy":
            r.problems.extend(islice(rule.check(r), most))


def _import(names: tuple[str, ...]) -> None:
    for name in names:
        importlib.import_module(f"nnac.language.rules.{name}")


def rules() -> dict[str, type[Rule]]:
    """Every code, the manual's included."""
    _import(MANUAL)
    return dict(sorted(REGISTRY.items()))


def summaries() -> dict[str, str]:
    """Code -> its first sentence."""
    return {code: (doc(rule) or code).split("\n")[0] for code, rule in rules().items()}


class Explanation(NamedTuple):
    text: str
    known: bool


def explain(code: str) -> Explanation:
    """The manual page of a code, or the list of all for ``all``."""
    if code == "all":
        return Explanation("\n".join(f"{c:<24} {words}" for c, words in summaries().items()), True)
    rule = rules().get(code)
    if rule is None:
        return Explanation(f"no diagnostic is called `{code}`\nhelp: {did_you_mean(code, rules())}", False)
    body = doc(rule) or ""
    example = "".join(f"    {line}\n" for line in rule.example.splitlines())
    return Explanation(f"{code}\n\n{body}\n\nFor example:\n\n{example}", True)
