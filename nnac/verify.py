"""What a valid QGraph is, in code.  Runs after lowering and binding, and between passes."""

from __future__ import annotations

import math

from nnac.ir import GraphError, QGraph
from nnac.ops import operator


def verify(graph: QGraph) -> QGraph:
    """Check every rule of a valid graph and return it.  GraphError names the node and the rule."""
    # an entry may read what another entry made (the joint does); only the outermost inputs exist from the start
    known = {name for names in graph.inputs.values() for name in names if name not in graph.producers}
    seen: set[str] = set()
    for node in graph.nodes:
        where = f"{node.path} ({node.op})"
        if node.path in seen:
            raise GraphError(f"{where}: two nodes have this path")
        seen.add(node.path)
        if node.entry not in graph.inputs:
            raise GraphError(f"{where}: no entry is called {node.entry}")
        for name in node.inputs:
            if name not in known:
                raise GraphError(f"{where}: reads {name} before it is made")
        if node.output in known:
            raise GraphError(f"{where}: makes {node.output} again")
        known.add(node.output)
        for name in (*node.inputs, node.output):
            if name not in graph.values:
                raise GraphError(f"{where}: {name} has no format")
        operator(node.op).verify(node, graph)
    for entry, names in graph.outputs.items():
        for name in names:
            if name not in known:
                raise GraphError(f"entry {entry}: returns {name}, which nothing makes")
    for value in graph.values.values():
        if value.scale is not None and not (math.isfinite(value.scale) and value.scale > 0):
            raise GraphError(f"{value.name}: a scale must be positive and finite, not {value.scale}")
    return graph
