"""Which layers run on the CPU, and their price there: `nnac.placement`, asked of a model and its widths instead of a
lowered graph."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from nnac.language.widths import INDEX_BITS, Values, entering_bits, output_bits
from nnac.model.graph import Layer, ModelGraph
from nnac.placement import cpu_seconds, cpu_work, moved_bytes, on_cpu
from nnac.target import Target

if TYPE_CHECKING:
    from nnac.vectors import Form


def forms(model: ModelGraph, values: Values, number: Mapping[str, int]) -> dict[str, Form]:
    """The form of every value, as the compiler will have it."""
    from nnac.vectors import Vector, forms_of

    out = [Vector(name, 1 if bits == INDEX_BITS else width, bits, entering=True)
           for name, width in model.inputs.items() for bits in (entering_bits(model, values, number, name),)]
    for layer in model:
        joins = layer.attributes["frames"] if layer.operator.view else 0
        out.append(Vector(layer.path, layer.width, output_bits(model, values, number, layer), layer.inputs[0], joins))
    return forms_of(out)


def cpu_layers(model: ModelGraph, values: Values, number: Mapping[str, int], target: Target) -> frozenset[str]:
    """Paths of the layers that run on the CPU.  ``values`` has `place`, `activations` and `hidden`."""
    views = {layer.path for layer in model if layer.operator.view}
    found: dict[str, Form] = {}
    out = set()
    for layer in model:
        whole = True
        if layer.operator.in_one_piece and views.intersection(layer.inputs):           # only views can be in pieces
            found = found or forms(model, values, number)
            whole = all(found[v].whole for v in layer.inputs)
        if on_cpu(layer.operator, layer.attributes, values["place"][number[layer.path]], target,
                  width_of(model, layer.inputs[0]), whole):
            out.add(layer.path)
    return frozenset(out)


def width_of(model: ModelGraph, value: str) -> int:
    """Elements of a vector of what a layer makes or of what enters the model."""
    return model.by_path[value].width if value in model.by_path else model.inputs[value]


def seconds(t: Target, layer: Layer, in_bits: list[tuple[int, int]], out_bits: int, hidden_bits: int,
            vectors: int) -> Fraction:
    """A layer's time on the CPU in one call that makes ``vectors`` vectors; each direction of a recurrent layer is a
    call of its own.

    in_bits  (width, bits) of each input
    """
    from nnac.vectors import element_bytes

    directions = 2 if layer.attributes.get("bidirectional") else 1
    width = layer.width // directions
    values = [(vectors, w, element_bytes(b)) for w, b in (*in_bits, (width, out_bits))]
    states = layer.operator.state_bytes(layer.attributes, layer.width, hidden_bits) // directions
    weights = sum(k.weights for k in layer.kernels) // directions
    moved = moved_bytes(values, [(states, 1)] if states else [])
    return directions * cpu_seconds(t.cpu, moved, vectors * cpu_work(layer.operator, weights, width))
