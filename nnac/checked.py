"""Data from outside (JSON, TOML) as the attrs objects that it should be: nothing is believed, everything wrong is said
at once, with its place.

Types are taken at their word: 1.5 is no whole number, ``true`` is no number, 3 is no text, a name that a class does not
have is a mistake. A field's metadata may say ``key``: what it is called outside; `OPTION`: that it is left out there
while it is off.  A class with ``OPEN`` may
meet names that it does not have; one with ``READS_ITSELF`` is what its ``from_json`` makes.  Structuring is done by
`cattrs`; the strictness and the words are ours.
"""

from __future__ import annotations

import builtins
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from attrs import asdict, fields, has, resolve_types

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")
SHOWN = 8                      # problems in one message
_OUTSIDE: dict[str, str] = {}  # field -> what it is called outside
OPTION = {"option": True}      # metadata of a field that came later: files from before stay what they are known by
LARGEST = 1 << 63              # whole numbers beyond it are no counts, sizes or addresses of anything


class Wrong(ValueError):
    """What is wrong with data; ``problems`` are lines of ``place: words``, the place like ``table[1].row[2].seeds``."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        more = len(self.problems) - SHOWN
        super().__init__("; ".join(self.problems[:SHOWN]) + (f"; and {more} more" if more > 0 else ""))


def checked(kind: type[T], data: Any, where: str = "") -> T:
    """``data`` as an object of ``kind``, an attrs class or a type of such (``list[Row]``).  Wrong: everything that is
    wrong with it."""
    from cattrs import BaseValidationError, transform_error

    try:
        return _converter().structure(data, kind)
    except BaseValidationError as error:
        found = transform_error(error, path="$", format_exception=_words)
        raise Wrong([_placed(line, where) for line in found]) from None
    except (ValueError, TypeError, KeyError) as error:                 # of the outermost value itself
        raise Wrong([f"{where}: {_words(error, kind)}" if where else _words(error, kind)]) from None
    except RecursionError:
        raise Wrong([f"{where or 'it'}: nested absurdly deep"]) from None


def settings(config: Any) -> dict[str, Any]:
    """A configuration as JSON: what a checkpoint is known by.  Options that are off are left out."""
    return asdict(config, filter=lambda a, value: not (a.metadata.get("option") and value == a.default))


def _placed(line: str, where: str) -> str:
    """``words @ $.table[0].seeds`` of cattrs -> ``table[1].seeds: words``: people count from one."""
    words, _, place = line.rpartition(" @ ")
    place = re.sub(r"\[(\d+)\]", lambda m: f"[{int(m[1]) + 1}]", place.removeprefix("$")).lstrip(".")
    place = re.sub(r"\['([^']*)'\]", r".\1", place).lstrip(".")
    place = ".".join(_OUTSIDE.get(p.partition("[")[0], p.partition("[")[0]) + "".join(p.partition("[")[1:])
                     for p in place.split("."))
    whole = ".".join(p for p in (where, place) if p)
    return f"{whole}: {words}" if whole else words


def _words(error: BaseException, kind: Any) -> str:
    if isinstance(error, KeyError):
        return "is missing"
    extra = getattr(error, "extra_fields", None)
    if extra:
        known = [a.metadata.get("key", a.name) for a in fields(error.cl)] if hasattr(error,
            "cl") else []     # type: ignore[attr-defined]
        return (f"unknown {', '.join(f'`{str(e)[:40]}`' for e in sorted(extra, key=str))} (there are: "
                f"{', '.join(known)})")
    if isinstance(error, TypeError):
        return f"{_name(kind)} is expected"
    return str(error)


def shown(value: Any) -> str:
    """A value in a message: short."""
    if isinstance(value, str | bool | float) or value is None:
        text = repr(value)
    elif isinstance(value, int):
        text = str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"
    else:
        return "a table" if isinstance(value, Mapping) else "a list" \
            if isinstance(value, list | tuple) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:36] + "…" + text[:1]


def _refuse(expected: str, value: Any) -> Any:
    raise ValueError(f"{expected} is expected, not {shown(value)}")


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
             Fraction: "a number or a ratio"}
    origin = get_origin(kind)
    if kind in names:
        return names[kind]
    if origin in (UnionType, Union):
        return " or ".join(dict.fromkeys("nothing" if k is type(None) else _name(k) for k in get_args(kind)))
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return "a list" if origin in (list, tuple) else "a table"


def _whole(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse("a whole number", value)
    if not -LARGEST <= value < LARGEST:
        _refuse("a number of a size that makes sense", value)
    return value


def _real(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse("a number", value)
    if not (abs(value) < LARGEST * LARGEST or (isinstance(value, float) and math.isfinite(value))):
        _refuse("a finite number", value)
    return value


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        _refuse("a text", value)
    if not value.isprintable():
        for c in value:
            if 0xD800 <= ord(c) <= 0xDFFF:
                raise ValueError("a text with half of a character pair")
            # they would command the terminal that shows them
            if (ord(c) < 32 and c not in "\n\t\r") or 127 <= ord(c) < 160:
                raise ValueError(f"a text with the control character {c!a}")
    return value


def _truth(value: Any, _: Any) -> bool:
    return value if isinstance(value, bool) else _refuse("true or false", value)


def _ratio(value: Any, _: Any) -> Fraction:
    if isinstance(value, Fraction) or (isinstance(value, int) and not isinstance(value, bool)):
        return Fraction(value)
    if isinstance(value, str) and len(value) < 100 and re.fullmatch(r"-?\d+(/[1-9]\d*)?", value):
        return Fraction(value)
    return _refuse("a number or a ratio such as 1/2", value)


@cache
def _converter() -> Converter:
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, override

    made = Converter(detailed_validation=True, forbid_extra_keys=True)
    for kind, hook in ((int, _whole), (float, _real), (str, _text), (bool, _truth), (Fraction, _ratio)):
        made.register_structure_hook(kind, hook)

    def bounded(a: Any) -> Callable[[Any, Any], Any]:
        def structure(value: Any, kind: Any) -> Any:
            held = made.structure(value, kind)
            try:
                a.validator(None, a, held)
            except (ValueError, TypeError) as error:
                raise ValueError(str(error.args[0] if error.args else error)) from None
            return held

        return structure

    def of_class(kind: Any) -> Callable[[Any, Any], Any]:
        if getattr(kind, "READS_ITSELF", False):
            return lambda value, wanted: kind.from_json(value)
        resolve_types(kind)
        # bounds are looked at field by field too: a class looks at them one after the other, and stops at the first
        renamed = {a.name: override(rename=a.metadata.get("key"), struct_hook=bounded(a) if by_itself(a.validator)
                                    else None)
                   for a in fields(kind) if "key" in a.metadata or by_itself(a.validator)}
        _OUTSIDE.update({a.name: a.metadata["key"] for a in fields(kind) if a.metadata.get("key")})
        absent = {a.name: override(omit=True) for a in fields(kind) if a.metadata.get("key", "") is None or not a.init}
        # a name may be `self`, `cls` or the like: extra names are looked at before they could be arguments
        strict = not getattr(kind, "OPEN", False)
        inner = make_dict_structure_fn(kind, made, _cattrs_forbid_extra_keys=strict,
                                       **(renamed | absent))  # type: ignore[arg-type]

        def structure(value: Any, wanted: Any) -> Any:
            if not isinstance(value, Mapping):
                _refuse("a table", value)
            return inner(value, wanted)

        return structure

    def of_sequence(kind: Any) -> Callable[[Any, Any], Any]:
        inside = get_args(kind)
        fixed = get_origin(kind) is tuple and inside[-1:] != (Ellipsis,)
        each = list[inside[0]] if inside else list                     # type: ignore[misc,valid-type]
        lists = made.get_structure_hook(each) if not fixed else None

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, list | tuple):
                _refuse("a list", value)
            if fixed:
                if len(value) != len(inside):
                    raise ValueError(f"a list of {len(inside)} is expected, not of {len(value)}")
                return tuple(made.structure(v, k) for v, k in zip(value, inside, strict=True))
            assert lists is not None
            return tuple(lists(value, each))

        return structure

    def of_list(kind: Any) -> Callable[[Any, Any], Any]:
        from cattrs.cols import list_structure_factory

        inner = list_structure_factory(kind, made)
        return lambda value, wanted: inner(value, wanted) if isinstance(value, list | tuple) else _refuse("a list",
            value)

    def of_table(kind: Any) -> Callable[[Any, Any], Any]:
        from cattrs.cols import mapping_structure_factory

        key, inside = get_args(kind)
        inner = mapping_structure_factory(dict[key, inside], made)       # type: ignore[valid-type]
        return lambda value, wanted: inner(value, wanted) if isinstance(value, Mapping) else _refuse("a table", value)

    def of_union(kind: Any) -> Callable[[Any, Any], Any]:
        kinds = [k for k in get_args(kind) if k is not type(None)]

        def structure(value: Any, _: Any) -> Any:
            if value is None and len(kinds) < len(get_args(kind)):
                return None
            if len(kinds) == 1:
                return made.structure(value, kinds[0])
            for one in kinds:
                try:
                    return made.structure(value, one)
                # cattrs' own groups, and whatever a class's validators raise: the next kind may fit
                except Exception:
                    continue
            return _refuse(_name(kind), value)

        return structure

    made.register_structure_hook_factory(lambda k: get_origin(k) is tuple, of_sequence)
    made.register_structure_hook_factory(lambda k: get_origin(k) is list, of_list)
    made.register_structure_hook_factory(lambda k: get_origin(k) in (dict, Mapping)
                                         or getattr(get_origin(k), "__name__", "") == "Mapping", of_table)
    made.register_structure_hook_factory(lambda k: get_origin(k) in (UnionType, Union), of_union)
    made.register_structure_hook_factory(has, of_class)
    made.register_structure_hook_func(lambda k: k is Any or isinstance(k, TypeVar), lambda value, _: value)
    return made


def by_itself(validator: Any) -> bool:
    """Whether a validator is one of attrs' own, which look at nothing but the value."""
    parts = getattr(validator, "_validators", (validator,))
    return validator is not None and all(type(v).__module__ == "attr.validators" for v in parts)


class _Unknown:
    """A type, or a module of types, that is not imported here: anything fits it."""

    def __getattr__(self, name: str) -> Any:
        return Any

    def __getitem__(self, inside: Any) -> Any:
        return Any


class _Known(dict[str, Any]):
    """The names that a class's types are written in; what its module imports for type checking alone fits anything."""

    def __init__(self, cls: type) -> None:
        super().__init__()
        self.module = vars(sys.modules[cls.__module__])

    def __missing__(self, name: str) -> Any:
        return self.module.get(name, vars(builtins).get(name, _Unknown()))


def misfits(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Where an object that is made already does not keep to its types: for classes that are built by hand from what a
    file says."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar | _Unknown):
        return
    if origin in (UnionType, Union):
        if all(any(True for _ in misfits(value, k, where)) for k in inside):
            yield f"{where}: {_name(kind)} is expected, not {shown(value)}"
    elif origin is Literal:
        if value not in inside:
            yield f"{where}: {_name(kind)} is expected, not {shown(value)}"
    elif kind in (int, float, str, bool):
        try:
            {int: _whole, float: _real, str: _text, bool: _truth}[kind](value, kind)
        except ValueError as error:
            yield f"{where}: {error}"
    elif origin in (tuple, list):
        if not isinstance(value, tuple | list) or (origin is tuple and inside[-1:] != (Ellipsis,)
                                                   and len(value) != len(inside)):
            yield f"{where}: a list is expected, not {shown(value)}"
        else:
            kinds = inside if origin is tuple and inside[-1:] != (Ellipsis,
                ) else [inside[0]] * len(value) if inside else [Any] * len(value)
            for i, (v, k) in enumerate(zip(value, kinds, strict=True), 1):
                yield from misfits(v, k, f"{where}[{i}]")
    elif origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            yield f"{where}: a table is expected, not {shown(value)}"
        else:
            for k, v in value.items():
                yield from misfits(k, inside[0], where)
                yield from misfits(v, inside[1], f"{where}.{str(k)[:40]}")
    elif not isinstance(value, origin or kind):
        yield f"{where}: {_name(kind)} is expected, not {shown(value)}"
    elif has(type(value)):
        resolve_types(type(value), localns=_Known(type(value)))
        for a in fields(type(value)):
            yield from misfits(getattr(value, a.name), a.type or Any, f"{where}.{a.name}")


def fitting(value: T, where: str = "") -> T:
    """``value``, an attrs object, if it keeps to its types.  Wrong: everything that does not."""
    if found := list(misfits(value, type(value), where or type(value).__name__.lower())):
        raise Wrong(found)
    return value


# ------------------------------------------------------------------------------------------------ JSON and TOML

def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.  Wrong: it is none, or nested absurdly deep; NaN and infinities are no JSON."""
    import json

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is no number in JSON")

    try:
        return json.loads(text, parse_constant=constant)
    except RecursionError:
        raise Wrong(["brackets are nested absurdly deep"]) from None
    except UnicodeDecodeError:
        raise Wrong(["not text in UTF-8"]) from None
    except ValueError as error:
        words = str(error)
        raise Wrong(["a number of thousands of digits" if "digits" in words else f"not JSON ({words})"]) from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.  Wrong: it is none, or nested absurdly deep."""
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise Wrong(["brackets are nested absurdly deep"]) from None
    except ValueError as error:                            # TOMLDecodeError, and numbers of thousands of digits
        words = str(error)
        raise Wrong(["a number of thousands of digits" if "digits" in words else words]) from None


def counted(text: str) -> int | None:
    """The whole number that a text of digits is; None where it is none, or has more than 18 of them (Python refuses
    thousands with an exception, and no file counts so far)."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None
