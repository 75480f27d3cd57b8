"""Precedence: rules are compiled to sites and values, and every site gets the value that was said last.

Rules and site sets are numbers and bit masks, so that thousands of rules over a thousand sites take milliseconds; what
was compiled before is taken from a ``Memo``.
"""

from __future__ import annotations

from nnac.diagnostics import Diagnostic, Label
from nnac.language import select, settings
from nnac.language import syntax as s
from nnac.language.resolution import CompiledRule, Entry, Memo, Resolution, Statement, reporter
from nnac.language.select import Sites, bits, matched
from nnac.language.settings import SETTINGS
from nnac.language.values import UNKNOWN
from nnac.language.widths import input_bits
from nnac.model.graph import ModelGraph
from nnac.plan import Width

MOST_REMEMBERED = 20_000       # compiled rules in a memo


def compile_rules(r: Resolution, memo: Memo | None) -> None:
    if r.sites is not None:
        r.domains = domains(r.model, r.sites)  # type: ignore[arg-type]
    key = tuple(sorted((k, str(v)) for k, v in r.names.items()))
    if memo is not None and memo.key != key:
        memo.key = key
        memo.rules.clear()
    for statement in r.rule_statements:
        known = memo.rules.get(id(statement.node)) if memo is not None else None
        if known is not None and known[0] is statement.node:
            r.rules.append(CompiledRule(statement, known[1], known[2]))
            r.names.used |= known[3]
            continue
        before, used = len(r.problems), r.names.used
        r.names.used = set()
        rule = _compile(r, statement)
        r.rules.append(rule)
        if memo is not None and len(r.problems) == before and r.sites is not None:
            if len(memo.rules) > MOST_REMEMBERED:
                memo.rules.clear()
            memo.rules[id(statement.node)] = (statement.node, rule.mask, rule.entries, frozenset(r.names.used))
        r.names.used |= used


def domains(model: ModelGraph, sites: Sites) -> dict[str, int]:
    """Setting -> the sites that have it."""
    number = {p: i for i, p in enumerate(sites.paths)}
    recurrent = sum(1 << number[layer.path] for layer in model if layer.recurrent)
    weighted = sum(1 << number[layer.path] for layer in model if layer.kernels and not layer.operator.by_index)
    encoder = sum(1 << number[layer.path] for layer in model if layer.entry == "encoder")
    levels = {"kernel": sites.kernels | sites.gates, "layer": sites.layers, "recurrent": recurrent,
              "weighted": weighted,
              "encoder": encoder}
    return {name: levels[spec.level] for name, spec in SETTINGS.items()}


def _compile(r: Resolution, statement: Statement) -> CompiledRule:
    report = reporter(r, statement)
    node: s.Rule = statement.node
    mask = 0
    if r.sites is not None:
        for selector in node.selectors:
            found = matched(r.sites, selector)
            mask |= found
            for miss in select.misses(r.sites, selector) if not found or _has_parts(selector) else ():
                report("unknown-layer", miss.node, miss.message, "", miss.help, fix=miss.fix,
                       severity="warning" if miss.slice_only else "error")
    entries: list[Entry] = []
    seen: dict[str, s.Setting] = {}
    for setting in node.settings:
        name = setting.name.text
        value = settings.read(setting, r.names, report)
        if name in seen and name in SETTINGS:
            r.problems.append(Diagnostic("duplicate-setting", f"this rule says `{name}` twice", (
                Label(statement.span(setting)), Label(statement.span(seen[name]), "here is the first")),
                                         ("remove one of them",)))
            continue
        seen[name] = setting
        if value is UNKNOWN:
            continue
        entries.append(Entry(setting, name, value, mask & r.domains.get(name, 0)))
    return CompiledRule(statement, mask, tuple(entries))


def _has_parts(selector: s.Selector) -> bool:
    """Whether a selector that means something could still be partly wrong: it has alternatives or slices."""
    for step in selector.steps:
        for _, index in step.names:
            if len(step.names) > 1 or (index is not None and index.low != index.high):
                return True
    return False


def decide(r: Resolution) -> None:
    """Who wins where.  Rules are read from the last to the first; what is covered already is lost to the earlier
    ones."""
    sites = r.sites
    assert sites is not None
    covered = dict.fromkeys(SETTINGS, 0)
    r.winners = {name: {} for name in SETTINGS}
    # a kernel's own value matters to readers of the plan, but a rule is buried when all gates below are: weights live
    # there
    inner = sites.kernels & ~sites.leaves
    for number in range(len(r.rules) - 1, -1, -1):
        for entry in r.rules[number].entries:
            fresh = entry.mask & ~covered[entry.name]
            if entry.mask and not fresh & ~inner:
                r.buried.append((number, entry))
            if fresh:
                covered[entry.name] |= fresh
                table = r.winners[entry.name]
                for i in bits(fresh):
                    table[i] = (number, entry)
    r.buried.reverse()
    r.values = {}
    for name, domain in r.domains.items():
        table, base = r.winners[name], settings.default(name)
        r.values[name] = {i: table[i][1].value if i in table else base for i in bits(domain)}
    hidden, activations = r.winners["hidden"], r.values["activations"]
    # a recurrent layer's output is its hidden state: one value, `hidden` where it is said
    for i in r.values["hidden"]:
        if i in hidden:
            activations[i] = r.values["hidden"][i]
        else:
            r.values["hidden"][i] = activations[i]
    _accumulators(r)


def _accumulators(r: Resolution) -> None:
    """Where no rule says, sums are as wide as their operands ask: 32 bits, 48 with int16 on either side."""
    model, sites = r.model, r.sites
    assert model is not None and sites is not None
    for layer in model:
        i = sites.number[layer.path]
        if i in r.values["accumulator"] and i not in r.winners["accumulator"]:
            operands = [input_bits(model, r.values, sites.number, layer, k) for k in layer.kernels]
            held = [r.values["weights"][sites.number[p]] for k in layer.kernels for p in k.sites]
            operands += [w.multiplied_bits for w in held if w.width.number == "int"]
            r.values["accumulator"][i] = Width(48 if max(operands) > 8 else 32)
