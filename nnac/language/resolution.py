"""What resolving leaves behind: statements with their places, compiled rules, who decided what, every problem found.

Plain data and the means to report a problem at a node.  The stages of ``resolve`` fill a ``Resolution`` in, one after
the other; lint rules, the editor and ``nnac explain`` read it.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from nnac.diagnostics import Diagnostic, Edit, Label, Severity, Source, Span
from nnac.language import select
from nnac.language import syntax as s
from nnac.language.select import Sites
from nnac.language.workspace import Declared, Scope
from nnac.model.graph import ModelGraph
from nnac.plan import Budget, Decode, Plan, Training
from nnac.target import Target


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
        self.problems.append(Diagnostic(code, message, (Label(span, label),), tuple(h for h in help if h), severity,
                                        edits))

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
    """One setting of one rule: its value, and the sites that it is said about (those that have such a setting at
    all)."""

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
    decode: Decode | None = None
    decode_nodes: dict[str, tuple[Statement, s.Setting]] = field(factory=dict)
    values: dict[str, dict[int, Any]] = field(factory=dict)        # setting -> site number -> value, defaults included
    problems: list[Diagnostic] = field(factory=list)
    plan: Plan | None = None
    estimate: Any = None                                           # of its cost, once a rule has asked for it
    on_cpu: frozenset[str] | None = None                           # layers that run there, once a rule has asked

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


def reporter(r: Resolution, statement: Statement) -> Reporter:
    return Reporter(statement.file.source, r.problems, statement.item.offset)


def latest(r: Resolution, kind: type) -> Statement | None:
    """The statement of a kind that counts: the one nearest to the policy; a second one in the same policy is a
    mistake."""
    found: Statement | None = None
    for statement in r.statements:
        if not isinstance(statement.node, kind):
            continue
        if found is not None and found.policy is statement.policy:
            word = "model" if kind is s.Model else "target"
            r.problems.append(Diagnostic("duplicate-statement", f"a policy has one `{word}`", (
                Label(statement.span(statement.node)), Label(found.span(found.node), "here is the first")),
                                         ("remove one of them",)))
        else:
            found = statement
    return found
