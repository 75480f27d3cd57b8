"""The syntax of a file as frozen nodes: names and spans only, nothing looked up.

Positions are offsets.  Inside an ``Item`` (a sentence of a policy) they count from the item's own start, so that an
unchanged item is the same object after an edit elsewhere; ``Item.offset`` says where it stands now.  Equality ignores
positions: two texts mean the same when their trees are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from attrs import define, field

from nnac.diagnostics import Diagnostic, Source

# `eq` and `repr` are written once, in Node: attrs would generate them for every class, half of what importing this file
# costs


@define(frozen=True, eq=False, repr=False)
class Node:
    """A piece of syntax.  Equal to another of its class whose fields are equal, wherever the two stand."""

    start: int = field(metadata={"place": True})
    end: int = field(metadata={"place": True})

    def _content(self) -> tuple[Any, ...]:
        return tuple(getattr(self, a.name) for a in self.__attrs_attrs__
                     if not a.metadata)  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._content() == other._content()  # type: ignore[attr-defined]

    __hash__ = object.__hash__      # by identity: nodes are keys of memos, never compared through hashes

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._content()}"


@define(frozen=True, eq=False, repr=False)
class Name(Node):
    text: str


@define(frozen=True, eq=False, repr=False)
class Text(Node):
    """A string; ``value`` without its quotes."""

    value: str


@define(frozen=True, eq=False, repr=False)
class Number(Node):
    """``4k steps``: ``value`` exact as written (4000), the unit not yet looked up.  ``spelling`` is that of the number
    alone."""

    value: Fraction
    unit: Name | None
    spelling: str = field(metadata={"place": True})


@define(frozen=True, eq=False, repr=False)
class Argument(Node):
    name: Name | None
    value: Any


@define(frozen=True, eq=False, repr=False)
class Call(Node):
    """``gq(5, space=mu_law(255))``."""

    name: Name
    arguments: tuple[Argument, ...]


@define(frozen=True, eq=False, repr=False)
class Binary(Node):
    operator: str
    left: Any
    right: Any
    length: int = field(default=1, metadata={"place": True})   # operations in its chain


@define(frozen=True, eq=False, repr=False)
class Negative(Node):
    operand: Any


@define(frozen=True, eq=False, repr=False)
class Range(Node):
    """``0..2k steps``."""

    left: Any
    right: Any


@define(frozen=True, eq=False, repr=False)
class Arrow(Node):
    """``1 -> 300``."""

    left: Any
    right: Any


@define(frozen=True, eq=False, repr=False)
class Values(Node):
    """``[8, 5, 4]``."""

    items: tuple[Any, ...]


@define(frozen=True, eq=False, repr=False)
class Setting(Node):
    """``weights int8 per_channel``: a name and what is said about it."""

    name: Name
    words: tuple[Any, ...]


@define(frozen=True, eq=False, repr=False)
class Index(Node):
    """``[3]``, ``[0..2]``, ``[*]`` (both bounds None)."""

    low: int | None
    high: int | None


@define(frozen=True, eq=False, repr=False)
class Step(Node):
    """One step of a selector.  ``names`` are the alternatives with their indices; none of them with ``*``; ``deep``
    with ``**``."""

    names: tuple[tuple[Name, Index | None], ...] = ()
    deep: bool = False


@define(frozen=True, eq=False, repr=False)
class Selector(Node):
    steps: tuple[Step, ...]


@define(frozen=True, eq=False, repr=False)
class Rule(Node):
    selectors: tuple[Selector, ...]
    settings: tuple[Setting, ...]


@define(frozen=True, eq=False, repr=False)
class Model(Node):
    call: Any                              # Name or Call


@define(frozen=True, eq=False, repr=False)
class UseTarget(Node):
    name: Name


@define(frozen=True, eq=False, repr=False)
class Let(Node):
    name: Name
    value: Any


@define(frozen=True, eq=False, repr=False)
class Sweep(Node):
    name: Name
    values: Values


@define(frozen=True, eq=False, repr=False)
class Bound(Node):
    """``weights <= 1.2 MiB``."""

    name: Name
    operator: str
    limit: Any


@define(frozen=True, eq=False, repr=False)
class BudgetBlock(Node):
    bounds: tuple[Bound, ...]


@define(frozen=True, eq=False, repr=False)
class TrainingBlock(Node):
    settings: tuple[Setting, ...]


@define(frozen=True, eq=False, repr=False)
class DecodeBlock(Node):
    settings: tuple[Setting, ...]


@define(frozen=True, eq=False, repr=False)
class Item:
    """A sentence of a policy, at ``offset``; positions inside ``node`` count from there."""

    offset: int
    node: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and self.node == other.node

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Item({self.node!r})"


@define(frozen=True, eq=False, repr=False)
class Policy(Node):
    name: Name
    extends: Name | None
    items: tuple[Item, ...]


@define(frozen=True, eq=False, repr=False)
class TargetDeclaration(Node):
    name: Name
    extends: Name | None
    settings: tuple[Setting, ...]


@define(frozen=True, eq=False, repr=False)
class Import(Node):
    path: Text


@define(frozen=True, eq=False, repr=False)
class File:
    """A parsed file: what could be understood of it, and what was wrong."""

    source: Source
    declarations: tuple[Any, ...]
    problems: tuple[Diagnostic, ...]

    @property
    def policies(self) -> tuple[Policy, ...]:
        return tuple(d for d in self.declarations if isinstance(d, Policy))

    @property
    def targets(self) -> tuple[TargetDeclaration, ...]:
        return tuple(d for d in self.declarations if isinstance(d, TargetDeclaration))

    @property
    def imports(self) -> tuple[Import, ...]:
        return tuple(d for d in self.declarations if isinstance(d, Import))


def children(node: Any) -> Iterator[Any]:
    """The nodes directly below ``node`` (not below its items: those have offsets of their own)."""
    for attribute in getattr(type(node), "__attrs_attrs__", ()):
        value = getattr(node, attribute.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Node):
                yield one
            elif isinstance(one, tuple):
                yield from (x for x in one if isinstance(x, Node))


def walk(node: Any) -> Iterator[Any]:
    """``node`` and every node below it, depth first, without recursion."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(reversed(list(children(one))))
