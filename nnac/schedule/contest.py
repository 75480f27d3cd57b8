"""Contest: which codec of a kernel takes the fewest cycles, where prices leave it open.

In:  the graph, and by kernel its encodings, the one with the lowest price first.   Out: one encoding a kernel.
`codec.choose` prices a stream by its bits and its decoder's steps.  What the bursts, the place in W and the order of
loads make of it only the schedule says; so encodings of nearly the same price are scheduled, each in its layer alone,
and the fewest cycles win.  In a graph of one such layer that is the program itself: there no other codec that was
encoded is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from nnac.ir import Node, QGraph, taken
from nnac.schedule.kernels import Kernel
from nnac.schedule.ops import of_view

# cycles of a graph with these kernels; the last: whether tiles are pinned as they will be, or none is
Price = Callable[[QGraph, Mapping[str, Kernel], bool], int]


def settled(graph: QGraph, encodings: Mapping[str, tuple[Kernel, ...]], price: Price) -> dict[str, Kernel]:
    """One encoding of each kernel."""
    out = {path: found[0] for path, found in encodings.items()}
    layers = dict.fromkeys(k.layer for k in out.values())
    least: dict[str, int] = {}                           # of a layer, with what has been settled of it
    for path, found in encodings.items():
        if len(found) == 1:
            continue
        layer = found[0].layer
        part = graph if len(layers) == 1 else alone(graph, graph.by_path[layer])
        own = {p: k for p, k in out.items() if k.layer == layer}
        cycles = [least[layer] if layer in least and k is found[0] else price(part, own | {path: k}, len(layers) == 1)
                  for k in found]
        least[layer] = min(cycles)
        out[path] = found[cycles.index(least[layer])]
    return out


def alone(graph: QGraph, node: Node) -> QGraph:
    """The graph of one node, with the views that it reads through."""
    nodes: list[Node] = [node]
    for n in nodes:
        nodes += [p for v in n.inputs if (p := graph.producers.get(v)) is not None and of_view(p)
                  and p.entry == node.entry and p not in nodes]
    parts = tuple(n for n in graph.nodes if any(n is p for p in nodes))
    used = {v for n in parts for v in (*n.inputs, n.output)}
    changes: Any = dict(values={k: v for k, v in graph.values.items() if k in used}, nodes=parts, inputs=taken(parts),
                        outputs={node.entry: (node.output,)})
    return evolve(graph, **changes)
