"""Resolving: a policy, on a model, for a target, becomes a Plan.

In:  what a file can see (``workspace.Scope``), the name of a policy, values for its parameters.
Out: a ``Resolution``: the plan (None if there were errors that leave holes), everything that lint rules look at, all problems.
Later rules refine earlier ones, setting by setting: a rule says something about the sites it selects and about those below them, in the
order in which rules are written, those of a policy that is extended first.  Nothing here raises for anything that a user wrote.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from attrs import define, field, frozen

from nnac.diagnostics import Diagnostic, Edit, Label, Severity, Source, Span, did_you_mean, near, nearest
from nnac.language import machine, select, settings
from nnac.language import syntax as s
from nnac.language.select import Sites, bits, matched
from nnac.language.settings import SETTINGS
from nnac.language.values import UNKNOWN, Pair, describe, evaluate
from nnac.language.widths import input_bits
from nnac.language.workspace import Declared, Scope
from nnac.model.graph import ModelError, ModelGraph, builders
from nnac.plan import (
    ENTRY_SETTINGS,
    KERNEL_SETTINGS,
    LAYER_SETTINGS,
    Budget,
    ModelReference,
    Origin,
    Plan,
    SitePlan,
    Training,
    Width,
)
from nnac.target import Target
from nnac.units import BYTES, CYCLES, EPOCHS, NUMBER, STEPS, TIME, Quantity, dimension_name

MOST_VARIANTS = 4096
MOST_REMEMBERED = 20_000       # compiled rules in a memo
BUDGETS = {"weights": BYTES, "sram": BYTES, "latency": TIME, "cycles": CYCLES, "bits_per_weight": NUMBER}
BUDGET_DOCS = {
    "weights": "bytes of all weights as stored, with their scales", "sram": "bytes of on-chip memory in use at once",
    "latency": "time of one encoder step with the prediction and joint steps that follow it", "cycles": "the same, in cycles",
    "bits_per_weight": "bits of the stored weights over the number of weights",
}
TRAINING = {"steps": STEPS, "epochs": EPOCHS, "steps_per_epoch": STEPS, "batch": NUMBER, "learning_rate": NUMBER, "warmup": STEPS,
            "seed": NUMBER}


@frozen
class Reporter:
    """Collects problems of nodes whose positions count from ``offset`` in ``source``."""

    source: Source
    problems: list[Diagnostic]
    offset: int = 0

    def __call__(self, code: str, node: Any, message: str, label: str = "", *help: str, fix: str | None = None,
                 severity: Severity = "error") -> None:
        span = self.span(node)
        edits = (Edit(span, fix),) if fix is not None else ()
        self.problems.append(Diagnostic(code, message, (Label(span, label),), tuple(h for h in help if h), severity, edits))

    def span(self, node: Any) -> Span:
        return Span(self.source, self.offset + node.start, self.offset + node.end)


class Recorded(dict[str, Any]):
    """Names with their values, noting which are asked for."""

    def __init__(self, *a: Any) -> None:
        super().__init__(*a)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.used.add(name)
        return super().__getitem__(name)


@frozen(eq=False)
class Statement:
    """A sentence of a policy and where it stands."""

    file: s.File
    policy: s.Policy
    item: s.Item
    node: Any                                  # that of the item

    def span(self, node: Any) -> Span:
        return Span(self.file.source, self.item.offset + node.start, self.item.offset + node.end)


@frozen(eq=False)
class Entry:
    """One setting of one rule: its value, and the sites that it is said about (those that have such a setting at all)."""

    setting: s.Setting
    name: str
    value: Any
    mask: int


@frozen(eq=False)
class CompiledRule:
    statement: Statement
    mask: int
    entries: tuple[Entry, ...]

    @property
    def selectors(self) -> str:
        return "layers " + ", ".join(select.spelled(x) for x in self.statement.node.selectors)


@define(eq=False)
class Memo:
    """Rules compiled before, for the language server.  Valid for one model and one set of parameter values."""

    key: Any = None
    model_key: Any = None
    model: ModelGraph | None = None
    sites: Sites | None = None
    rules: dict[int, tuple[Any, int, tuple[Entry, ...], frozenset[str]]] = field(factory=dict)


@define(eq=False)
class Resolution:
    """A policy resolved: see the module.  ``winners`` is setting -> site number -> (rule number, entry)."""

    scope: Scope
    declared: Declared
    chain: tuple[Declared, ...] = ()
    statements: tuple[Statement, ...] = ()                         # all but rules
    rule_statements: tuple[Statement, ...] = ()
    names: Recorded = field(factory=Recorded)
    parameters: dict[str, Statement] = field(factory=dict)
    model: ModelGraph | None = None
    model_statement: Statement | None = None
    sites: Sites | None = None
    target: Target | None = None
    target_statement: Statement | None = None
    rules: list[CompiledRule] = field(factory=list)
    winners: dict[str, dict[int, tuple[int, Entry]]] = field(factory=dict)
    domains: dict[str, int] = field(factory=dict)
    buried: list[tuple[int, Entry]] = field(factory=list)          # entries that decide nothing, because of later ones
    training: Training = Training()
    training_nodes: dict[str, tuple[Statement, s.Setting]] = field(factory=dict)
    budgets: list[tuple[Budget, Statement, s.Bound]] = field(factory=list)
    values: dict[str, dict[int, Any]] = field(factory=dict)        # setting -> site number -> value, defaults included
    problems: list[Diagnostic] = field(factory=list)
    plan: Plan | None = None
    estimate: Any = None                                           # of its cost, once a rule has asked for it

    @property
    def policy(self) -> s.Policy:
        return self.declared.node

    @property
    def name(self) -> str:
        return self.policy.name.text

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.problems if d.severity == "error"]

    def winner(self, setting: str, path: str) -> tuple[CompiledRule, Entry] | None:
        """The rule that decided ``setting`` of ``path``; None for a default."""
        assert self.sites is not None
        found = self.winners[setting].get(self.sites.paths.index(path))
        return (self.rules[found[0]], found[1]) if found else None

    def entry_span(self, rule: CompiledRule, entry: Entry) -> Span:
        return rule.statement.span(entry.setting)


def variants(scope: Scope, name: str) -> Iterator[dict[str, Any]]:
    """The combinations of a policy's sweeps, as values for its parameters; one empty combination without sweeps."""
    chain = _chain(scope, name, [])
    items = [item.node for declared in chain for item in declared.node.items]
    sweeps = {n.name.text: n.values.items for n in items if isinstance(n, s.Sweep)}
    return (dict(zip(sweeps, one, strict=True)) for one in itertools.islice(itertools.product(*sweeps.values()), MOST_VARIANTS))


def resolve(scope: Scope, name: str, overrides: Mapping[str, Any] | None = None, memo: Memo | None = None) -> Resolution:
    """Policy ``name`` as seen in ``scope``.  ``overrides`` are expressions (syntax nodes) for its parameters, from the command line or
    from a sweep.  KeyError if there is no such policy."""
    declared = scope.policies[name]
    r = Resolution(scope, declared)
    r.chain = _chain(scope, name, r.problems)
    every = [Statement(d.file, d.node, item, item.node) for d in r.chain for item in d.node.items]
    r.rule_statements = tuple(st for st in every if isinstance(st.node, s.Rule))
    r.statements = tuple(st for st in every if not isinstance(st.node, s.Rule))
    _parameters(r, overrides or {})
    _model(r, memo)
    _target(r)
    _training(r)
    _budgets(r)
    _rules(r, memo)
    if r.sites is not None:
        _decide(r)
        if r.model is not None and r.target is not None and not r.errors and not scope.problems:
            r.plan = plan_of(r)
    return r


def _chain(scope: Scope, name: str, problems: list[Diagnostic]) -> tuple[Declared, ...]:
    """The policy and those that it extends, the most basic first."""
    chain: list[Declared] = []
    declared: Declared | None = scope.policies[name]
    while declared is not None:
        chain.append(declared)
        parent = declared.node.extends
        if parent is None:
            break
        span = Span(declared.file.source, parent.start, parent.end)
        following = scope.policies.get(parent.text)
        if following is None:
            close = near(parent.text, scope.policies)
            problems.append(Diagnostic("unknown-policy", f"no policy is called `{parent.text}`", (Label(span),),
                                       (did_you_mean(parent.text, [p for p in scope.policies if p != name], "known are"),),
                                       fix=(Edit(span, close[0]),) if close else ()))
        elif following in chain:
            problems.append(Diagnostic("circular-extends", f"`{declared.node.name.text}` extends itself", (
                Label(span, " → ".join([d.node.name.text for d in chain] + [parent.text])),), ("remove `extends`",)))
            break
        declared = following
    return tuple(reversed(chain))


def _reporter(r: Resolution, statement: Statement) -> Reporter:
    return Reporter(statement.file.source, r.problems, statement.item.offset)


def _latest(r: Resolution, kind: type) -> Statement | None:
    """The statement of a kind that counts: the one nearest to the policy; a second one in the same policy is a mistake."""
    found: Statement | None = None
    for statement in r.statements:
        if not isinstance(statement.node, kind):
            continue
        if found is not None and found.policy is statement.policy:
            word = "model" if kind is s.Model else "target"
            r.problems.append(Diagnostic("duplicate-statement", f"a policy has one `{word}`", (
                Label(statement.span(statement.node)), Label(found.span(found.node), "here is the first")), ("remove one of them",)))
        else:
            found = statement
    return found


# -- parameters

def _parameters(r: Resolution, overrides: Mapping[str, Any]) -> None:
    """Values of all `let`s and `sweep`s.  A later definition in a policy that extends replaces an earlier one, everywhere."""
    defined: dict[str, Statement] = {}
    for statement in r.statements:
        node = statement.node
        if not isinstance(node, (s.Let, s.Sweep)):
            continue
        before = defined.get(node.name.text)
        if before is not None and before.policy is statement.policy:
            r.problems.append(Diagnostic("duplicate-statement", f"`{node.name.text}` is defined twice", (
                Label(statement.span(node.name)), Label(before.span(before.node.name), "here is the first")), ("remove one of them",)))
            continue
        if node.name.text in ("true", "false", "none"):
            _reporter(r, statement)("reserved-name", node.name, f"`{node.name.text}` is a value and cannot be redefined")
            continue
        defined[node.name.text] = statement
    r.parameters = defined
    state: dict[str, int] = {}
    for name in defined:
        _settle(r, name, overrides, state)


def _settle(r: Resolution, wanted: str, overrides: Mapping[str, Any], state: dict[str, int]) -> None:
    """Evaluate one definition after those it needs, without recursion: 1 = being worked on, 2 = done."""
    waiting = [wanted]
    while waiting:
        name = waiting[-1]
        statement = r.parameters[name]
        node = statement.node
        expression = overrides.get(name, node.value if isinstance(node, s.Let) else node.values.items[0] if node.values.items else None)
        needs = [n.text for n in s.walk(expression) if isinstance(n, s.Name) and n.text in r.parameters and state.get(n.text) != 2
                 ] if expression is not None and state.get(name) != 2 and name not in overrides else []
        if state.get(name) == 2:
            waiting.pop()
        elif circular := [n for n in needs if state.get(n) == 1]:
            _reporter(r, statement)("circular-let", node.name, f"`{circular[0]}` is defined through itself")
            for n in waiting:
                state[n] = 2
                dict.__setitem__(r.names, n, UNKNOWN)
            waiting.clear()
        elif needs:
            state[name] = 1
            waiting.extend(needs[:1])
        else:
            state[name] = 2
            waiting.pop()
            dict.__setitem__(r.names, name, _define(r, statement, expression, overrides.get(name)))


def _define(r: Resolution, statement: Statement, expression: Any, override: Any) -> Any:
    node = statement.node
    report = _reporter(r, statement)
    if expression is None:
        report("missing-word", node.values, f"`sweep {node.name.text}` has no values", "", "for example `[8, 5, 4]`")
        return UNKNOWN
    if isinstance(node, s.Sweep):
        kinds = {_kind(v) for x in node.values.items if (v := evaluate(x, r.names, report)) is not UNKNOWN}
        if len(kinds) > 1:
            report("wrong-type", node.values, f"the values of a sweep are of one kind, not {' and '.join(sorted(kinds))}")
    default = evaluate(node.value, r.names, lambda *a, **k: None) if isinstance(node, s.Let) else None
    value = evaluate(expression, r.names, report if override is None else lambda *a, **k: None)
    if isinstance(value, s.Node):
        report("wrong-type", node, f"`{node.name.text}` is a number, a text, true or false, not {describe(value)}")
        return UNKNOWN
    if override is not None and (value is UNKNOWN or (default is not None and default is not UNKNOWN and _kind(value) != _kind(default))):
        wanted = f", which is {_kind(default)}" if default is not None and default is not UNKNOWN else ""
        r.problems.append(Diagnostic("wrong-type", f"the value given for `{node.name.text}` does not fit{wanted}", (
            Label(statement.span(node.name), "defined here"),)))
        return UNKNOWN
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Quantity):
        return dimension_name(value.dimension)
    if isinstance(value, Pair):
        return f"a {value.kind}"
    return {bool: "true or false", str: "a text", tuple: "a list"}.get(type(value), "something else")


# -- model, target, training, budgets

def _model(r: Resolution, memo: Memo | None) -> None:
    statement = _latest(r, s.Model)
    if statement is None:
        return
    r.model_statement = statement
    call = statement.node.call
    report = _reporter(r, statement)
    name = call if isinstance(call, s.Name) else call.name
    known = builders()
    if name.text == "module" and name.text not in known:
        report("model-from-python", name, "`model module` is a model that Python gives: its layers are not known here", "",
               "`nnac.prepare(model, policy, example)` checks every rule against it", severity="warning")
        return
    if name.text not in known:
        report("unknown-model", name, f"no model is called `{name.text}`", "", did_you_mean(name.text, known),
               fix=nearest(name.text, known))
        return
    arguments = _model_arguments(r, call, known[name.text], report)
    if arguments is None:
        return
    key = (name.text, tuple(arguments.items()))
    if memo is not None and memo.model_key == key:
        r.model, r.sites = memo.model, memo.sites
        return
    try:
        r.model = known[name.text](**arguments)
    except ModelError as e:
        report("impossible-model", call, str(e))
        return
    r.sites = Sites.of(r.model)
    if memo is not None:
        memo.model_key, memo.model, memo.sites = key, r.model, r.sites
        memo.rules.clear()


def _model_arguments(r: Resolution, call: Any, build: Any, report: Reporter) -> dict[str, Any] | None:
    parameters = inspect.signature(build).parameters
    out: dict[str, Any] = {}
    clean = True
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    for i, argument in enumerate(call.arguments if isinstance(call, s.Call) else ()):
        if argument.name is None and i >= len(positional):
            report("unnamed-argument", argument, f"`{call.name.text}` takes this argument by name", "", f"it has: {', '.join(parameters)}")
            clean = False
            continue
        name = argument.name.text if argument.name is not None else positional[i]
        if name not in parameters:
            report("unknown-argument", argument.name, f"`{call.name.text}` has no argument `{name}`", "", did_you_mean(name, parameters),
                   fix=nearest(name, parameters))
            clean = False
            continue
        if name in out:
            report("duplicate-argument", argument, f"`{name}` is given twice")
            clean = False
            continue
        value = evaluate(argument.value, r.names, report)
        plain = _plain(value)
        if plain is UNKNOWN:
            clean = False
            if value is not UNKNOWN:
                report("wrong-type", argument.value,
                       f"`{name}` of `{call.name.text}` is a number, a text, true or false, not {describe(value)}")
            continue
        wanted = str(parameters[name].annotation)
        if problem := _unfit(wanted, plain):
            report("wrong-type", argument.value, f"`{name}` of `{call.name.text}` is {problem}, not {describe(value)}")
            clean = False
        out[name] = plain
    return out if clean else None


def _plain(value: Any) -> Any:
    """A JSON value; UNKNOWN if it is none."""
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, Quantity) and value.dimension == NUMBER:
        try:
            return int(value.value) if value.value.denominator == 1 else float(value.value)
        except OverflowError:
            return UNKNOWN
    if isinstance(value, Quantity) and value.dimension == TIME:
        return float(value.value * 1000)           # `frame_ms=10 ms` says what it means
    return UNKNOWN


def _unfit(annotation: str, value: Any) -> str | None:
    """What a builder's parameter wants, if ``value`` is something else.  Annotations are strings such as ``int | None``."""
    kinds: dict[str, tuple[Any, str]] = {"bool": (bool, "true or false"), "int": (int, "a whole number"),
                                            "float": ((int, float), "a number"), "str": (str, "a text")}
    for name, (types, words) in kinds.items():
        if annotation.startswith(name):
            right = isinstance(value, types) and (name == "bool") == isinstance(value, bool)
            return None if right else words
    return None


def _target(r: Resolution) -> None:
    statement = _latest(r, s.UseTarget)
    if statement is None:
        return
    r.target_statement = statement
    name = statement.node.name
    report = _reporter(r, statement)
    declared = r.scope.targets.get(name.text)
    if declared is None:
        from nnac.language.tables import data_file

        shipped = sorted(f.stem for f in data_file("specs", "targets").glob("*.nnac"))
        if name.text in shipped:
            source = r.scope.file.source
            line = f'import "targets/{name.text}.nnac"'
            span = report.span(name)
            r.problems.append(Diagnostic(
                "unknown-target", f"target `{name.text}` is not imported", (Label(span),), (f"write `{line}` at the top of the file",),
                fix=(Edit(Span(source, 0, 0), line + "\n"),) if statement.file is r.scope.file else ()))
        else:
            known = [*r.scope.targets, *shipped]
            report("unknown-target", name, f"no target is called `{name.text}`", "", did_you_mean(name.text, known),
                   fix=nearest(name.text, known))
        return
    r.target = machine_of(r.scope, declared, r.problems)


def machine_of(scope: Scope, declared: Declared, problems: list[Diagnostic]) -> Target | None:
    """The Target that a declaration makes, with those it extends; None after a complaint."""
    chain = [declared]
    while (parent := chain[-1].node.extends) is not None:
        following = scope.targets.get(parent.text)
        report = Reporter(chain[-1].file.source, problems)
        if following is None:
            report("unknown-target", parent, f"no target is called `{parent.text}`", "",
                   did_you_mean(parent.text, [t for t in scope.targets if t != declared.node.name.text]), fix=nearest(parent.text,
                                                                                                                      scope.targets))
            return None
        if following in chain:
            report("circular-extends", parent, f"target `{chain[-1].node.name.text}` extends itself", "", "remove `extends`")
            return None
        chain.append(following)
    built: Target | None = None
    for one in reversed(chain):
        built = machine.target(one.node, built, Reporter(one.file.source, problems))
        if built is None:
            return None
    return built


def _training(r: Resolution) -> None:
    values: dict[str, Any] = {}
    for statement in r.statements:
        if not isinstance(statement.node, s.TrainingBlock):
            continue
        report = _reporter(r, statement)
        for setting in statement.node.settings:
            name = setting.name.text
            if name not in TRAINING:
                report("unknown-setting", setting.name, f"`training` has no setting `{name}`", "", did_you_mean(name, TRAINING),
                       fix=nearest(name, TRAINING))
                continue
            before = r.training_nodes.get(name)
            if before is not None and before[0] is statement:
                report("duplicate-setting", setting.name, f"`{name}` is said twice")
                continue
            value = _training_value(name, setting, r, report)
            if value is not UNKNOWN:
                values[name] = value
                r.training_nodes[name] = (statement, setting)
    r.training = Training(**values)


def _training_value(name: str, setting: s.Setting, r: Resolution, report: Reporter) -> Any:
    if len(setting.words) != 1:
        report("missing-word" if not setting.words else "too-many-words", setting, f"`{name}` takes one value")
        return UNKNOWN
    word = setting.words[0]
    value = evaluate(word, r.names, report)
    if value is UNKNOWN:
        return UNKNOWN
    if not isinstance(value, Quantity) or value.dimension != TRAINING[name]:
        hint = f"write `{value} {dimension_name(TRAINING[name])}`" if isinstance(value, Quantity) and value.dimension == NUMBER else ""
        report("wrong-unit", word, f"`{name}` of `training` is {dimension_name(TRAINING[name])}, not {describe(value)}", "", hint)
        return UNKNOWN
    low = 0 if name in ("seed", "warmup") else 1
    whole = name not in ("learning_rate", "epochs")
    if (whole and (value.value.denominator != 1 or value.value < low)) or value.value < 0 or value.value > 10**12 or (
            not whole and value.value == 0):
        report("out-of-range", word, f"`{name}` of `training` is {'a whole number' if whole else 'a number'} "
               f"{'from ' + str(low) if whole else 'above 0'}, not {describe(value)}")
        return UNKNOWN
    return int(value.value) if whole else float(value.value)


def _budgets(r: Resolution) -> None:
    found: dict[str, tuple[Budget, Statement, s.Bound]] = {}
    for statement in r.statements:
        if not isinstance(statement.node, s.BudgetBlock):
            continue
        report = _reporter(r, statement)
        for bound in statement.node.bounds:
            name = bound.name.text
            if name not in BUDGETS:
                report("unknown-setting", bound.name, f"`budget` has no quantity `{name}`", "", did_you_mean(name, BUDGETS),
                       fix=nearest(name, BUDGETS))
                continue
            if bound.operator != "<=":
                report("wrong-type", bound, f"a budget is an upper bound: `{name} <= …`", f"`{bound.operator}` is not")
                continue
            value = evaluate(bound.limit, r.names, report)
            if value is UNKNOWN:
                continue
            if not isinstance(value, Quantity) or value.dimension != BUDGETS[name]:
                report("wrong-unit", bound.limit, f"`{name}` is {dimension_name(BUDGETS[name])}, not {describe(value)}")
                continue
            if value.value < 0:
                report("out-of-range", bound.limit, "a budget is not negative")
                continue
            before = found.get(name)
            if before is not None and before[1] is statement:
                report("duplicate-setting", bound.name, f"`{name}` is bounded twice")
                continue
            found[name] = (Budget(name, float(min(value.value, Fraction(10**300))), f"{name} <= {value}"), statement, bound)
    r.budgets = list(found.values())


# -- rules

def _rules(r: Resolution, memo: Memo | None) -> None:
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
    weighted = sum(1 << number[layer.path] for layer in model if layer.kernels and layer.kind != "embedding")
    encoder = sum(1 << number[layer.path] for layer in model if layer.entry == "encoder")
    levels = {"kernel": sites.kernels | sites.gates, "layer": sites.layers, "recurrent": recurrent, "weighted": weighted,
              "encoder": encoder}
    return {name: levels[spec.level] for name, spec in SETTINGS.items()}


def _compile(r: Resolution, statement: Statement) -> CompiledRule:
    report = _reporter(r, statement)
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
                Label(statement.span(setting)), Label(statement.span(seen[name]), "here is the first")), ("remove one of them",)))
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


def _decide(r: Resolution) -> None:
    """Who wins where.  Rules are read from the last to the first; what is covered already is lost to the earlier ones."""
    sites = r.sites
    assert sites is not None
    covered = dict.fromkeys(SETTINGS, 0)
    r.winners = {name: {} for name in SETTINGS}
    # a kernel's own value matters to readers of the plan, but a rule is buried when all gates below are: weights live there
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
    for i in r.values["hidden"]:                       # a recurrent layer's output is its hidden state: one value, `hidden` where it is said
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


def plan_of(r: Resolution) -> Plan:
    """The plan that a resolution's values make; model, target and sites must be there."""
    sites, model, target, statement = r.sites, r.model, r.target, r.model_statement
    assert sites is not None and model is not None and target is not None and statement is not None
    out = []
    for i, path in enumerate(sites.paths):
        kind = "layer" if sites.layers >> i & 1 else "kernel" if sites.kernels >> i & 1 else "gate"
        names = LAYER_SETTINGS + ENTRY_SETTINGS if kind == "layer" else KERNEL_SETTINGS
        out.append(SitePlan(path, kind, **{n: r.values[n][i] for n in names if i in r.values[n]}))  # type: ignore[arg-type]
    call = statement.node.call
    arguments = {k: v for k, v in model.arguments.items() if isinstance(call, s.Call) or k == "size"}
    parameters = {k: p if (p := _plain(v)) is not UNKNOWN else str(v) for k, v in r.names.items()}
    return Plan(r.name, ModelReference(model.name, arguments), target, tuple(out), r.training, tuple(b for b, _, _ in r.budgets),
                parameters,
                Origins(r))


class Origins(Mapping[tuple[str, str], tuple[Origin, ...]]):
    """(site, setting) -> the rules that said something about it, in order; worked out when asked for."""

    def __init__(self, r: Resolution) -> None:
        self.r = r
        assert r.sites is not None
        self.number = {p: i for i, p in enumerate(r.sites.paths)}
        self.made: dict[int, Origin] = {}

    def __getitem__(self, key: tuple[str, str]) -> tuple[Origin, ...]:
        site, setting = key
        i = self.number[site]
        if not self.r.domains[setting] >> i & 1:
            raise KeyError(key)
        chain = [Origin(None, 0, 0, "default", settings.spelled(setting, settings.default(setting)))]
        if setting == "hidden":
            chain = [Origin(None, 0, 0, "default", "hidden follows activations"), *self._said("activations", i)]
        if setting == "accumulator":
            chain = [Origin(None, 0, 0, "default", "accumulator as wide as its operands ask")]
        if setting == "activations" and i in self.r.winners["hidden"]:
            return (*chain, *self._said("activations", i), *self._said("hidden", i))      # a recurrent layer gives its hidden state
        return (*chain, *self._said(setting, i))

    def _said(self, setting: str, i: int) -> Iterator[Origin]:
        for rule in self.r.rules:
            if rule.mask >> i & 1:
                for entry in rule.entries:
                    if entry.name == setting and entry.mask >> i & 1:
                        yield self._origin(rule, entry)

    def _origin(self, rule: CompiledRule, entry: Entry) -> Origin:
        known = self.made.get(id(entry))
        if known is None:
            span = rule.statement.span(entry.setting)
            line, column = span.source.position(span.start)
            known = Origin(span.source.name, line, column, rule.selectors, " ".join(span.text.split()))
            self.made[id(entry)] = known
        return known

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for setting, domain in self.r.domains.items():
            assert self.r.sites is not None
            for path in self.r.sites.named(domain):
                yield path, setting

    def __len__(self) -> int:
        return sum(d.bit_count() for d in self.r.domains.values())
