"""How wide the integers are that a layer gives and takes: what the lowering makes of a policy's widths.

A recurrent layer gives its hidden state; a stack gives what it is given; what a table reads is int16 (Q3.12) and
log-softmax gives int16, whatever a policy says there (`nnac.ops` has these facts).  Everything else is as wide as its
`activations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnac.model.graph import Kernel, Layer, ModelGraph

Values = Mapping[str, Mapping[int, Any]]             # setting -> site number -> value


INDEX_BITS = 32                                       # of the number of a row


def reader_of(model: ModelGraph, name: str) -> Layer:
    """The first layer that reads what enters the model as ``name``: its `activations` decide how that is held."""
    return next(layer for layer in model if name in layer.inputs)


def entering_bits(model: ModelGraph, values: Values, number: Mapping[str, int], name: str) -> int:
    """Bits of what enters the model: held like the first layer that reads it."""
    reader = reader_of(model, name)
    return INDEX_BITS if reader.operator.by_index else int(values["activations"][number[reader.path]].bits)


def output_bits(model: ModelGraph, values: Values, number: Mapping[str, int], layer: Layer) -> int:
    """Bits of a layer's output integers."""
    while layer.operator.view:                        # what it joins keeps its width
        source = model.by_path.get(layer.inputs[0])
        if source is None:
            return entering_bits(model, values, number, layer.inputs[0])
        layer = source
    i = number[layer.path]
    if layer.recurrent:
        return int(values["hidden"][i].bits)
    decided = layer.operator.gives or next((takes for other in model if layer.path in other.inputs
                                            and (takes := other.operator.takes)), None)
    if decided is not None:
        return decided.bits
    return int(values["activations"][i].bits)


def input_bits(model: ModelGraph, values: Values, number: Mapping[str, int], layer: Layer, kernel: Kernel) -> int:
    """Bits of the integers that meet a kernel.  What enters the model is held like the first layer that reads it."""
    if layer.operator.meets[kernel.name] == "hidden":
        return int(values["hidden"][number[layer.path]].bits)
    return value_bits(model, values, number, layer.inputs[0])


def value_bits(model: ModelGraph, values: Values, number: Mapping[str, int], name: str) -> int:
    """Bits of a value: what a layer gives, or what enters the model."""
    layer = model.by_path.get(name)
    return output_bits(model, values, number, layer) if layer is not None else entering_bits(model, values, number,
        name)


def decided_elsewhere(model: ModelGraph, layer: Layer) -> str | None:
    """Why `activations` decides nothing at a layer; None where it does."""
    if layer.recurrent:
        return None                                   # until `hidden` says otherwise
    if layer.operator.view and layer.inputs[0] in model.by_path:
        return f"it passes on what `{layer.inputs[0]}` gives"
    if (gives := layer.operator.gives) is not None:
        return f"{layer.kind.replace('_', '-')} gives int{gives.bits}"
    read = next(((other, takes) for other in model if layer.path in other.inputs and (takes := other.operator.takes)),
                None)
    return f"the table of `{read[0].path}` reads int{read[1].bits}" if read is not None else None
