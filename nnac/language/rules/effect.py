"""Rules about sentences that decide nothing."""

from __future__ import annotations

from collections.abc import Iterator

from nnac.diagnostics import Diagnostic, Edit
from nnac.language import syntax as s
from nnac.language.rules.base import Label, Resolution, Rule, bits, example, line_of, problem
from nnac.language.select import spelled
from nnac.language.settings import SETTINGS


class NoEffect(Rule):
    """A setting that none of the selected sites has.

    `cell` belongs to recurrent layers, `weights` to kernels: said about anything else it would do nothing, silently.
    Select a site that has the setting, or remove it.
    """

    code = "no-effect"
    example = example("layers joint.output { cell int16 }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        assert r.sites is not None
        for rule in r.rules:
            for entry in rule.entries:
                if rule.mask and not entry.mask:
                    first = r.sites.paths[next(bits(rule.mask))]
                    owner = r.model.layer_of(first).path  # type: ignore[union-attr]
                    domain = r.domains[entry.name]
                    help = f"`{entry.name}` belongs to {self.who(entry.name)}"
                    if owner != first and domain >> r.sites.paths.index(owner) & 1:
                        help += f": write it in a rule for `{owner}`"
                    yield problem(self.code, r.entry_span(rule, entry), f"`{entry.name}` has no effect here",
                                  f"none of the selected sites, such as `{first}`, has one", help,
                                  fix=(Edit(line_of(r.entry_span(rule, entry)), ""),) if len(rule.entries) > 1 else ())

    @staticmethod
    def who(setting: str) -> str:
        return {"kernel": "kernels and gates", "layer": "layers", "recurrent": "recurrent layers",
                "weighted": "layers with products",
                "encoder": "layers of the encoder"}[SETTINGS[setting].level]


class Overridden(Rule):
    """A setting that later rules of the same policy override everywhere.

    Later rules win, setting by setting; what nothing is left of is misleading to read.  Move the rule after the one
    that hides it, or remove the setting.  Overriding a policy that one extends is not reported: that is what extending
    is for.
    """

    code = "overridden"
    example = example("layers joint.** { weights int4 }\nlayers ** { weights int8 }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        from nnac.language.select import bits as numbers

        for number, entry in r.buried:
            rule = r.rules[number]
            later = {id(w[0]): w for i in numbers(entry.mask) if (w := r.winners[entry.name].get(i)) is not None}
            culprits = sorted(later.values(), key=lambda w: w[0])
            if any(r.rules[n].statement.policy is not rule.statement.policy for n, _ in culprits):
                continue
            related = tuple(Label(r.entry_span(r.rules[n], e), "this rule wins") for n, e in culprits[:2])
            span = r.entry_span(rule, entry)
            yield problem(self.code, span, f"`{entry.name}` decides nothing: later rules override it everywhere", "",
                          "remove it, or move the rule below", severity="warning", related=related,
                          fix=(Edit(line_of(span), ""),) if len(rule.entries) > 1 else ())


class EmptyRule(Rule):
    """A rule, budget or training block without a setting.

    It selects layers and says nothing about them.  Say something or remove it.
    """

    code = "empty-rule"
    example = example("layers ** { }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        for rule in r.rules:
            node: s.Rule = rule.statement.node
            if not node.settings:
                span = rule.statement.span(node)
                yield problem(self.code, span, f"`layers {spelled(node.selectors[0])}` says nothing", "", "remove it",
                              severity="warning",
                              fix=(Edit(line_of(span), ""),))


class UnusedParameter(Rule):
    """A `let` or `sweep` that nothing uses.

    Overriding it with -D, or sweeping over it, would change nothing.  Use it or remove it.
    """

    code = "unused-parameter"
    example = example("let bits = 5\nlayers ** { weights int8 }")

    def check(self, r: Resolution) -> Iterator[Diagnostic]:
        if r.scope.problems or any(d.code == "unknown-name" for d in r.problems):
            return                                              # what uses it may be what was not understood
        mentioned = {n.text for st in r.parameters.values() for n in s.walk(_value(st.node)) if isinstance(n, s.Name)}
        for name, statement in r.parameters.items():
            if name not in r.names.used and name not in mentioned and statement.policy is r.policy:
                node = statement.node
                word = "let" if isinstance(node, s.Let) else "sweep"
                yield problem(self.code, statement.span(node.name), f"nothing uses `{name}`", "",
                              f"use it, or remove the `{word}`",
                              severity="warning", fix=(Edit(line_of(statement.span(node)), ""),) if word == "let"
                              else ())


def _value(node: s.Let | s.Sweep) -> s.Node:
    return node.value if isinstance(node, s.Let) else node.values
