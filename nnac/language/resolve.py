"""Resolving: a policy, on a model, for a target, becomes a Plan.

In:  what a file can see (``workspace.Scope``), the name of a policy, values for its parameters.
Out: a ``Resolution``: the plan (None if there were errors that leave holes), everything that lint rules look at, all
problems. Later rules refine earlier ones, setting by setting: a rule says something about the sites it selects and
about those below them, in the order in which rules are written, those of a policy that is extended first.  Nothing here
raises for anything that a user wrote.

    resolution   what it all leaves behind       parameters   `let`, `sweep`, overrides       subjects
    model and target
    blocks       training and budgets            precedence   rules, and who wins where       planning
    the plan, with its origins
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from nnac.diagnostics import Diagnostic, Edit, Label, Span, did_you_mean, near
from nnac.language import syntax as s
from nnac.language.blocks import settle_budgets, settle_training
from nnac.language.decoding import settle_decode
from nnac.language.parameters import settle_parameters
from nnac.language.planning import plan_of
from nnac.language.precedence import compile_rules, decide
from nnac.language.resolution import Memo, Resolution, Statement
from nnac.language.subjects import settle_model, settle_target
from nnac.language.workspace import Declared, Scope

MOST_VARIANTS = 4096


MOST_EXTENDED = 100            # policies that a policy stands on, one on the other


def depths(scope: Scope) -> dict[str, int]:
    """How many policies each policy extends, one after the other; in a circle, as many as are met before it closes."""
    out: dict[str, int] = {}
    for name in scope.policies:
        way: list[str] = []
        while name not in out and name in scope.policies and name not in way[-1:]:
            out[name] = 0                           # of a circle, met again: it ends here
            way.append(name)
            parent = scope.policies[name].node.extends
            if parent is None:
                break
            name = parent.text
        for below in reversed(way):
            parent = scope.policies[below].node.extends
            out[below] = 0 if parent is None else out.get(parent.text, -1) + 1
    return out


def too_deep(declared: Declared) -> Diagnostic:
    """The problem of a policy that stands on too many others: each decides every setting of every layer anew."""
    parent = declared.node.extends
    assert parent is not None
    return Diagnostic("out-of-range", f"`{declared.node.name.text}` stands on more than {MOST_EXTENDED} other policies",
                      (Label(Span(declared.file.source, parent.start, parent.end)),),
                      ("let it extend an earlier one, or write their rules into one policy",))


def variants(scope: Scope, name: str) -> Iterator[dict[str, Any]]:
    """The combinations of a policy's sweeps, as values for its parameters; one empty combination without sweeps."""
    chain = _chain(scope, name, [])
    items = [item.node for declared in chain for item in declared.node.items]
    sweeps = {n.name.text: n.values.items for n in items if isinstance(n, s.Sweep)}
    return (dict(zip(sweeps, one, strict=True)) for one in itertools.islice(itertools.product(*sweeps.values()),
                                                                            MOST_VARIANTS))


def resolve(scope: Scope, name: str, overrides: Mapping[str, Any] | None = None,
            memo: Memo | None = None) -> Resolution:
    """Policy ``name`` as seen in ``scope``.  ``overrides`` are expressions (syntax nodes) for its parameters, from the
    command line or from a sweep.  KeyError if there is no such policy."""
    declared = scope.policies[name]
    r = Resolution(scope, declared)
    r.chain = _chain(scope, name, r.problems)
    every = [Statement(d.file, d.node, item, item.node) for d in r.chain for item in d.node.items]
    r.rule_statements = tuple(st for st in every if isinstance(st.node, s.Rule))
    r.statements = tuple(st for st in every if not isinstance(st.node, s.Rule))
    settle_parameters(r, overrides or {})
    settle_model(r, memo)
    settle_target(r)
    settle_training(r)
    settle_budgets(r)
    settle_decode(r)
    compile_rules(r, memo)
    if r.sites is not None:
        decide(r)
        if r.model is not None and r.target is not None and not r.errors and not scope.problems:
            r.plan = plan_of(r)
    return r


def _chain(scope: Scope, name: str, problems: list[Diagnostic]) -> tuple[Declared, ...]:
    """The policy and those that it extends, the most basic first."""
    chain: list[Declared] = []
    seen: set[int] = set()                          # by identity: comparing nodes by content takes as long as they are
    declared: Declared | None = scope.policies[name]
    while declared is not None:
        chain.append(declared)
        seen.add(id(declared))
        parent = declared.node.extends
        if parent is None:
            break
        span = Span(declared.file.source, parent.start, parent.end)
        following = scope.policies.get(parent.text)
        if following is None:
            close = near(parent.text, scope.policies)
            problems.append(Diagnostic("unknown-policy", f"no policy is called `{parent.text}`", (Label(span),),
                                       (did_you_mean(parent.text, (p for p in scope.policies if p != name),
                                                     "known are"),),
                                       fix=(Edit(span, close[0]),) if close else ()))
        elif id(following) in seen:
            problems.append(Diagnostic("circular-extends", f"`{declared.node.name.text}` extends itself", (
                Label(span, " → ".join([d.node.name.text for d in chain] + [parent.text])),), ("remove `extends`",)))
            break
        declared = following
    return tuple(reversed(chain))
