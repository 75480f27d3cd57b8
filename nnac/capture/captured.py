"""What has been read of a model: its graph, weights, ties and dropout, and how the user's tensors become the graph's
sequences and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from nnac.capture.exported import Exported, exported, unwrapped
from nnac.capture.problems import PrepareError, Problem
from nnac.capture.reading import ENTRY, Own, Reading
from nnac.capture.values import FEATURES, Axes, FinalState, Lost, Sequence
from nnac.decode.tensors import Argument, Result, TensorEnd
from nnac.entry import EntryPoint
from nnac.model.graph import Layer, ModelGraph
from nnac.ops import operator

FORWARD = EntryPoint(ENTRY, per_frame=1, frames=True)          # a call of the model: sequences, one step a frame


@frozen(eq=False)
class Captured:
    """A model as nnac reads it.

    weights   (layer path, parameter) -> value at the start sources  of these: the user's name, "" where it is folded or
              made
    frozen    of these: not trained
    dropouts (layer path, input number) -> probability that an element is kept
    ties      of these: groups that are one parameter in the model
    aliases   every name of every parameter of the model -> the first of its names
    others    the model's parameters and buffers that no layer has: they stay as they are
    end       how the forward's tensors lie, in and out
    dtype     of the model's own real numbers               notes    what is good to know
    """

    graph: ModelGraph
    weights: Mapping[Own, Tensor]
    sources: Mapping[Own, str]
    frozen: frozenset[Own]
    dropouts: Mapping[tuple[str, int], float]
    end: TensorEnd
    dtype: torch.dtype
    notes: tuple[str, ...] = ()
    ties: tuple[tuple[Own, ...], ...] = ()
    aliases: Mapping[str, str] = field(factory=dict)
    others: Mapping[str, Tensor] = field(factory=dict)

    def __str__(self) -> str:
        lines = [f"{layer.path}: {layer.kind} of {', '.join(layer.inputs)}, {layer.width} wide" for layer in self.graph]
        return "\n".join([*lines, *(f"note: {n}" for n in self.notes)])


def capture(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None,
            name: str = "module") -> Captured:
    """Read a model.  PrepareError with everything that is in the way.

    args, kwargs   of its forward, an example: real sequences [T, B, C] or [B, T, C], labels [T, B] or [B, T]
    """
    model = unwrapped(model)
    reading = Reading(exported(model, args, kwargs or {}))
    reading.read()
    found = list(reading.problems)
    outputs = _outputs(reading, found)
    # what stands for a lost value has readers of its own
    if not found:                                  # what stands for a lost value has readers of its own
        reading.returned = {o.name for o in outputs}
        _tables(reading)
    if not reading.layers and not found:
        found.append(Problem("the model has no layers"))
    if found:
        raise PrepareError(found)
    layers = _needed(reading, outputs)
    read = {i for layer in layers for i in layer.inputs}
    graph = ModelGraph(name, {}, tuple(layers), {k: v for k, v in reading.inputs.items() if k in read},
                       entries=(evolve(FORWARD, outputs=tuple(dict.fromkeys(o.name for o in outputs))),))
    own = {layer.path for layer in layers}
    kept = {k: v for k, v in reading.weights.items() if k[0] in own}
    shared: dict[str, list[Own]] = {}
    for ours, theirs in reading.sources.items():
        if theirs and ours in kept:
            shared.setdefault(theirs, []).append(ours)
    aliases = reading.exported.aliases
    used = {reading.sources[k] for k in kept}
    others = {n: v for n, v in model.state_dict(keep_vars=True).items() if aliases.get(n, n) not in used}
    real = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return Captured(graph, kept, {k: v for k, v in reading.sources.items() if k in kept},
                    frozenset(reading.frozen & set(kept)),
                    {k: v for k, v in reading.dropouts.items() if k[0] in own},
                    TensorEnd(_arguments(reading, read), outputs, reading.exported.several),
                                       real, tuple(dict.fromkeys(reading.notes)),
                    tuple(tuple(names) for names in shared.values() if len(names) > 1),
                    aliases, {n: v.detach().clone() for n, v in others.items()})


def roles(axes: Axes, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """What each outer axis is: what readers said, then time before batch.  None if two are the same."""
    known = [axes.role(a) for a in names]
    for role in ("time", "batch"):
        if role not in known and None in known and (role == "batch" or len(names) == 2):
            at = known.index(None)
            known[at] = role
            axes.mark(names[at], role)
    return tuple(map(str, known)) if None not in known and len(set(known)) == len(known) else None


def _arguments(reading: Reading, read: set[str]) -> tuple[Argument | None, ...]:
    out: list[Argument | None] = []
    for argument, example in reading.exported.inputs.values():
        if argument not in read:
            out.append(None)
            continue
        label = not example.is_floating_point()
        outer = example.ndim - (0 if label else 1)
        found = roles(reading.axes, tuple(f"{argument}.{i}" for i in range(outer)))
        assert found is not None, argument
        out.append(Argument(argument, label, found, 1 if label else example.shape[-1]))
    return tuple(out)


def _outputs(reading: Reading, found: list[Problem]) -> tuple[Result, ...]:
    """What the forward returns, in the user's layout."""
    for argument, example in reading.exported.inputs.values():         # roles first: outputs are said in them
        outer = example.ndim - (0 if not example.is_floating_point() else 1)
        if argument in reading.inputs and roles(reading.axes, tuple(f"{argument}.{i}" for i in range(outer))) is None:
            found.append(Problem(f"the axes of the input `{argument}` are not one time and one batch"))
    out = []
    for i, node in enumerate(reading.exported.outputs):
        value = reading.values.get(node) if isinstance(node, torch.fx.Node) else node
        what = f"result {i} of the model" if reading.exported.several else "what the model returns"
        if isinstance(value, Sequence) and value.name in reading.made:
            named = tuple(tuple(a if a == FEATURES else str(reading.axes.role(a)) for a in axis) for axis in value.axes)
            out.append(Result(value.name, named, value.last))
        elif isinstance(value, FinalState):
            found.append(Problem(f"{what} is the state of a recurrent layer",
                                 "return its output sequence, or the last step of it: `y[-1]`"))
        elif not isinstance(value, Lost):
            found.append(Problem(f"{what} is not what a layer makes", "return the value of a layer"))
    return tuple(out)


def _tables(reading: Reading) -> None:
    """What takes one format alone (a table: int16 in Q3.12) has a value for itself, made by something that can give
    any: where it has not, the value is put on another scale for it."""
    readers: dict[str, list[Layer]] = {}
    for layer in reading.layers:
        for source in layer.inputs:
            readers.setdefault(source, []).append(layer)
    out: list[Layer] = []
    for layer in reading.layers:
        source = layer.inputs[0]
        maker = reading.made.get(source)
        others = [x for x in readers[source] if operator(x.kind).takes is None] or source in reading.returned
        if operator(layer.kind).takes is not None and (maker is None or not gives_any(maker) or others):
            width = reading.inputs[source] if maker is None else maker.width
            between = Layer(reading.fresh(re.sub(r"((\[\d+\])?)$", r"_input\1", layer.path, count=1)), "scale",
                            (source,), width, 1, ENTRY, (), {"factor": 1.0})
            out.append(between)
            reading.made[between.path] = between
            if (layer.path, 0) in reading.dropouts:
                reading.dropouts[between.path, 0] = reading.dropouts.pop((layer.path, 0))
            layer = evolve(layer, inputs=(between.path,))
            reading.made[layer.path] = layer
        out.append(layer)
    reading.layers[:] = out


def gives_any(layer: Layer) -> bool:
    """Whether a layer's output can have any scale that is asked for."""
    made = operator(layer.kind)
    return not (made.recurrent or made.view or made.by_index or made.gives or made.bounded(layer.attributes))


def _needed(reading: Reading, outputs: tuple[Result, ...]) -> list[Layer]:
    """The layers that what is returned depends on."""
    wanted = {o.name for o in outputs}
    for layer in reversed(reading.layers):
        if layer.path in wanted:
            wanted |= set(layer.inputs)
    unused = [layer.path for layer in reading.layers if layer.path not in wanted]
    reading.notes += [f"`{path}` is computed and not returned: left out" for path in unused]
    return [layer for layer in reading.layers if layer.path in wanted]


__all__ = ["Captured", "Exported", "capture"]
