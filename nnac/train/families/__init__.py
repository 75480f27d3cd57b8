"""What a family of models adds to `GraphModule`: its calls and its loss.  One family a file, named as its builder in
`nnac.model`."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from nnac.train.module import GraphModule

_FAMILIES: dict[str, type[GraphModule]] = {}


def family(module: type[GraphModule]) -> type[GraphModule]:
    """Register the training module of the models that the builder of the same name builds."""
    _FAMILIES[module.__module__.rpartition(".")[2]] = module
    return module


def module_of(builder: str) -> type[GraphModule]:
    """The training module of a builder's models: `GraphModule` itself where no family says more."""
    if builder.isidentifier() and find_spec(f"{__name__}.{builder}") is not None:
        importlib.import_module(f"{__name__}.{builder}")
    return _FAMILIES.get(builder, GraphModule)


__all__ = ["family", "module_of"]
