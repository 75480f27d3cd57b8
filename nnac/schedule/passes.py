"""Passes: an entry with bidirectional layers, cut into entries that each stream.

A backward direction begins at the last frame of an utterance, whose length no program knows.  So each direction becomes
an entry of its own: the host calls the forward one from the first step to the last, the backward one from the last to
the first, and gives both halves, side by side, to the next.  What a direction remembers lives in the machine from call
to call, like any other state.

    encoder: features - lstm[0] - lstm[1] - output
                       │
    encoder.lstm[0].forward    features ─▶ lstm[0].forward
    encoder.lstm[0].backward   features ─▶ lstm[0].backward                      last step first
    encoder.lstm[1].forward    lstm[0].forward + lstm[0].backward ─▶ lstm[1].forward
    encoder.lstm[1].backward   the same ─▶ lstm[1].backward                      last step first
    encoder.end                lstm[1].forward + lstm[1].backward ─▶ output

Whatever lies between two bidirectional layers is computed by the forward entry; stacks, which are only a way to look at
memory, by both. An entry without bidirectional layers stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from nnac.ir import Node, QGraph, Value, taken
from nnac.ops import operator
from nnac.ops._recurrent import DIRECTIONS
from nnac.verify import verify


@frozen(eq=False)
class Passes:
    """graph: entries are passes, every layer has one direction      joins: value -> (forward half, backward half)
    layers: path of a direction -> path of the layer that it belongs to
    """

    graph: QGraph
    joins: Mapping[str, tuple[str, ...]] = field(factory=dict)
    layers: Mapping[str, str] = field(factory=dict)


def split(graph: QGraph) -> Passes:
    """The same integers, pass by pass."""
    if not any(map(graph.bidirectional, graph.inputs)):
        return Passes(graph)
    values = dict(graph.values)
    nodes: list[Node] = []
    joins: dict[str, tuple[str, ...]] = {}
    layers: dict[str, str] = {}
    for entry in graph.inputs:
        waiting: list[Node] = []
        for node in graph.entry(entry):
            if not node.attributes.get("bidirectional"):
                waiting.append(node)
                continue
            halves = []
            for direction in DIRECTIONS[True]:
                half = one_direction(node, direction, f"{entry}.{node.path.removeprefix(f'{entry}.')}.{direction[:-1]}")
                if direction == "backward.":
                    half, copies = own_stacks(half, waiting, values)
                    nodes += copies
                else:
                    nodes += [evolve(n, entry=half.entry) for n in waiting]
                v = values[node.output]
                values[half.output] = evolve(v, name=half.output, width=v.width // 2)
                layers[half.path] = node.path
                nodes.append(half)
                halves.append(half.output)
            joins[node.output] = tuple(halves)
            waiting = []
        nodes += [evolve(n, entry=f"{entry}.end") if graph.bidirectional(entry) else n for n in waiting]
    return Passes(verify(with_ports(graph, nodes, values, joins)), joins, layers)


def one_direction(node: Node, direction: str, entry: str) -> Node:
    """The forward or backward half of a bidirectional layer: its kernels and states keep their names."""
    own = {k.removeprefix(direction): v for k, v in node.constants.items() if not k.startswith(DIRECTIONS[True])
           or k.startswith(direction)}
    states = tuple(s for s in node.states if s.name.startswith(f"{node.path}.{direction}"))
    return evolve(node, path=f"{node.path}.{direction[:-1]}", output=f"{node.output}.{direction[:-1]}", entry=entry,
                  constants=own, states=states,
                  attributes=evolve(node.attributes, bidirectional=False,  # type: ignore[misc]
                                    reversed=direction == "backward."))


def own_stacks(half: Node, waiting: list[Node], values: dict[str, Value]) -> tuple[Node, list[Node]]:
    """The backward half with copies of the stacks that it reads through."""
    made, stacks, source = {n.output: n for n in waiting}, [], half.inputs[0]
    while source in made and operator(made[source].op).view:
        stacks.append(made[source])
        source = made[source].inputs[0]
    copies = []
    for stack in reversed(stacks):
        name = f"{half.path}.{stack.path}"
        values[name] = evolve(values[stack.output], name=name)
        copies.append(evolve(stack, path=name, output=name, inputs=(source,), entry=half.entry))
        source = name
    return evolve(half, inputs=(source,)), copies


def with_ports(graph: QGraph, nodes: list[Node], values: Mapping[str, Value],
               joins: Mapping[str, tuple[str, ...]]) -> QGraph:
    """The graph of these nodes: each entry takes what it does not make, and returns what others take and what the model
    returns."""
    halves = {h for pair in joins.values() for h in pair}
    wanted = halves | {v for names in graph.outputs.values() for v in names}
    inputs, outputs = taken(nodes), {}
    for entry in inputs:
        elsewhere = {v for other, names in inputs.items() if other != entry for v in names}
        outputs[entry] = tuple(n.output for n in nodes if n.entry == entry and n.output in wanted | elsewhere)
    return evolve(graph, nodes=tuple(nodes), values=values, inputs=inputs, outputs=outputs)
