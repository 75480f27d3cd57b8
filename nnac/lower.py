"""Lowering: a model graph and a precision for each layer become an unbound QGraph.

Some scales are fixed by the arithmetic and set here: hidden states and tanh outputs (clip 1), and the input of a table
(Q3.12).  The rest (features, layer-norm outputs, linear outputs, embeddings) are data: calibration or training finds
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import evolve

from nnac.formats import Precision
from nnac.ir import Node, QGraph, Value, taken
from nnac.model.graph import Layer, ModelGraph
from nnac.ops import operator
from nnac.verify import verify

if TYPE_CHECKING:
    from nnac.plan import Plan


def lower(model: ModelGraph, precision: Callable[[str], Precision]) -> QGraph:
    """The unbound graph of ``model``; ``precision(path)`` for every layer path and for the input ``features``."""
    values: dict[str, Value] = {}
    nodes = []
    for name, width in model.inputs.items():
        consumer = next(layer for layer in model if name in layer.inputs)
        if operator(consumer.kind).by_index:
            values[name] = Value(name, 1, 32, scale=1.0)
        else:
            rate = consumer.rate * consumer.attributes.get("frames", 1)
            values[name] = Value(name, width, precision(name).activations, rate)
    for layer in model:
        node, value = lowered(layer, precision(layer.path), values[layer.inputs[0]])
        nodes.append(node)
        values[value.name] = value
    # what a table reads has the table's format, whatever the policy asks for (lint says so)
    for node in nodes:
        if (form := operator(node.op).takes) is not None:
            v = values[node.inputs[0]]
            values[v.name] = Value(v.name, v.width, form.bits, v.rate, form.scale)
    return verify(QGraph(model.name, values, tuple(nodes), taken(nodes), {e.name: e.outputs for e in model.entries},
                         dict(model=model.name, arguments=dict(model.arguments), frame_ms=model.frame_ms),
                         model.entries))


def lowered(layer: Layer, p: Precision, source: Value) -> tuple[Node, Value]:
    """The node of a layer, as its operator has it, and the value that it makes; ``source`` is its first input."""
    op = operator(layer.kind)
    node = Node(layer.path, layer.kind, layer.inputs, layer.path, layer.entry, op.attributes(layer, p), {},
                op.states(layer, p), p.origins)
    return node, op.output(layer, p, source)


# ---------------------------------------------------------------------------------------------------------- from a plan

def lower_plan(plan: Plan) -> QGraph:
    """The unbound graph of a resolved plan: what the training module is built from."""
    graph = plan.graph

    def precision(path: str) -> Precision:
        return _precision(plan, graph.by_path.get(path) or next(layer for layer in graph if path in layer.inputs))

    lowered = lower(graph, precision)
    return evolve(lowered, metadata=dict(lowered.metadata) | dict(plan=plan.name, digest=plan.digest))


def _precision(plan: Plan, layer: Layer) -> Precision:
    site = plan[layer.path]
    p = Precision(variant=site.accumulate or "acc32",
                  origins=tuple(str(o[-1]) for s in site.settings if (o := plan.origin(layer.path, s))))
    if site.activations:
        p = evolve(p, activations=site.activations.bits)
    if site.hidden:
        clip = getattr(site.hidden.method, "clip", None)
        p = evolve(p, hidden=site.hidden.bits, hidden_clip=1.0 if clip is None else float(clip))
    if site.cell:
        p = evolve(p, cell_fraction=site.cell.fraction or 0)
    widths = [g.weights.multiplied_bits for k in layer.kernels for g in plan.gates(k.path) if g.weights]
    return evolve(p, weights=max(8, *widths) if widths else 8)
