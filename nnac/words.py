"""Docstrings that are part of the product: the manual, `nnac lint --explain`, `--help`.

Read from the source where Python was told to drop them (-OO).
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


def doc(thing: Any) -> str:
    """The docstring of a module, class or function, cleaned as `inspect.getdoc` does; "" where there is none."""
    return inspect.getdoc(thing) or (_from_source(thing) if sys.flags.optimize >= 2 else "")


def _from_source(thing: Any) -> str:
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(getattr(thing, "__module__", ""))
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    found = _documented(file)
    if isinstance(thing, ModuleType):
        return found.get("", "")
    for name in [thing.__qualname__, *(c.__qualname__ for c in getattr(thing, "__mro__", ())[1:]
                                       if c.__module__ == thing.__module__)]:
        if name in found:
            return found[name]
    return ""


@cache
def _documented(file: str) -> dict[str, str]:
    """Qualified name -> docstring, of everything in a source file; "" is the module's own."""
    try:
        tree = ast.parse(Path(file).read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    out = {"": ast.get_docstring(tree) or ""}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                if (text := ast.get_docstring(child)) is not None:
                    out[prefix + child.name] = text
                visit(child, f"{prefix}{child.name}.")

    visit(tree, "")
    return out
