"""How a compression method is declared.

One method is one frozen attrs class in one file, ``nnac/compression/<keyword>.py``; the file's name is the keyword of
the language. Its arguments are attrs fields made by ``argument``: their kind, default, bounds and sentence are what the
linter checks, what the language server completes and what the manual prints.  Behaviour (PyTorch, NumPy) lives in
methods of the same class and imports what it needs inside its functions, so that reading a policy never loads torch.

    @method("weights")
    @frozen
    class Gq(Method):
        '''GQ: …  Source: …'''
        bits: int = argument("integer", low=1, high=8, positional=True, doc="bits of an index; 2^bits centroids")
        def fit(self, w): import torch; …

A plan holds instances of these classes.  ``Method.as_dict`` / ``from_dict`` carry them through JSON.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs import NOTHING, field, frozen

from nnac.compression._clips import ActivationRule
from nnac.compression._weights import WeightRule
from nnac.units import Change, Moment, Span

# kinds of argument                what the user writes               what the field holds
KINDS = {
    "integer":   "a whole number",              # 5                       int
    "number":    "a number",                    # 1e-4                    float
    "fraction":  "a percentage",                # 75%                     float, 0.75
    "boolean":   "true or false",               # true                    bool
    "choice":    "one of a few words",          # int8                    str
    "moment":    "steps, epochs or a percentage of training",             # Moment
    "span":      "two moments, `a..b`",         # 0..2k steps             Span
    "change":    "two numbers, `a -> b`",       # 1 -> 300                Change
    "form":      "a form with arguments",       # mu_law(255)             an instance of a Form class
    "numbers":   "a list of numbers",           # [-1, 0, 1]              tuple of float
}

SETTINGS_WITH_METHODS = ("weights", "activations", "hidden", "round", "regularise", "harden", "sparsity")


@frozen
class Argument:
    """What an attrs field says about itself to the language."""

    kind: str
    doc: str
    positional: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    form: str = ""               # for kind "form": which family of forms (space, anneal)
    optional: bool = False       # `none` is a value

    def problem(self, value: Any) -> str | None:
        """Why ``value`` (already of the right kind) is out of bounds; None if it is not."""
        if value is None:
            return None if self.optional else "cannot be none"
        if self.choices and value not in self.choices:
            return f"is one of {', '.join(map(str, self.choices))}"
        if self.kind in ("integer", "number", "fraction") and not isinstance(value, bool):
            shown = (lambda v: f"{v * 100:g}%") if self.kind == "fraction" else (lambda v: f"{v:g}")
            if not math.isfinite(value):
                return "is a finite number"
            if self.low is not None and value < self.low:
                return f"is at least {shown(self.low)}"
            if self.high is not None and value > self.high:
                return f"is at most {shown(self.high)}"
        if self.kind == "numbers":
            return None if all(math.isfinite(v) for v in value) else "is of finite numbers"
        if self.kind == "moment" and (value.amount < 0 or (value.unit == "training" and value.amount > 1)):
            return "is not before the start of training" if value.amount < 0 else "is at most 100% of training"
        if self.kind == "span":
            return next((p for p in (Argument("moment", "").problem(m) for m in (value.start, value.end)) if p), None)
        return None


def argument(kind: str, *, default: Any = NOTHING, doc: str, positional: bool = False, low: float | None = None,
             high: float | None = None,
             choices: Iterable[str] = (), form: str = "", optional: bool = False) -> Any:
    """An argument of a method.

    kind        a key of ``KINDS``            default
    of the field's Python type; none given: the argument is required
    positional  may be written without name   low, high   inclusive bounds
    choices  for kind "choice" (or integers)
    optional    ``none`` is allowed           doc         one sentence
    The value is checked whenever an instance is made, from the language, from JSON or from Python.
    """
    assert kind in KINDS, f"unknown kind of argument {kind!r}"
    spec = Argument(kind, doc, positional, low, high, tuple(choices), form, optional)

    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if problem := spec.problem(value):
            raise ValueError(f"`{language_name(attribute.name)}` of `{instance.keyword}` {problem}, not {value}")

    return field(default=default, validator=check, metadata={"argument": spec})


def language_name(field_name: str) -> str:
    """``from_`` in Python is ``from`` in a policy."""
    return field_name.rstrip("_")


class Described:
    """What methods and forms share: a keyword, described arguments, a printed form that the language reads back."""

    __slots__ = ()
    keyword: ClassVar[str]

    @classmethod
    def arguments(cls) -> dict[str, tuple[Argument, Any]]:
        """Name in the language -> (argument, default or NOTHING), in order."""
        return _arguments(cls)  # type: ignore[arg-type]

    @classmethod
    def make(cls, **arguments: Any) -> Any:
        """An instance from language names (``from=``).  ValueError, meant for the user, for a value out of bounds."""
        fields = _fields(cls)  # type: ignore[arg-type]
        return cls(**{fields[k]: v for k, v in arguments.items()})

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: ``{"method": keyword, "arguments": {...}}``."""
        return {"method": self.keyword, "arguments": {n: _plain(getattr(self, f)) for n, f in self._names()}}

    @classmethod
    def _names(cls) -> list[tuple[str, str]]:
        return [(language_name(a.name), a.name) for a in attrs.fields(cls)  # type: ignore[arg-type]
                if "argument" in a.metadata]

    def __str__(self) -> str:
        defaults = {language_name(a.name): a.default for a in attrs.fields(type(self))}  # type: ignore[arg-type]
        parts: list[str] = []
        for name, attribute in self._names():
            value, spec = getattr(self, attribute), self.arguments()[name][0]
            if spec.positional and len(parts) == _position(type(self), name):
                parts.append(_spelled(value, spec))          # what is plain without a name is always shown
            elif value != defaults[name]:
                parts.append(f"{name}={_spelled(value, spec)}")
        return f"{self.keyword}({', '.join(parts)})" if parts else self.keyword


@cache
def _arguments(cls: type[Described]) -> dict[str, tuple[Argument, Any]]:
    return {language_name(a.name): (a.metadata["argument"], a.default)
            for a in attrs.fields(cls) if "argument" in a.metadata}  # type: ignore[arg-type]


@cache
def _fields(cls: type[Described]) -> dict[str, str]:
    return {language_name(a.name): a.name for a in attrs.fields(cls)}  # type: ignore[arg-type]


def _position(cls: type[Described], name: str) -> int:
    return list(cls.arguments()).index(name)


def _spelled(value: Any, spec: Argument) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if spec.kind == "fraction":
        return f"{value * 100:.10g}%"
    if spec.kind == "numbers":
        return f"[{', '.join(repr(v) if v != int(v) else str(int(v)) for v in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Method(Described):
    """A compression method.  ``settings`` it may stand in; ``bits_fixed`` / ``takes_bits`` say where the width comes
    from."""

    __slots__ = ()
    settings: ClassVar[tuple[str, ...]]
    granularity: ClassVar[str] = "channel"       # when the policy does not say
    # ternary: 2, binary: 1; otherwise the policy's `intN`, or an argument `bits`
    fixed_bits: ClassVar[int | None] = None
    codebook: ClassVar[bool] = False             # values come from a table of centroids, not from a uniform grid
    # a weight's level is not the nearest one: the bounds between levels are the method's own
    own_bounds: ClassVar[bool] = False
    widths: ClassVar[tuple[int, ...]] = ()       # widths it is defined for; () for all

    @classmethod
    def takes_bits(cls) -> bool:
        """Whether its width is an argument (codebooks), not a word of its own (``int4``)."""
        return "bits" in cls.arguments()

    @property
    def moments(self) -> dict[str, Moment]:
        """Every moment of training that it names, by argument: what schedule checks look at."""
        out: dict[str, Moment] = {}
        for name, attribute in self._names():
            value = getattr(self, attribute)
            if isinstance(value, Moment):
                out[name] = value
            elif isinstance(value, Span):
                out[f"{name}.start"], out[f"{name}.end"] = value.start, value.end
        return out


class Form(Described):
    """A value with arguments of its own: ``mu_law(255)``, ``exponential(1 -> 300, over=4k steps)``.  ``family`` is what
    it is a kind of."""

    __slots__ = ()
    family: ClassVar[str]


_METHODS: dict[str, type[Method]] = {}
_FORMS: dict[str, type[Form]] = {}


def method(*settings: str) -> Callable[[type], type]:
    """Register a method for one or more settings.  Its keyword is the name of its file."""
    assert settings and all(s in SETTINGS_WITH_METHODS for s in settings), settings

    def register(cls: Any) -> Any:
        for rule, of in ((WeightRule, {"weights"}), (ActivationRule, {"activations", "hidden"})):
            assert not of & set(settings) or issubclass(cls,
                rule), f"{cls.__name__}, a method of {' and '.join(settings)}, is a {rule.__name__}"
        cls.keyword, cls.settings = cls.__module__.rpartition(".")[2], settings
        _METHODS[cls.keyword] = cls
        return cls

    return register


def form(keyword: str, family: str) -> Callable[[type], type]:
    """Register a form under its keyword."""

    def register(cls: Any) -> Any:
        cls.keyword, cls.family = keyword, family
        _FORMS[keyword] = cls
        return cls

    return register


@cache
def keywords() -> tuple[str, ...]:
    """The keywords of all methods, without importing any: the files of this package that declare one."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(f.stem for f in files if f.stem not in ("__init__", "base") and not f.stem.startswith("_")))


def find(keyword: str) -> type[Method] | None:
    """The method of that name, importing its file only; None if there is none."""
    if keyword in keywords():
        importlib.import_module(f"nnac.compression.{keyword}")
    return _METHODS.get(keyword)


def methods(setting: str | None = None) -> dict[str, type[Method]]:
    """All methods, or those that can stand in ``setting``, by keyword."""
    found = {k: find(k) for k in keywords()}
    return {k: m for k, m in found.items() if m is not None and (setting is None or setting in m.settings)}


def forms(family: str | None = None) -> dict[str, type[Form]]:
    """All forms, or those of one family, by keyword."""
    importlib.import_module("nnac.compression._forms")
    return {k: f for k, f in _FORMS.items() if family is None or f.family == family}


def _plain(value: Any) -> Any:
    if isinstance(value, Described):
        return value.as_dict()
    if isinstance(value, Moment):
        return {"amount": value.amount, "unit": value.unit}
    if isinstance(value, (Span, Change)):
        return {"start": _plain(value.start), "end": _plain(value.end)}
    return list(value) if isinstance(value, tuple) else value


def from_dict(data: dict[str, Any]) -> Any:
    """The method or form that ``as_dict`` described.  ValueError for an unknown name, argument or value."""
    cls: type[Described] | None = find(data["method"]) or forms().get(data["method"])
    if cls is None:
        raise ValueError(f"no method is called {data['method']!r}")
    specs = cls.arguments()
    if unknown := set(data["arguments"]) - set(specs):
        raise ValueError(f"`{cls.keyword}` has no argument {', '.join(sorted(unknown))}")
    return cls.make(**{n: _rebuilt(specs[n][0], v) for n, v in data["arguments"].items()})


def _rebuilt(spec: Argument, value: Any) -> Any:
    if value is None:
        return None
    if spec.kind == "moment":
        return Moment(**value)
    if spec.kind == "span":
        return Span(Moment(**value["start"]), Moment(**value["end"]))
    if spec.kind == "change":
        return Change(value["start"], value["end"])
    if spec.kind == "numbers":
        return tuple(float(v) for v in value)
    return from_dict(value) if spec.kind == "form" else value
