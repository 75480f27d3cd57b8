"""The vocabulary in words: what `nnac explain --methods` and `--settings` print, and what an editor shows on hover."""

from __future__ import annotations

from typing import Any

from attrs import NOTHING

from nnac.compression.base import KINDS, Argument, Described
from nnac.compression.base import forms as all_forms
from nnac.compression.base import methods as all_methods
from nnac.language.settings import SETTINGS
from nnac.words import doc


def argument(name: str, spec: Argument, default: Any) -> str:
    """One argument in a line: ``bits  a whole number, 1 to 8  (required): …``."""
    bounds = ""
    if spec.low is not None and spec.high is not None:
        scale = 100 if spec.kind == "fraction" else 1
        unit = "%" if spec.kind == "fraction" else ""
        bounds = f", {spec.low * scale:g}{unit} to {spec.high * scale:g}{unit}"
    names = spec.choices if spec.kind == "choice" else tuple(all_forms(spec.form)) if spec.kind == "form" else ()
    kind = " or ".join(names) or KINDS[spec.kind]
    given = ("required" if default is NOTHING else "none" if default is None else str(default).lower()
             if isinstance(default, bool) else
         f"{default * 100:g}%" if spec.kind == "fraction" else str(default))
    return f"{name:<16} {kind}{bounds} ({given}): {spec.doc}"


def method(cls: type[Described]) -> str:
    """A method or form with its arguments."""
    where = f"  [{', '.join(cls.settings)}]" if hasattr(cls,
        "settings") else f"  [{cls.family}]"  # type: ignore[attr-defined]
    lines = [f"{cls.keyword}{where}", *(f"    {line}".rstrip() for line in (doc(cls) or "").split("\n"))]
    if cls.arguments():
        lines.append("")
        lines += [f"    {argument(name, spec, default)}" for name, (spec, default) in cls.arguments().items()]
    return "\n".join(lines)


def methods() -> str:
    """Every method and form."""
    every: list[type[Described]] = [*all_methods().values(), *all_forms().values()]
    return "\n\n".join(method(m) for m in every)


def setting(name: str) -> str:
    """A setting: what it is, its words, an example."""
    spec = SETTINGS[name]
    words = []
    if spec.widths:
        words.append("width " + ", ".join([f"int{b}" for b in spec.widths] + (["float"] if name == "weights" else [])) +
                     ", or int(n)")
    if spec.granularity:
        words.append("per_tensor, per_channel, per_gate or per_group(n)")
    if name == "cell":
        words.append("fraction(n) or auto")
    if spec.choices:
        words.append(", ".join(spec.choices))
    if spec.methods:
        words.append("method " + ", ".join(all_methods(name)))
    return "\n".join([f"{name}: {spec.doc}", *(f"    {w}" for w in words), f"    for example  {spec.example}"])


def settings() -> str:
    """Every setting."""
    return "\n\n".join(setting(name) for name in SETTINGS)
