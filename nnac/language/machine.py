"""From ``target`` declarations to a Target: each field looked up in ``nnac.target.FIELDS``, its words checked and
converted."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from nnac.diagnostics import Diagnostic, did_you_mean, nearest
from nnac.language import syntax as s
from nnac.language.resolution import Reporter
from nnac.language.values import UNKNOWN, Report, describe, evaluate
from nnac.language.workspace import Declared, Scope
from nnac.limits import MOST
from nnac.target import FIELDS, Field, Target, Word, from_values
from nnac.units import (
    BANDWIDTH,
    BYTES,
    CYCLES,
    ENERGY,
    FREQUENCY,
    LENGTH,
    NUMBER,
    PER_SECOND,
    TIME,
    Quantity,
    dimension_name,
)

DIMENSIONS = {"frequency": FREQUENCY, "bytes": BYTES, "bandwidth": BANDWIDTH, "cycles": CYCLES, "time": TIME,
              "energy": ENERGY, "length": LENGTH,
              "per_second": PER_SECOND, "integer": NUMBER, "ratio": NUMBER}
EXACT = ("time", "energy", "ratio")            # kept as fractions; everything else is a whole number of base units
LARGEST = 10**18


def target(node: s.TargetDeclaration, base: Target | None, report: Report) -> Target | None:
    """The machine that ``node`` declares, over ``base`` if it extends one; None after a complaint."""
    values: dict[str, Any] = {}
    clean = True
    for setting in node.settings:
        name = setting.name.text
        spec = FIELDS.get(name)
        if spec is None:
            report("unknown-field", setting.name, f"a target has no field `{name}`", "", did_you_mean(name, FIELDS),
                   fix=nearest(name, FIELDS))
            clean = False
        elif name in values:
            report("duplicate-setting", setting.name, f"`{name}` is said twice")
            clean = False
        else:
            values[name] = value = _field(name, spec, setting, report)
            if name in MOST and isinstance(value, int) and value > MOST[name]:
                report("out-of-range", setting.words[0],
                       f"the instruction set has {MOST[name]} {name} at most, not {value}")
                clean = False
            clean = clean and value is not UNKNOWN
    if not clean:
        return None
    try:
        return from_values(node.name.text, values, base)
    except (ValueError, TypeError) as e:
        report("incomplete-target", node.name, str(e))
        return None


def _field(name: str, spec: Field, setting: s.Setting, report: Report) -> Any:
    if not setting.words:
        report("missing-word", setting.name, f"`{name}` says nothing", spec.doc)
        return UNKNOWN
    if spec.kind == "words":
        return _words(name, spec.choices, setting.words, report)
    if spec.kind == "calls":
        return _calls(name, spec, setting.words, report)
    beside = tuple(w for w in setting.words if isinstance(w, s.Call)) if spec.words else ()
    plain = [w for w in setting.words if w not in beside]
    if len(plain) > 1:
        report("too-many-words", plain[1], f"`{name}` takes one value")
        return UNKNOWN
    value = _value(plain[0], spec.kind, f"`{name}`", report) if plain else None
    called = _calls(name, spec, beside, report)
    if value is UNKNOWN or called is UNKNOWN:
        return UNKNOWN
    return called | ({} if value is None else {name: value}) if beside else value


def _value(node: Any, kind: str, what: str, report: Report) -> Any:
    value = evaluate(node, {}, report)
    if value is UNKNOWN:
        return UNKNOWN
    dimension = DIMENSIONS[kind]
    if not isinstance(value, Quantity) or value.dimension != dimension:
        report("wrong-unit", node, f"{what} is {dimension_name(dimension)}, not {describe(value)}")
        return UNKNOWN
    if not 0 <= value.value <= LARGEST:
        report("out-of-range", node, f"{what} is out of all bounds")
        return UNKNOWN
    if kind in EXACT:
        return value.value
    if value.value.denominator != 1:
        report("out-of-range", node, f"{what} is a whole number of {dimension_name(dimension)}, not {describe(value)}")
        return UNKNOWN
    return int(value.value)


def _words(name: str, choices: tuple[str, ...], words: tuple[Any, ...], report: Report) -> Any:
    out: list[str] = []
    clean = True
    for word in words:
        text = word.text if isinstance(word, s.Name) else None
        if text not in choices:
            clean = False
            report("unknown-choice", word, f"`{name}` has no `{text or '…'}`", "", did_you_mean(text or "", choices),
                   fix=nearest(text or "", choices))
        elif text in out:
            clean = False
            report("duplicate-word", word, f"`{text}` is listed twice", fix="")
        else:
            out.append(text)  # type: ignore[arg-type]
    return tuple(out) if clean else UNKNOWN


def _calls(name: str, spec: Field, words: tuple[Any, ...], report: Report) -> Any:
    known = {w.name: w for w in spec.words}
    out: dict[str, int | Fraction] = {}
    clean = True
    for word in words:
        called: Word | None = known.get(word.name.text) if isinstance(word, s.Call) else None
        if called is None:
            clean = False
            text = word.name.text if isinstance(word, s.Call) else word.text if isinstance(word, s.Name) else ""
            if text in known:
                report("missing-argument", word, f"`{text}` needs its value in brackets", known[text].doc,
                       f"write `{text}(…)`")
            else:
                report("unknown-word", word, f"`{name}` has no `{text or '…'}`", "", did_you_mean(text, known),
                       fix=None)
        elif len(word.arguments) != 1 or word.arguments[0].name is not None:
            clean = False
            report("missing-argument", word, f"`{called.name}` takes one value in brackets")
        elif called.name in out:
            clean = False
            report("duplicate-word", word, f"`{called.name}` is said twice")
        else:
            value = _value(word.arguments[0].value, called.kind, f"`{called.name}`", report)
            clean = clean and value is not UNKNOWN
            out[called.name] = value
    return out if clean else UNKNOWN


def machine_of(scope: Scope, declared: Declared, problems: list[Diagnostic]) -> Target | None:
    """The Target that a declaration makes, with those it extends; None after a complaint."""
    chain = [declared]
    while (parent := chain[-1].node.extends) is not None:
        following = scope.targets.get(parent.text)
        report = Reporter(chain[-1].file.source, problems)
        if following is None:
            report("unknown-target", parent, f"no target is called `{parent.text}`", "",
                   did_you_mean(parent.text, (t for t in scope.targets if t != declared.node.name.text)),
                   fix=nearest(parent.text, scope.targets))
            return None
        if following in chain:
            report("circular-extends", parent, f"target `{chain[-1].node.name.text}` extends itself", "",
                   "remove `extends`")
            return None
        chain.append(following)
    built: Target | None = None
    for one in reversed(chain):
        built = target(one.node, built, Reporter(one.file.source, problems))
        if built is None:
            return None
    return built
