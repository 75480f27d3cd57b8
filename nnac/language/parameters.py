"""Parameters: the values of all `let`s and `sweep`s of a policy and of those that it extends, overrides included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnac.diagnostics import Diagnostic, Label
from nnac.language import syntax as s
from nnac.language.resolution import Resolution, Statement, reporter
from nnac.language.values import UNKNOWN, Pair, describe, evaluate
from nnac.units import NUMBER, TIME, Quantity, dimension_name


def settle_parameters(r: Resolution, overrides: Mapping[str, Any]) -> None:
    """Values of all `let`s and `sweep`s.  A later definition in a policy that extends replaces an earlier one,
    everywhere."""
    defined: dict[str, Statement] = {}
    for statement in r.statements:
        node = statement.node
        if not isinstance(node, (s.Let, s.Sweep)):
            continue
        before = defined.get(node.name.text)
        if before is not None and before.policy is statement.policy:
            r.problems.append(Diagnostic("duplicate-statement", f"`{node.name.text}` is defined twice", (
                Label(statement.span(node.name)), Label(before.span(before.node.name), "here is the first")),
                                         ("remove one of them",)))
            continue
        if node.name.text in ("true", "false", "none"):
            reporter(r, statement)("reserved-name", node.name, f"`{node.name.text}` is a value and cannot be redefined")
            continue
        defined[node.name.text] = statement
    r.parameters = defined
    state: dict[str, int] = {}
    for name in defined:
        _settle_one(r, name, overrides, state)


def _settle_one(r: Resolution, wanted: str, overrides: Mapping[str, Any], state: dict[str, int]) -> None:
    """Evaluate one definition after those it needs, without recursion: 1 = being worked on, 2 = done."""
    waiting = [wanted]
    while waiting:
        name = waiting[-1]
        statement = r.parameters[name]
        node = statement.node
        expression = overrides.get(name, node.value if isinstance(node, s.Let) else node.values.items[0]
                                   if node.values.items else None)
        needs = [n.text for n in s.walk(expression) if isinstance(n, s.Name) and n.text in r.parameters
                 and state.get(n.text) != 2
                 ] if expression is not None and state.get(name) != 2 and name not in overrides else []
        if state.get(name) == 2:
            waiting.pop()
        elif circular := [n for n in needs if state.get(n) == 1]:
            reporter(r, statement)("circular-let", node.name, f"`{circular[0]}` is defined through itself")
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
    report = reporter(r, statement)
    if expression is None:
        report("missing-word", node.values, f"`sweep {node.name.text}` has no values", "", "for example `[8, 5, 4]`")
        return UNKNOWN
    if isinstance(node, s.Sweep):
        kinds = {kind(v) for x in node.values.items if (v := evaluate(x, r.names, report)) is not UNKNOWN}
        if len(kinds) > 1:
            report("wrong-type", node.values,
                   f"the values of a sweep are of one kind, not {' and '.join(sorted(kinds))}")
    default = evaluate(node.value, r.names, lambda *a, **k: None) if isinstance(node, s.Let) else None
    value = evaluate(expression, r.names, report if override is None else lambda *a, **k: None)
    if isinstance(value, s.Node):
        report("wrong-type", node, f"`{node.name.text}` is a number, a text, true or false, not {describe(value)}")
        return UNKNOWN
    if override is not None and (value is UNKNOWN or (default is not None and default is not UNKNOWN
                                                      and kind(value) != kind(default))):
        wanted = f", which is {kind(default)}" if default is not None and default is not UNKNOWN else ""
        r.problems.append(Diagnostic("wrong-type", f"the value given for `{node.name.text}` does not fit{wanted}", (
            Label(statement.span(node.name), "defined here"),)))
        return UNKNOWN
    return value


def kind(value: Any) -> str:
    if isinstance(value, Quantity):
        return dimension_name(value.dimension)
    if isinstance(value, Pair):
        return f"a {value.kind}"
    return {bool: "true or false", str: "a text", tuple: "a list"}.get(type(value), "something else")


def plain(value: Any) -> Any:
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
