"""QGraph: the model as a graph of integer operators, ready to be read three times (evaluate, training module, program).

A value is a sequence of vectors of integers with one format.  A node applies one operator (`nnac.ops`) to values,
within one entry point of the model (`nnac.entry`): calling an entry once, on ``rate`` input frames, is one *step* of
it.  State (hidden, cell) lives in named `State` objects that belong to recurrent nodes and survive from step to step.

A graph is *bound* when every value has its scale and every node its integer constants; lowering a plan gives an unbound
graph, the training module binds it (`nnac.train.module`).  `nnac.verify` says what a valid graph is, in code, and runs
between passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import Factory, evolve, field, frozen

from nnac.attributes import Attributes
from nnac.entry import EntryPoint

if TYPE_CHECKING:
    from numpy.typing import NDArray


class GraphError(ValueError):
    """A QGraph that breaks a rule of `nnac.verify`: always nnac's own mistake or a damaged file, never the user's
    policy."""


@frozen
class Value:
    """A named sequence of integer vectors: real = scale * (integer - zero_point).

    width   elements of a vector           bits        4, 8 or 16 (32: an index, no arithmetic)
    rate    vectors in one step of its entry     scale       None until bound
    """

    name: str
    width: int
    bits: int
    rate: int = 1
    scale: float | None = None
    zero_point: int = 0

    def __str__(self) -> str:
        scale = "?" if self.scale is None else f"{self.scale:.6g}"
        return f"{self.name}: int{self.bits}[{self.rate}, {self.width}] * {scale}" + (f" zero {self.zero_point}"
            if self.zero_point else "")


@frozen
class State:
    """A vector that a node keeps between steps: ``encoder.lstm[0].hidden``.  Starts at zero; resident, resettable,
    saveable.

    most  of one that counts: the greatest integer up to which what is computed with it is right; None for any other
    """

    name: str
    width: int
    bits: int
    scale: float | None = None
    most: int | None = None


@frozen(eq=False)
class Node:
    """One operator applied.  ``path`` is the model's layer; ``origins`` name the policy lines that shaped it (for
    errors and listings)."""

    path: str
    op: str
    inputs: tuple[str, ...]
    output: str
    entry: str
    attributes: Attributes = field(factory=Attributes)
    constants: Mapping[str, NDArray] = field(factory=dict)
    states: tuple[State, ...] = ()
    origins: tuple[str, ...] = ()

    def state(self, suffix: str) -> State:
        return next(s for s in self.states if s.name.endswith("." + suffix))

    def __str__(self) -> str:
        attributes = ", ".join(f"{k}={v}" for k, v in sorted(self.attributes.items()))
        constants = ", ".join(f"{k} {v.dtype}{list(v.shape)}" for k, v in sorted(self.constants.items()))
        return f"{self.output} = {self.op}({', '.join(self.inputs)})" + (f" {{{attributes}}}" if attributes else "") + (
            f"\n      {constants}" if constants else "")


@frozen(eq=False)
class QGraph:
    """All entries of one model.  ``inputs`` and ``outputs`` map an entry to its value names, in order.

    entries  what the model declares of them; passes may divide an entry (``encoder.lstm[0].forward``), ``declared``
             finds whose part it is
    """

    name: str
    values: Mapping[str, Value]
    nodes: tuple[Node, ...]                       # in dependency order
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, Any] = field(factory=dict)
    entries: tuple[EntryPoint, ...] = field(
        default=Factory(lambda self: tuple(EntryPoint(n, 1, inputs=i, outputs=self.outputs[n])
                                           for n, i in self.inputs.items()), takes_self=True))

    def declared(self, part: str) -> EntryPoint:
        """What the model declares of the entry ``part`` or of the entry that ``part`` is a pass of.  KeyError if it is
        of none."""
        return {e.name: e for e in self.entries}[part.partition(".")[0]]

    def entry(self, name: str) -> tuple[Node, ...]:
        """The nodes of one entry, in order."""
        return tuple(n for n in self.nodes if n.entry == name)

    def bidirectional(self, entry: str) -> bool:
        """Whether a layer of the entry hears the sequence from its end as well: then the whole of it is needed."""
        return any(n.attributes.get("bidirectional") for n in self.entry(entry))

    @cached_property
    def by_path(self) -> dict[str, Node]:
        return {n.path: n for n in self.nodes}

    @property
    def states(self) -> Iterator[State]:
        return (s for n in self.nodes for s in n.states)

    @property
    def bound(self) -> bool:
        return all(v.scale is not None for v in self.values.values())

    @cached_property
    def producers(self) -> dict[str, Node]:
        return {n.output: n for n in self.nodes}

    def consumers(self, value: str) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if value in n.inputs)

    def rate(self, entry: str, value: str) -> int:
        """Vectors of a value in one step of ``entry``: as many as a step makes where the entry makes it (or where it
        enters the model), else as many as its reader takes: a joint takes one of the frames of an encoder's chunk."""
        made = self.producers.get(value)
        if made is None or made.entry == entry:
            return self.values[value].rate
        reader = next(n for n in self.entry(entry) if value in n.inputs)
        return self.values[reader.output].rate * int(reader.attributes.get("frames", 1))

    def with_nodes(self, nodes: tuple[Node, ...], values: Mapping[str, Value] | None = None) -> QGraph:
        return evolve(self, nodes=nodes, values=self.values if values is None else values)

    def __str__(self) -> str:
        lines = [f"qgraph {self.name}"]
        for entry in self.inputs:
            lines.append(f"  {entry}.step({', '.join(str(self.values[v]) for v in self.inputs[entry])})")
            for n in self.entry(entry):
                lines += [f"    {n}", f"      -> {self.values[n.output]}"]
                lines += [f"      state {s.name} int{s.bits}[{s.width}]" for s in n.states]
            lines.append(f"    return {', '.join(self.outputs[entry])}")
        return "\n".join(lines)


def taken(nodes: Iterable[Node]) -> dict[str, tuple[str, ...]]:
    """Entry -> the values that its nodes read and none of them makes, in order."""
    nodes = list(nodes)
    made = {(n.entry, n.output) for n in nodes}
    read: dict[str, dict[str, None]] = {n.entry: {} for n in nodes}
    for n in nodes:
        read[n.entry] |= dict.fromkeys(v for v in n.inputs if (n.entry, v) not in made)
    return {entry: tuple(values) for entry, values in read.items()}
