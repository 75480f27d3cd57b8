"""How wide the integers are that a layer gives and takes: what the lowering makes of a policy's widths.

A recurrent layer gives its hidden state; a stack gives what it is given; what a table reads is int16 (Q3.12) and log-softmax gives int16,
whatever a policy says there.  Everything else is as wide as its `activations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnac.model.graph import Kernel, Layer, ModelGraph

TABLES = ("tanh", "sigmoid")
Values = Mapping[str, Mapping[int, Any]]             # setting -> site number -> value


def output_bits(model: ModelGraph, values: Values, number: Mapping[str, int], layer: Layer) -> int:
    """Bits of a layer's output integers."""
    while layer.kind == "stack":                      # what it joins keeps its width
        source = model.by_path.get(layer.inputs[0])
        if source is None:
            return int(values["activations"][number[layer.path]].bits)
        layer = source
    i = number[layer.path]
    if layer.recurrent:
        return int(values["hidden"][i].bits)
    if layer.kind == "log_softmax" or any(other.kind in TABLES and layer.path in other.inputs for other in model):
        return 16
    return int(values["activations"][i].bits)


def input_bits(model: ModelGraph, values: Values, number: Mapping[str, int], layer: Layer, kernel: Kernel) -> int:
    """Bits of the integers that meet a kernel.  What enters the model is held like the first layer that reads it."""
    if kernel.name in ("recurrent", "project"):
        return int(values["hidden"][number[layer.path]].bits)
    source = model.by_path.get(layer.inputs[0])
    return output_bits(model, values, number, source) if source is not None else int(values["activations"][number[layer.path]].bits)


def decided_elsewhere(model: ModelGraph, layer: Layer) -> str | None:
    """Why `activations` decides nothing at a layer; None where it does."""
    if layer.recurrent:
        return None                                   # until `hidden` says otherwise
    if layer.kind == "stack" and layer.inputs[0] in model.by_path:
        return f"it passes on what `{layer.inputs[0]}` gives"
    if layer.kind == "log_softmax":
        return "log-softmax gives int16"
    reader = next((other for other in model if other.kind in TABLES and layer.path in other.inputs), None)
    return f"the table of `{reader.path}` reads int16" if reader is not None else None
