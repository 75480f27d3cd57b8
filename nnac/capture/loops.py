"""Loops over time that a forward writes in Python: unrolled in the list of calls, and found again there.

A loop takes one element of a sequence after the other (``for frame in x``, ``x[t]``, ``x[:, t]``), does the same with
each, and puts what it makes side by side again (`torch.stack`, `torch.cat`).  Its calls repeat with a period.  A step
reads elements of its own number, what the step before it made, and what is outside: that is checked call by call, over
all steps, so that a loop which does anything else in any of them is none.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from torch import fx

JOINS = ("aten.stack.default", "aten.cat.default", "aten.concat.default")
END = 9223372036854775807              # of a slice that takes everything


@frozen(eq=False)
class Loop:
    """One loop.

    steps    the calls of each step, alike, in order      items  call -> (source, axis): an element of its step
    begins   number of a call that a step reads from the step before it -> the node in its place in the first step
    joins    calls that put together what a step's call makes -> its number
    """

    steps: tuple[tuple[fx.Node, ...], ...]
    items: Mapping[fx.Node, tuple[fx.Node, int]]
    begins: Mapping[int, fx.Node]
    joins: Mapping[fx.Node, int]
    members: frozenset[fx.Node] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "members", frozenset(n for step in self.steps for n in step) | set(self.items))

    @property
    def first(self) -> fx.Node:
        """The call after whose arguments all is known that the loop reads from outside."""
        return self.steps[0][-1]


def all_taken(node: fx.Node) -> bool:
    """A slice that takes everything: another name of what it reads."""
    if str(node.target) != "aten.slice.Tensor":
        return False
    given: Any = (*node.args[2:], *(None, END, 1)[len(node.args) - 2:])
    return bool(given[0] in (0, None) and given[1] == END and given[2] == 1)


def same(node: Any) -> Any:
    """What a node is another name of."""
    while isinstance(node, fx.Node) and all_taken(node):
        node = node.args[0]
    return node


def elements(nodes: Sequence[fx.Node]) -> dict[fx.Node, tuple[fx.Node, int, int]]:
    """Calls that take one element out of an axis -> (source, axis, number); calls that take it apart."""
    out: dict[fx.Node, tuple[fx.Node, int, int]] = {}
    for node in nodes:
        source = same(node.args[0]) if node.args else None
        if not isinstance(source, fx.Node):
            continue
        if str(node.target) == "aten.select.int":
            rank = source.meta["val"].ndim
            at, number = int(node.args[1]) % rank, node.args[2]  # type: ignore[arg-type]
            if isinstance(number, int):
                out[node] = source, at, number % source.meta["val"].shape[at]
        elif node.target is operator.getitem and str(source.target) == "aten.unbind.int":
            whole = same(source.args[0])
            axis = int(source.args[1]) if len(source.args) > 1 else 0  # type: ignore[arg-type]
            out[node] = whole, axis % whole.meta["val"].ndim, int(node.args[1])  # type: ignore[arg-type]
    return out


def loops(nodes: Sequence[fx.Node]) -> list[Loop]:
    """All loops among the calls, in order."""
    taken, found = elements(nodes), list[Loop]()
    calls = [n for n in nodes if n.op == "call_function" and n not in taken and not all_taken(n)
             and str(n.target) != "aten.unbind.int"]
    at = {n: i for i, n in enumerate(calls)}
    for join in nodes:
        if str(join.target) not in JOINS or any(join in loop.joins for loop in found):
            continue
        outs: Any = join.args[0]
        if len(outs) < 3 or not all(isinstance(o, fx.Node) and o in at for o in outs):
            continue
        places = [at[o] for o in outs]
        period = places[1] - places[0]
        if period < 1 or any(b - a != period for a, b in itertools.pairwise(places)):
            continue
        for shift in range(period):
            if places[0] + shift + 1 < period or places[-1] + shift >= len(calls):
                continue
            steps = tuple(tuple(calls[p + shift + 1 - period: p + shift + 1]) for p in places)
            if (loop := _alike(steps, taken)) is not None and join in loop.joins:
                found.append(loop)
                break
    return found


def _alike(steps: tuple[tuple[fx.Node, ...], ...], taken: Mapping[fx.Node, tuple[fx.Node, int, int]]) -> Loop | None:
    """The loop of these steps; None where they are none."""
    at = [{n: i for i, n in enumerate(step)} for step in steps]
    begins: dict[int, fx.Node] = {}
    items: dict[fx.Node, tuple[fx.Node, int]] = {}

    def pair(t: int, a: Any, b: Any) -> bool:
        """Whether an argument of step t is to it what another one is to the step before."""
        a, b = same(a), same(b)
        if isinstance(a, (list, tuple)):
            return isinstance(b, (list, tuple)) and len(a) == len(b) and all(pair(t, x, y)
                                                                            for x, y in zip(a, b, strict=True))
        if not isinstance(a, fx.Node) or not isinstance(b, fx.Node):
            return type(a) is type(b) and bool(a == b)
        if a in taken and b in taken and a is not b:
            (source, axis, number), (other, other_axis, before) = taken[a], taken[b]
            items[a] = items[b] = source, axis
            return source is other and axis == other_axis and (number, before) == (t, t - 1) and len(
                steps) == source.meta["val"].shape[axis]
        if a in at[t]:
            return at[t][a] == at[t - 1].get(b)
        if a in at[t - 1]:
            if t > 1:
                return at[t - 1][a] == at[t - 2].get(b)
            return begins.setdefault(at[0][a], b) is b and b not in at[0]
        return a is b

    for t in range(1, len(steps)):
        for n, before in zip(steps[t], steps[t - 1], strict=True):
            if n.target is not before.target or n.kwargs.keys() != before.kwargs.keys() or not pair(
                    t, list(n.args), list(before.args)) or not all(pair(t, v, before.kwargs[k])
                                                                   for k, v in n.kwargs.items()):
                return None
    inside, joins = {n for step in steps for n in step}, dict[fx.Node, int]()
    for join in {u for n in steps[0] for u in n.users if u not in inside and str(u.target) in JOINS}:
        outs: Any = join.args[0]
        number = at[0].get(outs[0])
        if number is not None and list(outs) == [step[number] for step in steps]:
            joins[join] = number
    # something in the midst of it, or an element, is read elsewhere
    if any(node not in joins for node in _outside(steps[:-1], inside)) or any(_outside([tuple(items)], inside)):
        return None
    return Loop(steps, items, begins, joins) if items and begins else None


def _outside(steps: Sequence[tuple[fx.Node, ...]], inside: set[fx.Node]) -> Iterator[fx.Node]:
    """Calls outside of a loop that read what is within these steps, under any name."""
    for step in steps:
        for n in step:
            for u in n.users:
                if u not in inside:
                    yield from _outside([(u,)], inside) if all_taken(u) else (u,)
