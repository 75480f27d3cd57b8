"""What has been read of a model: its graph, weights, ties and dropout, and how the user's tensors become the graph's
sequences and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from collections.abc import Sequence as Many
from fractions import Fraction
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from nnac.capture.exported import Exported, Padded, as_it_was, exported, unchanging, unwrapped
from nnac.capture.kept import Kept, exported_keeping, kept
from nnac.capture.problems import PrepareError, Problem
from nnac.capture.readers.join import joined
from nnac.capture.readers.moments import Moment
from nnac.capture.readers.patches import complete, in_order
from nnac.capture.reading import ENTRY, Own, Reading, Refusal
from nnac.capture.states import Place, StateResult
from nnac.capture.values import FEATURES, Axes, Joined, Lost, Ordered, Sequence, StateIds
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
    given     states that the model takes: where they lie in its arguments
    places    (layer path, parameter) -> which element of the user's each of its own is, -1 for none, where it lies
              otherwise
    spec      how the forward's results are nested (a pytree)
    shapes    of the model's parameters
    tensors   the forward's tensor arguments, by name
    returned  what the forward returns, in order: results of ``end``, and states
    kept      states that the model keeps on itself; their tensors in ``given`` come after the arguments'
    leaves    how each of these tensors lies after a call
    lengths   number of the argument that sequences were packed by, None where there were none
    doubts    what is in the way if the model computes something else at another length than the example's
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
    given: tuple[Place, ...] = ()
    returned: tuple[Result | StateResult, ...] = ()
    places: Mapping[Own, Tensor] = field(factory=dict)
    spec: Any = None
    tensors: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(factory=dict)
    kept: tuple[Kept, ...] = ()
    leaves: tuple[StateResult, ...] = ()
    lengths: int | None = None
    doubts: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        lines = [f"{layer.path}: {layer.kind} of {', '.join(layer.inputs)}, {layer.width} wide" for layer in self.graph]
        return "\n".join([*lines, *(f"note: {n}" for n in self.notes)])


def read(calls: Exported, *, entry: str = ENTRY, prefix: str = "",
         crossed: bool = False) -> tuple[Reading, tuple[Result | StateResult, ...]]:
    """(all that was read of a model's calls, what it returns).  PrepareError with everything that is in the way.

    entry, prefix, crossed   as `Reading` has them
    """
    reading = Reading(calls, entry=entry, prefix=prefix, crossed=crossed)
    reading.read()
    found = list(reading.problems)
    outputs = _outputs(reading, found)
    found += [p for p in reading.problems if p not in found]
    # what stands for a lost value has readers of its own
    if not found:
        reading.returned = {o.name for o in outputs if isinstance(o, Result)}
        try:
            complete(reading)
        except Refusal as refusal:
            found.append(Problem(refusal.what, refusal.instead, *calls.begins))
        _tables(reading)
    if not reading.layers and not found:
        found.append(Problem("the model has no layers"))
    if not found and not reading.returned:
        found.append(Problem("the model returns nothing but states", "return what a layer makes"))
    if found:
        raise PrepareError(found)
    reading.layers[:] = _paced(_needed(reading, outputs))
    return reading, outputs


def capture(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None,
            name: str = "module") -> Captured:
    """Read a model.  PrepareError with everything that is in the way.

    args, kwargs   of its forward, an example: real sequences [T, B, C] or [B, T, C], labels [T, B] or [B, T]
    """
    model = unwrapped(model)
    unchanging(model)
    try:
        held = kept(model, args, kwargs or {})
    except Exception:                                               # said below, by reading it, with its line
        held = ()
    if held:
        calls, held = exported_keeping(model, held, args, kwargs or {})
    else:
        calls = exported(model, args, kwargs or {})
    reading, outputs = read(calls)
    leaves = _kept_leaves(reading, outputs, held)
    outputs = outputs[: len(outputs) - len(leaves)]
    taken = {i for layer in reading.layers for i in layer.inputs}
    results = tuple(o for o in outputs if isinstance(o, Result))
    graph = ModelGraph(name, {}, tuple(reading.layers), {k: v for k, v in reading.inputs.items() if k in taken},
                       entries=(evolve(FORWARD, outputs=tuple(dict.fromkeys(o.name for o in results)),
                                       frames=not any(x.operator.remembers for x in reading.layers)),))
    arguments = _arguments(reading, taken)
    count = len(arguments) - len(leaves)
    whole = captured(graph, [reading], [model], TensorEnd(arguments[:count], results, reading.exported.several),
                     outputs)
    if calls.packed and reading.hears:
        raise PrepareError([Problem("sequences are packed, and the model begins with a convolution that hears what "
                                    "comes or leaves frames out", "give the padded sequence to the layer",
                                    *calls.begins)])
    if calls.packed:
        whole = evolve(whole, lengths=_lengths(model, calls, args, kwargs or {}, outputs),
                       notes=(*whole.notes, "sequences are packed by their lengths: here they are padded, results "
                              "behind an utterance's end are zero"))
    for k in held:
        whole = evolve(whole, notes=(*whole.notes, f"`{k.path}` is kept from call to call, here too: `module.reset()` "
                                     "begins anew; on the machine it is resident, and begins anew at each utterance"))
    return evolve(whole, tensors=whole.tensors[:count], kept=held, leaves=leaves)


@torch.no_grad()
def _lengths(model: nn.Module, calls: Exported, args: tuple[Any, ...], kwargs: Mapping[str, Any],
             outputs: Many[Result | StateResult]) -> int:
    """The number of the argument that sequences are packed by.  PrepareError: none is, or it cannot be followed."""
    with as_it_was(model), Padded() as padded:
        model(*args, **kwargs)
    found = [i for i, (_, x) in enumerate(calls.inputs.values()) if x.ndim == 1 and not x.is_floating_point()
             and all(torch.equal(x.long(), n.long()) for n in padded.lengths)]
    if not found:
        raise PrepareError([Problem("sequences are packed by lengths that are no argument of the model as they stand",
                                    "take the lengths as an argument, or give the padded sequence to the layer",
                                    *calls.begins)])
    if any(isinstance(o, StateResult) for o in outputs):
        raise PrepareError([Problem("the final state of packed sequences is returned: that of each utterance's own "
                                    "end", "return the last step of the output, or give the padded sequence to the "
                                    "layer", *calls.begins)])
    return found[0]


def _kept_leaves(reading: Reading, outputs: Many[Result | StateResult], held: Many[Kept]) -> tuple[StateResult, ...]:
    """How the tensors that a model keeps lie.  PrepareError: they are something else than states of its layers."""
    sizes = [len(k.shapes) for k in held]
    count, found, leaves = len(reading.exported.inputs) - sum(sizes), [], []
    at = len(outputs) - sum(sizes)
    for i, k in enumerate(held):
        for j in range(sum(sizes[:i]), sum(sizes[:i + 1])):
            made = outputs[at + j]
            begin = {(p.path, p.kind) for p in reading.given if p.tensor == count + j}
            if isinstance(made, StateResult) and begin == {(p.path, p.kind) for p in made.places}:
                leaves.append(made)
            else:
                found.append(Problem(f"the model keeps `{k.path}` from call to call, which is not the state that a "
                                     f"recurrent layer begins with and ends with", "take it as an argument and return "
                                     "it", *reading.exported.begins))
    if found:
        raise PrepareError(found)
    return tuple(leaves)


def captured(graph: ModelGraph, readings: Many[Reading], models: Many[nn.Module], end: TensorEnd,
             outputs: tuple[Result | StateResult, ...] = (), names: Many[str] = ("",)) -> Captured:
    """What was read of one model, or of several that became one graph; ``names`` stand before their parameters'."""
    own = {layer.path for layer in graph}
    kept: dict[Own, Tensor] = {}
    sources: dict[Own, str] = {}
    aliases: dict[str, str] = {}
    others: dict[str, Tensor] = {}
    shared: dict[int, list[Own]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for r, model, at in zip(readings, models, names, strict=True):
        mine = {k: v for k, v in r.weights.items() if k[0] in own}
        kept |= mine
        sources |= {k: at + r.sources[k] if r.sources[k] else "" for k in mine}
        shapes |= {at + n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for ours in mine:
            if r.sources[ours] and ours not in r.places:
                shared.setdefault(id(parameters[r.sources[ours]]), []).append(ours)
        used = {r.sources[k] for k in mine}
        aliases |= {at + n: at + first for n, first in r.exported.aliases.items()}
        others |= {at + n: v.detach().clone() for n, v in model.state_dict(keep_vars=True).items()
                   if r.exported.aliases.get(n, n) not in used}
    real = next((p.dtype for model in models for p in model.parameters() if p.is_floating_point()), torch.float32)
    return Captured(graph, kept, sources,
                    frozenset(k for r in readings for k in r.frozen if k in kept),
                    {k: v for r in readings for k, v in r.dropouts.items() if k[0] in own},
                    end, real, tuple(dict.fromkeys(n for r in readings for n in r.notes)),
                    tuple(tuple(names) for names in shared.values() if len(names) > 1),
                    aliases, others, tuple(p for r in readings for p in r.given if p.path in own), outputs,
                    {k: v for r in readings for k, v in r.places.items() if k in kept},
                    readings[0].exported.spec,
                    tuple(name for name, _ in readings[0].exported.inputs.values()), shapes,
                    doubts=tuple(d for r in readings for d in r.doubts))


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
        out.append(Argument(argument, label, found, 1 if label else example.shape[-1],
                            tuple(reading.hears.get(argument, ()))))
    return tuple(out)


def _outputs(reading: Reading, found: list[Problem]) -> tuple[Result | StateResult, ...]:
    """What the forward returns, in the user's layout."""
    if reading.crossed:
        real = {name for name, example in reading.exported.inputs.values() if example.is_floating_point()}
        reading.inputs = {n: w for n, w in reading.inputs.items() if n in real}
        if len(reading.inputs) != 2:
            found.append(Problem(f"the joint reads {len(reading.inputs)} sequences", "the encoder's, then the "
                                 "prediction's"))
            return ()
        roles_crossed(reading)
    for argument, example in reading.exported.inputs.values():         # roles first: outputs are said in them
        outer = example.ndim - (0 if not example.is_floating_point() else 1)
        if not reading.crossed and argument in reading.inputs and roles(
                reading.axes, tuple(f"{argument}.{i}" for i in range(outer))) is None:
            found.append(Problem(f"the axes of the input `{argument}` are not one time and one batch"))
    out: list[Result | StateResult] = []
    given = {(p.path, p.kind) for p in reading.given}
    for i, node in enumerate(reading.exported.outputs):
        reading.node = node if isinstance(node, torch.fx.Node) else None
        value = reading.values.get(node) if isinstance(node, torch.fx.Node) else node
        what = f"result {i} of the model" if reading.exported.several else "what the model returns"
        if isinstance(value, StateIds):
            made = reading.numbering.result(i, value.numbers)
            owners = reading.numbering.owners(value.numbers)
            if made is not None and (given or len(owners) > 1 or owners[0].kind != "hidden"):
                out.append(made)
                continue
            value = reading.last_step(value)
        if isinstance(value, Joined):
            value = joined(reading, value)
        if isinstance(value, Ordered):
            value = in_order(reading, value)
        if isinstance(value, Moment):
            reading.node = value.node
            try:
                value = value.whole(reading)
            except Refusal as refusal:
                value = reading.refuse(refusal.what, refusal.instead)
        if isinstance(value, Sequence) and value.name in reading.made:
            named = tuple(tuple(a if a == FEATURES else str(reading.axes.role(a)) for a in axis) for axis in value.axes)
            out.append(Result(value.name, named, value.last))
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
            between = Layer(reading.untaken(re.sub(r"((\[\d+\])?)$", r"_input\1", layer.path, count=1)), "scale",
                            (source,), width, 1, reading.entry, (), {"factor": 1.0})
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


def roles_crossed(reading: Reading) -> None:
    """What each axis of a joint is: batch what both sequences have, time the encoder's own, ``label`` the
    prediction's."""
    (first, second), axes = reading.inputs, reading.axes
    own = {name: [f"{name}.{i}" for i in range(example.ndim - 1) if example.shape[i] > 1]
           for name, example in reading.exported.inputs.values() if name in reading.inputs}
    both = {axes.root(a) for a in own[first]} & {axes.root(a) for a in own[second]}
    for name, role in ((first, "time"), (second, "label")):
        for a in own[name]:
            axes.roles.setdefault(axes.root(a), "batch" if axes.root(a) in both else role)


def _paced(layers: list[Layer]) -> list[Layer]:
    """The layers with the vectors that each makes in a step of the entry: a step is as long as all stacks of frames
    together."""
    pace: dict[str, Fraction] = {}
    for layer in layers:
        here = min((pace.get(i, Fraction(1)) for i in layer.inputs), default=Fraction(1))
        pace[layer.path] = here / int(layer.attributes.get("frames", 1))
    total = math.lcm(*(p.denominator for p in pace.values()))
    return [evolve(layer, rate=int(total * pace[layer.path])) for layer in layers]


def _needed(reading: Reading, outputs: tuple[Result | StateResult, ...]) -> list[Layer]:
    """The layers that what is returned depends on."""
    wanted = {o.name for o in outputs if isinstance(o, Result)}
    wanted |= {p.path for o in outputs if isinstance(o, StateResult) for p in o.places}
    for layer in reversed(reading.layers):
        if layer.path in wanted:
            wanted |= set(layer.inputs)
    unused = [layer.path for layer in reading.layers if layer.path not in wanted | reading.absorbed]
    reading.notes += [f"`{path}` is computed and not returned: left out" for path in unused]
    return [layer for layer in reading.layers if layer.path in wanted]
