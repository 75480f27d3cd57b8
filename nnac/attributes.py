"""What a node says about itself beside its inputs and constants: a frozen record, one class an operator
(`nnac.ops`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar


class Attributes(Mapping[str, Any]):
    """Base, and the record of operators that have nothing to say.  Also reads as a mapping, for whoever knows no
    operator: printing, JSON."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    # once, not once a class: attrs would generate it for every operator that lint imports
    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self._names())})"

    def _names(self) -> tuple[str, ...]:
        return tuple(a.name for a in getattr(type(self), "__attrs_attrs__", ()))


A = TypeVar("A", bound=Attributes)


def record(attributes: Attributes, kind: type[A]) -> A:
    """``attributes``, which are of that kind."""
    assert isinstance(attributes, kind), f"{type(attributes).__name__} is no {kind.__name__}"
    return attributes
