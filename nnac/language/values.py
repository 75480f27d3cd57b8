"""Expressions become typed values: numbers with units, ranges, texts; arguments become what a method's fields hold.

Everything here reports to a ``Report`` and returns None for what it could not make sense of, so that one run finds
every mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

from attrs import NOTHING, frozen

from nnac.compression.base import KINDS, Argument, Described, Form, Method, find, forms, keywords, methods
from nnac.diagnostics import Severity, did_you_mean, near, nearest
from nnac.language import syntax as s
from nnac.units import EPOCHS, NUMBER, PERCENT, STEPS, UNITS, Change, Moment, Quantity, Span, UnitError, dimension_name


class Report(Protocol):
    """Where problems go: a code, a node for the place, a message, a label for the place, help lines, a replacement of
    the node."""

    def __call__(self, code: str, node: Any, message: str, label: str = "", *help: str, fix: str | None = None,
                 severity: Severity = "error") -> None: ...


@frozen
class Pair:
    """``a..b`` (a range) or ``a -> b`` (a change), evaluated."""

    kind: str
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"{self.left}{'..' if self.kind == 'range' else ' -> '}{self.right}"


UNKNOWN = object()              # a value that has been complained about already
Names = Mapping[str, Any]       # name of a `let` or `sweep` -> value


def evaluate(node: Any, names: Names, report: Report) -> Any:
    """The value of an expression: Quantity, str, bool, Pair, tuple, or a Call left as it is.  ``UNKNOWN`` after a
    complaint."""
    if isinstance(node, s.Number):
        return _quantity(node, report)
    if isinstance(node, s.Text):
        return node.value
    if isinstance(node, s.Name):
        return _named(node, names, report)
    if isinstance(node, s.Negative):
        value = evaluate(node.operand, names, report)
        return _arithmetic(node, "-", Quantity(Fraction(0), value.dimension), value, report) if isinstance(value,
            Quantity) else _no_sum(
            node, value, report)
    if isinstance(node, s.Binary):
        return _sum(node, names, report)
    if isinstance(node, (s.Range, s.Arrow)):
        return _pair(node, names, report)
    if isinstance(node, s.Values):
        return tuple(evaluate(x, names, report) for x in node.items)
    return node                  # a call: only an argument of kind "form" knows what to do with it


def _named(node: s.Name, names: Names, report: Report) -> Any:
    if node.text in ("true", "false"):
        return node.text == "true"
    if node.text in names:
        return names[node.text]
    report("unknown-name", node, f"no `let` defines `{node.text}`", "", did_you_mean(node.text, names, "defined are"),
           fix=nearest(node.text, names))
    return UNKNOWN


def _quantity(node: s.Number, report: Report) -> Any:
    if node.unit is None:
        return Quantity(node.value)
    unit = UNITS.get(node.unit.text)
    if unit is None:
        close = near(node.unit.text, UNITS) or [u for u in UNITS if u.lower() == node.unit.text.lower()]
        report("unknown-unit", node.unit, f"no unit is called `{node.unit.text}`", "",
               did_you_mean(node.unit.text, UNITS),
               fix=next(iter(close), None))
        return UNKNOWN
    return Quantity(node.value * unit[0], unit[1])


def _sum(node: s.Binary, names: Names, report: Report) -> Any:
    """A chain of operations, left to right, without recursion on its length."""
    chain = []
    while isinstance(node, s.Binary):
        chain.append(node)
        node = node.left
    value = evaluate(node, names, report)
    for one in reversed(chain):
        right = evaluate(one.right, names, report)
        for operand, place in ((value, node), (right, one.right)):
            if not isinstance(operand, Quantity):
                return _no_sum(place, operand, report)
        value = _arithmetic(one, one.operator, value, right, report)
        if value is UNKNOWN:
            return UNKNOWN
    return value


def _arithmetic(node: Any, operator: str, left: Quantity, right: Quantity, report: Report) -> Any:
    try:
        return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[operator](right)
    except UnitError as e:
        report("wrong-unit", node, str(e), f"`{left}` {operator} `{right}`" if hasattr(node, "operator") else "")
        return UNKNOWN


def _no_sum(node: Any, value: Any, report: Report) -> Any:
    if value is not UNKNOWN:
        report("wrong-type", node, f"arithmetic needs numbers, not {describe(value)}")
    return UNKNOWN


def _pair(node: s.Range | s.Arrow, names: Names, report: Report) -> Any:
    left, right = evaluate(node.left, names, report), evaluate(node.right, names, report)
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    for value, place in ((left, node.left), (right, node.right)):
        if not isinstance(value, Quantity):
            report("wrong-type", place, f"a range has numbers at its ends, not {describe(value)}")
            return UNKNOWN
    # `0..2k steps`: the unit stands once, at the end
    if left.dimension == NUMBER and right.dimension != NUMBER:
        unit = node.right.unit.text if isinstance(node.right, s.Number) and node.right.unit else None
        left = Quantity(left.value * (UNITS[unit][0] if unit else 1), right.dimension)
    if left.dimension != right.dimension and {left.dimension, right.dimension} - {STEPS, EPOCHS, PERCENT}:
        report("wrong-unit", node,
               f"a range goes from {dimension_name(left.dimension)} to {dimension_name(right.dimension)}")
        return UNKNOWN
    return Pair("range" if isinstance(node, s.Range) else "change", left, right)


def describe(value: Any) -> str:
    """What a value is, for messages: ``4k steps (steps)``, ``the text "small"``."""
    if isinstance(value, Quantity):
        name = dimension_name(value.dimension)
        return f"`{value}`, {name}" if value.dimension != NUMBER else f"the number `{value}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    if isinstance(value, Pair):
        return f"the {value.kind} `{value}`"
    if isinstance(value, tuple):
        return "a list"
    return f"`{value.name.text}(…)`" if isinstance(value, s.Call) else f"`{value}`"


# -- arguments

def coerce(spec: Argument, node: Any, names: Names, report: Report, what: str) -> Any:
    """The value of ``node`` as an argument of kind ``spec`` wants it; UNKNOWN after a complaint.  ``what`` names it in
    messages."""
    if isinstance(node, s.Name) and node.text == "none" and spec.optional:
        return None
    if spec.kind == "form":
        return _form(spec, node, names, report, what)
    if spec.kind == "choice":
        if isinstance(node, s.Name) and node.text in spec.choices:
            return node.text
        if isinstance(node, s.Name) and node.text not in names:
            report("unknown-choice", node, f"{what} is one of {_listed(spec.choices)}, not `{node.text}`", "",
                   did_you_mean(node.text, spec.choices), fix=nearest(node.text, spec.choices))
            return UNKNOWN
    if spec.kind == "numbers":
        return _numbers(spec, node, names, report, what)
    value = evaluate(node, names, report)
    if value is UNKNOWN:
        return UNKNOWN
    result = convert(spec, value)
    if result is UNKNOWN:
        help: tuple[str, ...] = ()
        if spec.kind == "fraction" and isinstance(value,
                                                  Quantity) and value.dimension == NUMBER and 0 <= value.value <= 1:
            help = (f"write `{Quantity(value.value, PERCENT)}`",)
        if spec.kind == "moment" and isinstance(value, Quantity) and value.dimension == NUMBER:
            help = (f"write `{value} steps`, `{value} epochs`, or a percentage of training",)
        report("wrong-type", node, f"{what} is {KINDS[spec.kind]}, not {describe(value)}", "", *help,
               fix=f"{Quantity(value.value, PERCENT)}" if help and spec.kind == "fraction" else None)
        return UNKNOWN
    if problem := spec.problem(result):
        report("out-of-range", node, f"{what} {problem}, not {describe(value)}")
        return UNKNOWN
    return result


def _numbers(spec: Argument, node: Any, names: Names, report: Report, what: str) -> Any:
    """A list of numbers, each an expression."""
    if not isinstance(node, s.Values):
        report("wrong-type", node, f"{what} is a list of numbers", "", "for example `[-1, 0, 1]`")
        return UNKNOWN
    one = Argument("number", "")
    found = tuple(coerce(one, item, names, report, f"a number of {what}") for item in node.items)
    return UNKNOWN if UNKNOWN in found else found


def convert(spec: Argument, value: Any) -> Any:
    """A value as the Python type that ``spec.kind`` promises; UNKNOWN if it is of another kind."""
    kind = spec.kind
    if kind == "boolean":
        return value if isinstance(value, bool) else UNKNOWN
    if kind == "choice":
        return value if isinstance(value, str) else UNKNOWN
    if kind in ("span", "change"):
        if not isinstance(value, Pair) or value.kind != ("range" if kind == "span" else "change"):
            return UNKNOWN
        left, right = ((_moment(value.left), _moment(value.right)) if kind == "span"
                       else (_number(value.left), _number(value.right)))
        return UNKNOWN if UNKNOWN in (left, right) else (Span if kind == "span" else Change)(left, right)
    if not isinstance(value, Quantity):
        return UNKNOWN
    if kind == "moment":
        return _moment(value)
    if kind == "fraction":
        return float(value.value) if value.dimension == PERCENT else UNKNOWN
    if value.dimension != NUMBER:
        return UNKNOWN
    if kind == "integer":
        return int(value.value) if value.value.denominator == 1 else UNKNOWN
    return _number(value)


def _number(value: Quantity) -> Any:
    if value.dimension != NUMBER:
        return UNKNOWN
    try:
        return float(value.value)
    except OverflowError:
        return float("inf") if value.value > 0 else float("-inf")


def _moment(value: Quantity) -> Any:
    unit = {STEPS: "steps", EPOCHS: "epochs", PERCENT: "training"}.get(value.dimension)
    try:
        return Moment(float(value.value), unit) if unit else UNKNOWN  # type: ignore[arg-type]
    except OverflowError:
        return Moment(float("inf"), unit)  # type: ignore[arg-type]


def _listed(words: tuple[str, ...]) -> str:
    quoted = [f"`{w}`" for w in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" or {quoted[-1]}"


def _form(spec: Argument, node: Any, names: Names, report: Report, what: str) -> Any:
    family = forms(spec.form)
    name = node if isinstance(node, s.Name) else node.name if isinstance(node, s.Call) else None
    if name is None:
        report("wrong-type", node, f"{what} is one of {_listed(tuple(family))}")
        return UNKNOWN
    if name.text not in family:
        report("unknown-choice", name, f"{what} is one of {_listed(tuple(family))}, not `{name.text}`", "",
               did_you_mean(name.text, family),
               fix=nearest(name.text, family))
        return UNKNOWN
    return instance(family[name.text], node, names, report)


def instance(cls: type[Described], node: Any, names: Names, report: Report) -> Any:
    """An instance of a method or form from a name or a call with arguments; UNKNOWN after a complaint."""
    specs = cls.arguments()
    given = node.arguments if isinstance(node, s.Call) else ()
    bound, clean = bind({n: a for n, (a, _) in specs.items()}, cls.keyword, given, report)
    values: dict[str, Any] = {}
    placed = clean
    for name, argument in bound.items():
        values[name] = coerce(specs[name][0], argument.value, names, report, f"`{name}` of `{cls.keyword}`")
        clean = clean and values[name] is not UNKNOWN
    missing = [n for n, (_, default) in specs.items() if default is NOTHING and placed and n not in bound]
    if missing:
        what = KINDS[specs[missing[0]][0].kind]
        report("missing-argument", node, f"`{cls.keyword}` needs {_listed(tuple(missing))}", "",
               f"`{missing[0]}` is {what}: {specs[missing[0]][0].doc}")
        return UNKNOWN
    if not clean:
        return UNKNOWN
    try:
        return cls.make(**values)
    except ValueError as e:
        report("out-of-range", node, str(e))
        return UNKNOWN


def bind(specs: dict[str, Argument], owner: str, given: tuple[s.Argument, ...],
         report: Report) -> tuple[dict[str, s.Argument], bool]:
    """Which argument is which: positional ones in order, then by name; and whether all could be placed."""
    order = [n for n, a in specs.items() if a.positional]
    bound: dict[str, s.Argument] = {}
    clean = True
    for position, argument in enumerate(given):
        if argument.name is None:
            if position >= len(order):
                clean = False
                taken = (f"takes {_listed(tuple(order))} without a name" if order
                         else "has no argument that may stand without its name")
                report("unnamed-argument", argument, f"`{owner}` {taken}", "",
                       f"name it: {', '.join(f'`{n}=`' for n in specs if n not in bound)}"
                       if specs else f"`{owner}` has no arguments at all")
                continue
            name = order[position]
        else:
            name = argument.name.text
            if name not in specs:
                clean = False
                help = did_you_mean(name, specs, f"`{owner}` has") if specs else f"`{owner}` has no arguments"
                report("unknown-argument", argument.name, f"`{owner}` has no argument `{name}`", "", help,
                       fix=nearest(name, specs))
                continue
        if name in bound:
            clean = False
            report("duplicate-argument", argument, f"`{name}` of `{owner}` is given twice")
            continue
        bound[name] = argument
    return bound, clean


# what people call published methods, and how they are written here
PUBLISHED = {
    "s8bqat": "S8BQAT is `weights lloyd_max(4)` with `regularise mracos(…)` and `harden every …`: see "
             "specs/papers/s8bqat.nnac",
    "generalquantizer": "GQ is `weights gq(5)`: see specs/papers/gq5.nnac",
    "kmeans": "k-means of one dimension is `weights lloyd_max(4)`",
             "mxfp4": "its elements are `weights e2m1`, in groups: `per_group(32)`",
    "fp4": "four-bit floating point is `weights e2m1`, or `nf4` for normal weights",
    "xnor": "XNOR-Net's weights are `weights binary`", "twn": "ternary weight networks are `weights ternary`",
    "twostep": "`weights minmax` is the plain grid", "csp": "CSP prunes: `sparsity csp(75%, …)`",
             "gmp": "that is `sparsity magnitude(…)`",
    "lut": "a table of your own is `weights codebook(values=[…])`",
}


def method(setting: str, node: Any, names: Names, report: Report) -> Any:
    """The compression method that a word of ``setting`` names; UNKNOWN after a complaint."""
    name = node if isinstance(node, s.Name) else node.name if isinstance(node, s.Call) else None
    cls = find(name.text) if name is not None else None
    if name is None:
        report("wrong-type", node, f"`{setting}` does not take {describe(evaluate(node, names, lambda *a, **k: None))}",
               "",
               f"its methods: {', '.join(methods(setting))}")
        return UNKNOWN
    if cls is None:
        known = methods(setting)
        elsewhere = near(name.text, keywords())
        close = near(name.text, known)
        help = did_you_mean(name.text, known)
        if (spelled := PUBLISHED.get(name.text.lower().replace("_", "").replace("-", ""))) and setting == "weights":
            help, close = spelled, []
        elif not close and elsewhere and (other := find(elsewhere[0])) is not None:
            help = (f"`{elsewhere[0]}` is a method of {_listed(other.settings)}; for `{setting}` there are: "
                    f"{', '.join(known)}")
        report("unknown-method", name, f"no method of `{setting}` is called `{name.text}`", "", help,
               fix=next(iter(close), None))
        return UNKNOWN
    if setting not in cls.settings:
        report("unknown-method", name, f"`{name.text}` is not a method of `{setting}`", "",
               f"it belongs to {_listed(cls.settings)}; for `{setting}` there are: {', '.join(methods(setting))}")
        return UNKNOWN
    return instance(cls, node, names, report)


__all__ = ["UNKNOWN", "Form", "Method", "Names", "Pair", "Report", "bind", "coerce", "convert", "describe", "evaluate",
           "instance",
           "method"]
