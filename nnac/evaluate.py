"""Evaluate a bound QGraph on integers: the reference every other executor is compared with.  Slow, obvious, NumPy (or torch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnac.ir import QGraph
from nnac.ops import operator

Array = Any


def initial_state(graph: QGraph, batch: int = 1) -> dict[str, np.ndarray]:
    """Every state at zero: [batch, width] int64 by name."""
    return {s.name: np.zeros((batch, s.width), np.int64) for s in graph.states}


def evaluate(graph: QGraph, entry: str, inputs: Mapping[str, Array], state: dict[str, Array] | None = None,
             watch: Callable[[str, Array], None] | None = None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run ``entry`` on whole sequences.

    inputs   value name -> [T, B, width] integers (T any multiple of the value's rate)
    state    as `initial_state`, not changed        watch  called with the name and integers of every value made
    returns  (output name -> [T', B, width], new state)
    """
    values = {k: np.asarray(v, np.int64) for k, v in inputs.items()}
    batch = next(iter(values.values())).shape[1]
    state = dict(initial_state(graph, batch) if state is None else state)
    if any(len(v) < graph.values[k].rate for k, v in values.items()):             # shorter than a step: nothing is computed
        return {k: np.zeros((0, batch, graph.values[k].width), np.int64) for k in graph.outputs[entry]}, state
    for node in graph.entry(entry):
        constants = {k: v.astype(np.int64) for k, v in node.constants.items()}
        values[node.output] = operator(node.op).integers(node, graph, [values[n] for n in node.inputs], state, constants)
        if watch:
            watch(node.output, values[node.output])
    return {name: values[name] for name in graph.outputs[entry]}, state
