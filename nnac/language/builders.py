"""Builders: what each production of the grammar makes of its children.  A production that has none stands for its only
child.

A builder takes its place in the text and the children, tokens or nodes.  ``p.base`` is subtracted from every position:
nodes of an item count from its start, so that they can be kept while the text before them changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from nnac.language import syntax as s
from nnac.language.tokens import Token
from nnac.units import UnitError, number

LONGEST_SUM = 100           # operations in one expression


class Place(Protocol):
    """What a builder needs of the parser: where the item began, and somewhere to put what is wrong."""

    base: int

    def report(self, code: str, message: str, start: int, end: int, label: str, help: tuple[str, ...]) -> None:
        """A problem between two positions of the text."""


def flat(values: list[Any]) -> list[Any]:
    return [x for v in values for x in (v if isinstance(v, list) else [v])]


def _name(p: Place, token: Token) -> s.Name:
    return s.Name(token.start - p.base, token.end - p.base, token.text)


def _extent(p: Place, c: list[Any]) -> tuple[int, int]:
    """From the first child to the last."""
    first, last = c[0], c[-1]
    if type(last) is list:
        last = last[-1]
    return (first.start - p.base if type(first) is Token else first.start), (last.end - p.base if type(last) is Token
                                                                             else last.end)


def _only(c: list[Any], *kinds: Any) -> tuple[Any, ...]:
    return tuple(x for x in flat(c) if isinstance(x, kinds))


def _value(p: Place, value: Any) -> Any:
    """A token that stands for a value is one; nodes are already."""
    if isinstance(value, Token):
        return s.Text(value.start - p.base, value.end - p.base,
                      value.text[1:-1]) if value.kind == "STRING" else _name(p, value)
    return value


def _quantity(p: Place, c: list[Any]) -> s.Number:
    token: Token = c[0]
    unit = _name(p, c[1]) if len(c) > 1 else None
    try:
        value = number(token.text)
    except UnitError as e:
        p.report("number-out-of-bounds", f"{e}", token.start, token.end, "", ())
        value = number("0")
    return s.Number(token.start - p.base, _extent(p, c)[1], value, unit, token.text)


def _index(low: int, high: int) -> Callable[[Place, list[Any]], s.Index]:
    def build(p: Place, c: list[Any]) -> s.Index:
        bounds = []
        for token in (c[low], c[high]):
            if not token.text.isdigit() or len(token.text) > 9:
                p.report("syntax", f"an index is a whole number, not `{token.text[:20]}`", token.start, token.end, "",
                         ())
            bounds.append(int(token.text) if token.text.isdigit() and len(token.text) <= 9 else 0)
        return s.Index(*_extent(p, c), *bounds)

    return build


def _binary(p: Place, c: list[Any]) -> Any:
    left, right = _value(p, c[0]), _value(p, c[2])
    start, end = _extent(p, c)
    length = 1 + getattr(left, "length", 0) + getattr(right, "length", 0)
    if length > LONGEST_SUM:
        if length == LONGEST_SUM + 1:
            p.report("syntax", f"more than {LONGEST_SUM} operations in one expression", start + p.base, end + p.base,
                     "", ())
        return s.Binary(start, end, "+", s.Number(start, end, number("0"), None, "0"),
                        s.Number(start, end, number("0"), None, "0"), length)
    return s.Binary(start, end, c[1].text, left, right, length)


def _negative(p: Place, c: list[Any]) -> Any:
    operand = _value(p, c[1])
    return operand.operand if isinstance(operand, s.Negative) else s.Negative(*_extent(p, c), operand)   # - - x is x


def _alternatives(p: Place, c: list[Any]) -> s.Step:
    children, names = flat(c), []
    for i, x in enumerate(children):
        if isinstance(x, Token) and x.kind == "NAME":
            follow = children[i + 1] if i + 1 < len(children) else None
            names.append((_name(p, x), follow if isinstance(follow, s.Index) else None))
    return s.Step(*_extent(p, c), tuple(names))


def _arguments(p: Place, c: list[Any]) -> s.Call:
    return s.Call(*_extent(p, c), _name(p, c[0]), _only(c, s.Argument))


def _declared(p: Place, c: list[Any]) -> tuple[int, int, s.Name, s.Name | None]:
    base = next((x for x in c if isinstance(x, _Extends)), None)
    return *_extent(p, c), _name(p, c[1]), _name(p, base.name) if base else None


class _Extends(NamedTuple):
    name: Token


class _Block(s.Node):
    """A `{ … }` of settings on its way into its owner."""

    __slots__ = ("settings",)
    settings: tuple[s.Setting, ...]

    def __init__(self, start: int, end: int, settings: tuple[s.Setting, ...]) -> None:
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "end", end)
        object.__setattr__(self, "settings", settings)


def _settings(c: list[Any]) -> tuple[s.Setting, ...]:
    return next(x.settings for x in c if isinstance(x, _Block))


BUILDERS: dict[str, Callable[[Place, list[Any]], Any]] = {
    "start": lambda p, c: c[0] if c else [],
    "import_": lambda p, c: s.Import(*_extent(p, c), _value(p, c[1])),
    "policy": lambda p, c: s.Policy(*_declared(p, c), tuple(x for x in flat(c) if isinstance(x, s.Item))),
    "target": lambda p, c: s.TargetDeclaration(*_declared(p, c), _settings(c)),
    "extends_": lambda p, c: _Extends(c[1]),
    "model": lambda p, c: s.Model(*_extent(p, c), _value(p, c[1])),
    "target_use": lambda p, c: s.UseTarget(*_extent(p, c), _name(p, c[1])),
    "let": lambda p, c: s.Let(*_extent(p, c), _name(p, c[1]), _value(p, c[3])),
    "sweep": lambda p, c: s.Sweep(*_extent(p, c), _name(p, c[1]), c[3]),
    "rule": lambda p, c: s.Rule(*_extent(p, c), _only(c, s.Selector), _settings(c)),
    "budget": lambda p, c: s.BudgetBlock(*_extent(p, c), _only(c, s.Bound)),
    "training": lambda p, c: s.TrainingBlock(*_extent(p, c), _settings(c)),
    "decode": lambda p, c: s.DecodeBlock(*_extent(p, c), _settings(c)),
    "block": lambda p, c: _Block(*_extent(p, c), _only(c, s.Setting)),
    "setting": lambda p, c: s.Setting(*_extent(p, c), _name(p, c[0]), tuple(_value(p, x) for x in flat(c[1:]))),
    "bound": lambda p, c: s.Bound(*_extent(p, c), c[0], c[1].text, _value(p, c[2])),
    "quantile": lambda p, c: s.Name(*_extent(p, c), "".join(t.text for t in c)),
    "selector": lambda p, c: s.Selector(*_extent(p, c), _only(c, s.Step)),
    "step_name": lambda p, c: s.Step(*_extent(p, c), ((_name(p, c[0]), c[1] if len(c) > 1 else None),)),
    "step_alternatives": _alternatives,
    "step_any": lambda p, c: s.Step(*_extent(p, c)),
    "step_deep": lambda p, c: s.Step(*_extent(p, c), (), True),
    "index_one": _index(1, 1),
    "index_slice": _index(1, 3),
    "index_any": lambda p, c: s.Index(*_extent(p, c), None, None),
    "name": lambda p, c: _name(p, c[0]),
    "call": _arguments,
    "named": lambda p, c: s.Argument(*_extent(p, c), _name(p, c[0]), _value(p, c[2])),
    "positional": lambda p, c: s.Argument(*_extent(p, c), None, _value(p, c[0])),
    "range_": lambda p, c: s.Range(*_extent(p, c), _value(p, c[0]), _value(p, c[2])),
    "change": lambda p, c: s.Arrow(*_extent(p, c), _value(p, c[0]), _value(p, c[2])),
    "list_": lambda p, c: s.Values(*_extent(p, c), tuple(_value(p, x) for x in flat(c[1:-1])
                                                         if getattr(x, "kind", "") != "COMMA")),
    "binary": _binary,
    "negative": _negative,
    "group": lambda p, c: _value(p, c[1]),
    "quantity": _quantity,
}
