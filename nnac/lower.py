"""Lowering: a model graph and a precision for each layer become an unbound QGraph.

Some scales are fixed by the arithmetic and set here: hidden states and tanh outputs (clip 1), and the input of a table (Q3.12).  The rest
(features, layer-norm outputs, linear outputs, embeddings) are data: calibration or training finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from nnac import arith
from nnac.formats import CELL, unit_scale
from nnac.ir import QGraph, State, Value, taken
from nnac.model.graph import Layer, ModelGraph
from nnac.ops import operator
from nnac.verify import verify

if TYPE_CHECKING:
    from nnac.plan import Plan


@frozen
class Precision:
    """What a plan decides about the integers of one layer."""

    activations: int = 8           # bits of the layer's output
    weights: int = 8               # bits of the container that the products read: 8 or 16
    hidden: int = 8                # bits of an LSTM's hidden state (= its output)
    hidden_clip: float = 1.0       # real value of the largest code
    cell_fraction: int = CELL.fraction
    variant: str = "acc32"
    origins: tuple[str, ...] = ()


def lower(model: ModelGraph, precision: Callable[[str], Precision]) -> QGraph:
    """The unbound graph of ``model``; ``precision(path)`` for every layer path and for the input ``features``."""
    values: dict[str, Value] = {}
    nodes = []
    for name, width in model.inputs.items():
        consumer = next(layer for layer in model if name in layer.inputs)
        if consumer.kind == "embedding":
            values[name] = Value(name, 1, 32, scale=1.0)
        else:
            rate = consumer.rate * consumer.attributes.get("frames", 1)
            values[name] = Value(name, width, precision(name).activations, rate)
    for layer in model:
        node, value = _LOWER[layer.kind](layer, precision(layer.path), values)
        nodes.append(node)
        values[value.name] = value
    nodes, values = _table_inputs(nodes, values)
    return verify(QGraph(model.name, values, tuple(nodes), taken(nodes), {e.name: e.outputs for e in model.entries},
                         dict(model=model.name, arguments=dict(model.arguments), frame_ms=model.frame_ms), model.entries))


def _node(layer: Layer, p: Precision, op: str, states: tuple[State, ...] = (), **attributes):
    from nnac.ir import Node

    return Node(layer.path, op, layer.inputs, layer.path, layer.entry, attributes, {}, states, p.origins)


def _stack(layer, p, values):
    source = values[layer.inputs[0]]
    return (_node(layer, p, "stack", frames=layer.attributes["frames"]),
            Value(layer.path, layer.width, source.bits, layer.rate, source.scale, source.zero_point))


def _linear(layer, p, values):
    return (_node(layer, p, "linear", weight_bits=p.weights, bias=layer.attributes.get("bias", True)),
            Value(layer.path, layer.width, p.activations, layer.rate))


def _lstm(layer, p, values):
    a = layer.attributes
    scale = None if a["project"] else unit_scale(p.hidden, p.hidden_clip)
    states = []
    for direction in ("forward.", "backward.") if a["bidirectional"] else ("",):
        states += [State(f"{layer.path}.{direction}hidden", a["project"] or a["cells"], p.hidden, scale),
                   State(f"{layer.path}.{direction}cell", a["cells"], 16, 2.0**-p.cell_fraction)]
    node = _node(layer, p, "lstm", tuple(states), cells=a["cells"], variant=p.variant, fraction=p.cell_fraction, hidden_bits=p.hidden,
                 bidirectional=a["bidirectional"], project=a["project"], cell_output_bits=8)
    return node, Value(layer.path, layer.width, p.hidden, layer.rate, scale)


def _gru(layer, p, values):
    scale, cells = unit_scale(p.hidden, p.hidden_clip), layer.attributes["cells"]
    states = (State(f"{layer.path}.hidden", cells, p.hidden, scale), State(f"{layer.path}.blend", cells, 16, 2.0**-arith.UNIT_FRACTION))
    return (_node(layer, p, "gru", states, cells=cells, hidden_bits=p.hidden), Value(layer.path, layer.width, p.hidden, layer.rate, scale))


def _lstm_variant(layer, p, values):
    scale, cells = unit_scale(p.hidden, p.hidden_clip), layer.attributes["cells"]
    states = (State(f"{layer.path}.hidden", cells, p.hidden, scale), State(f"{layer.path}.cell", cells, 16, 2.0**-p.cell_fraction))
    return (_node(layer, p, layer.kind, states, cells=cells, fraction=p.cell_fraction, hidden_bits=p.hidden),
            Value(layer.path, layer.width, p.hidden, layer.rate, scale))


def _log_softmax(layer, p, values):
    return _node(layer, p, "log_softmax"), Value(layer.path, layer.width, 16, layer.rate, 2.0**-arith.LOG_FRACTION)


def _layer_norm(layer, p, values):
    return _node(layer, p, "layer_norm", epsilon=layer.attributes.get("epsilon", 1e-5)), Value(layer.path, layer.width, p.activations, layer.rate)


def _embedding(layer, p, values):
    return _node(layer, p, "embedding", rows=layer.kernels[0].rows), Value(layer.path, layer.width, p.activations, layer.rate)


def _combine(layer, p, values):
    return _node(layer, p, layer.kind), Value(layer.path, layer.width, p.activations, layer.rate)


def _table(layer, p, values):
    return _node(layer, p, layer.kind), Value(layer.path, layer.width, p.activations, layer.rate, unit_scale(p.activations))


_LOWER: dict[str, Callable] = dict(stack=_stack, linear=_linear, lstm=_lstm, layer_norm=_layer_norm, embedding=_embedding, add=_combine,
                                   multiply=_combine, tanh=_table, sigmoid=_table, gru=_gru,
                                   lstm_coupled=_lstm_variant, lstm_normed=_lstm_variant, log_softmax=_log_softmax)


def _table_inputs(nodes, values):
    """What a table reads is int16 in Q3.12, whatever the policy asks for there (its lint rule says so to the user)."""
    for n in nodes:
        if (form := operator(n.op).takes) is not None:
            v = values[n.inputs[0]]
            values[v.name] = Value(v.name, v.width, form.bits, v.rate, form.scale)
    return nodes, values


# ------------------------------------------------------------------------------------------------------------ from a plan

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
        p = evolve(p, cell_fraction=site.cell.fraction)
    widths = [g.weights.multiplied_bits for k in layer.kernels for g in plan.gates(k.path) if g.weights]
    return evolve(p, weights=max(8, *widths) if widths else 8)
