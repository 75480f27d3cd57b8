"""A transducer of a user's own, read: encoder, prediction network and joint, each a model with a forward, become one
graph of three entries.

The joint is read with its two sequences repeated along each other.  What it makes of one of them alone moves to the
entry that makes it: it is then computed once for a frame, or a label, and its integers are the same.  Labels are
numbered with the blank first, as nnac's searches have them: rows of the embedding and of the output are moved.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from nnac.capture.captured import Captured, _arguments, captured, read
from nnac.capture.exported import exported
from nnac.capture.problems import PrepareError, Problem
from nnac.capture.reading import Reading
from nnac.decode.tensors import Argument, Result, TensorEnd
from nnac.model.graph import Layer, ModelGraph
from nnac.model.rnnt import ENCODER, JOINT, PREDICTION

BUILDER = "transducer"
FEATURES, LABEL = "features", "label"              # what the entries are given
BATCH, FRAMES, LABELS = 2, 3, 4                    # of the joint's own example, where the user gives none


class Call(nn.Module):
    """A method of a module, as a module: ``model.predict``."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        # its parameters and submodules, under the names that they have there
        self._modules, self._parameters, self._buffers = owner._modules, owner._parameters, owner._buffers
        self.held, self.name = (owner,), name
        self.train(owner.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.method(*args, **kwargs)

    @property
    def method(self) -> Any:
        """What is called: its signature is the call's."""
        return getattr(self.held[0], self.name)


def signature(model: nn.Module) -> inspect.Signature:
    """What a part is called with."""
    return inspect.signature(model.method if isinstance(model, Call) else model.forward)


@frozen(eq=False)
class CapturedTransducer:
    """``captured``: the graph with its weights, names under ``encoder.``, ``prediction.``, ``joint.``; labels with the
    blank first.

    order   the user's number of each label      rows  (layer path, parameter) -> how its rows lie: True where all
    labels have one, False where the blank has none, and got zeros
    features, labels     what the encoder and the prediction network are given      frames, predictions  their results
    logits, after        the joint's result; layers of it that are left out: what a search does itself
    crossing             values of the joint's two sequences, with what each axis is ("" where it has size one)
    """

    captured: Captured
    order: tuple[int, ...]
    rows: Mapping[tuple[str, str], bool]
    features: Argument
    labels: Argument
    frames: Result
    predictions: Result
    logits: Result
    after: tuple[str, ...]
    crossing: tuple[tuple[str, tuple[str, ...]], ...]

    def original(self, path: str, name: str, value: Tensor) -> Tensor:
        """Rows of ours as the user has them."""
        if (path, name) not in self.rows:
            return value
        if not self.rows[path, name]:
            return value[1:]
        out = torch.empty_like(value)
        out[torch.tensor(self.order)] = value
        return out


def capture_transducer(models: Mapping[str, nn.Module], examples: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]],
                       blank: int, start: str) -> tuple[CapturedTransducer, tuple[tuple[Any, ...], dict[str, Any]]]:
    """(what was read, the example of the joint's call).  PrepareError: everything in the way.

    models    encoder, prediction, joint        examples  of their calls; the joint's may be left out
    blank     the user's number of the blank, -1 for the last      start  ``blank``: the label before the first;
    ``zeros``: its embedding is zero
    """
    if start not in ("blank", "zeros"):
        raise PrepareError([Problem(f"start={start!r}", "`blank` or `zeros`")])
    problems: list[Problem] = []
    readings: dict[str, Reading] = {}
    results: dict[str, Result] = {}
    for entry in (ENCODER.name, PREDICTION.name):
        try:
            readings[entry], outputs = read(exported(models[entry], *examples[entry], first=True), entry=entry,
                                            prefix=f"{entry}.")
            results[entry] = _sequence(entry, outputs)
        except PrepareError as error:
            problems += error.problems
    if problems:
        raise PrepareError(problems)
    widths = [readings[e].made[results[e].name].width for e in (ENCODER.name, PREDICTION.name)]
    joint, outputs, example = _joint(models[JOINT.name], examples.get(JOINT.name), widths)
    result = outputs[0]
    assert isinstance(result, Result)
    features, labels = (_argument(readings[e], e == PREDICTION.name) for e in (ENCODER.name, PREDICTION.name))
    encoder = readings[ENCODER.name]
    width, = (encoder.inputs[i] for i in dict.fromkeys(i for x in encoder.layers for i in x.inputs)
              if i in encoder.inputs)
    graph, made, after = _merged(readings, results, joint, result, width)
    vocabulary = graph.by_path[made].width
    blank = blank % vocabulary if -vocabulary <= blank < vocabulary else vocabulary
    if blank == vocabulary:
        raise PrepareError([Problem(f"the joint chooses from {vocabulary} labels: blank={blank} is none of them")])
    order = (blank, *(i for i in range(vocabulary) if i != blank))
    graph = evolve(graph, arguments=dict(blank=blank, start=start))
    whole = captured(graph, [readings[ENCODER.name], readings[PREDICTION.name], joint],
                     [models[e] for e in (ENCODER.name, PREDICTION.name, JOINT.name)], TensorEnd((), (), False), (),
                     [f"{e}." for e in (ENCODER.name, PREDICTION.name, JOINT.name)])
    rows: dict[tuple[str, str], bool] = {}
    weights, index = dict(whole.weights), torch.tensor(order)
    for key in ((made, "weight"), (made, "bias")):
        if key in weights:
            weights[key], rows[key] = weights[key][index], True
    table = _embedding(graph)
    key = table, "weight"
    if len(weights[key]) == vocabulary:
        weights[key], rows[key] = weights[key][index], True
        if start == "zeros":
            weights[key] = weights[key].clone()
            weights[key][0] = 0
    elif len(weights[key]) == vocabulary - 1 and blank == vocabulary - 1 and start == "zeros":
        weights[key], rows[key] = torch.cat([torch.zeros_like(weights[key][:1]), weights[key]]), False
        graph = _wider(graph, table, vocabulary)
    else:
        raise PrepareError([Problem(f"the embedding has {len(weights[key])} rows for {vocabulary} labels",
                                    "a row for each, or with start='zeros' for each but a last blank")])
    if torch.equal(weights[key][0], torch.zeros_like(weights[key][0])) and start == "blank":
        whole = evolve(whole, notes=(*whole.notes, "the blank's embedding is zero and would be trained: start='zeros' "
                                     "keeps it"))
    crossing = tuple((results[entry].name, tuple(
        "" if n == 1 else str(joint.axes.role(f"{name}.{i}"))
        for i, n in enumerate(joint.exported.inputs[name][1].shape[:-1])))
        for name, entry in zip(joint.inputs, (ENCODER.name, PREDICTION.name), strict=True))
    return CapturedTransducer(evolve(whole, graph=graph, weights=weights), order, rows, features, labels,
                              results[ENCODER.name], results[PREDICTION.name], result, after, crossing), example


def _argument(reading: Reading, label: bool) -> Argument:
    """How the one sequence that an entry reads lies.  PrepareError: it reads another number of them."""
    taken = {i for layer in reading.layers for i in layer.inputs} & set(reading.inputs)
    found = [a for a in _arguments(reading, taken) if a is not None]
    if len(found) != 1 or found[0].label != label:
        raise PrepareError([Problem(f"the {reading.entry} reads {', '.join(f'`{a.name}`' for a in found)}",
                                    f"one sequence of {'labels' if label else 'features'}")])
    return evolve(found[0], name=LABEL if label else FEATURES)


def _sequence(entry: str, outputs: tuple[Any, ...]) -> Result:
    """The sequence that an entry returns first."""
    if not isinstance(outputs[0], Result) or outputs[0].last:
        raise PrepareError([Problem(f"the first result of the {entry} is no sequence", "return it first")])
    return outputs[0]


def _joint(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]] | None,
           widths: list[int]) -> tuple[Reading, tuple[Any, ...], tuple[tuple[Any, ...], dict[str, Any]]]:
    """The joint read, on the user's example or on one of our own: frames and labels as [B, T, C] and [B, U, C], with
    axes to repeat along, or time first."""
    tried: list[PrepareError] = []
    for args, kwargs in [example] if example is not None else _ways(widths):
        try:
            reading, outputs = read(exported(model, args, kwargs, first=True), entry=JOINT.name,
                                    prefix=f"{JOINT.name}.", crossed=True)
            return reading, (_sequence("joint", outputs),), (args, kwargs)
        except PrepareError as error:
            tried.append(error)
    raise tried[0]


def _ways(widths: list[int]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    draw = torch.Generator().manual_seed(0)
    f, g = (torch.randn(BATCH, n, width, generator=draw) for n, width in zip((FRAMES, LABELS), widths, strict=True))
    return [((f, g), {}), ((f[:, :, None], g[:, None]), {}), ((f.transpose(0, 1), g.transpose(0, 1)), {}),
            ((f.transpose(0, 1)[:, None], g.transpose(0, 1)[None]), {}), ((f[:, 0], g[:, 0]), {})]


def _merged(readings: Mapping[str, Reading], results: Mapping[str, Result], joint: Reading, result: Result,
            width: int) -> tuple[ModelGraph, str, tuple[str, ...]]:
    """(one graph of three entries, the layer that makes the logits, the layers after it that are left out)."""
    encoder, prediction = readings[ENCODER.name], readings[PREDICTION.name]
    for reading, name in ((encoder, FEATURES), (prediction, LABEL)):
        reading.layers[:] = [evolve(x, inputs=tuple(name if i in reading.inputs else i for i in x.inputs))
                             for x in reading.layers]
    names = dict(zip(joint.inputs, (results[ENCODER.name].name, results[PREDICTION.name].name), strict=True))
    layers = [evolve(x, inputs=tuple(names.get(i, i) for i in x.inputs)) for x in joint.layers]
    made, after = result.name, []
    while (last := next(x for x in layers if x.path == made)).operator.gives is not None:
        layers.remove(last)                                          # log-softmax: the search's own, in integers
        made = last.inputs[0]
        after.append(last.path)
        joint.notes.append(f"`{last.path}` is left out: searches and losses take it themselves")
    if "weight" not in last.operator.matrices:
        raise PrepareError([Problem(f"the joint ends with `{last.path}` ({last.kind})", "a linear layer gives the "
                            "logits")])
    # what depends on one sequence alone belongs to its entry
    home = {x.path: ENCODER.name for x in encoder.layers} | {x.path: PREDICTION.name for x in prediction.layers}
    stays: list[Layer] = []
    moved: list[Layer] = []
    for x in layers:
        at = {home.get(i, JOINT.name) for i in x.inputs}
        if len(at) == 1 and at != {JOINT.name} and x.path != made:
            entry, = at
            home[x.path] = entry
            moved.append(evolve(x, entry=entry))
        else:
            stays.append(x)
    ends = {entry: dict.fromkeys(i for x in stays for i in x.inputs if home.get(i) == entry)
            for entry in (ENCODER.name, PREDICTION.name)}
    for entry, found in ends.items():
        if len(found) != 1:
            raise PrepareError([Problem(f"the joint reads {len(found)} values of the {entry}", "one of each")])
    (frames,), (labels,) = ends.values()
    if stays[0].inputs == (labels, frames):
        if stays[0].attributes.get("factor", 1.0) != 1.0:
            raise PrepareError([Problem(f"`{stays[0].path}` reads the prediction before the encoder")])
        stays[0] = evolve(stays[0], inputs=(frames, labels))
    if set(stays[0].inputs) != {frames, labels}:
        raise PrepareError([Problem(f"`{stays[0].path}` reads one sequence of the joint twice")])
    pace = {x.path: x.rate for x in encoder.layers}
    every = [*encoder.layers, *(evolve(x, rate=pace[results[ENCODER.name].name]) if x.entry == ENCODER.name else x
                                for x in moved if x.entry == ENCODER.name),
             *prediction.layers, *(x for x in moved if x.entry == PREDICTION.name), *stays]
    entries = (evolve(ENCODER, frames=not any(x.operator.remembers for x in encoder.layers), outputs=(frames,)),
               evolve(PREDICTION, outputs=(labels,)), evolve(JOINT, outputs=(made,)))
    return ModelGraph(BUILDER, {}, tuple(every), {FEATURES: width, LABEL: 1}, None, entries=entries), made, tuple(after)


def _embedding(graph: ModelGraph) -> str:
    found = [x.path for x in graph if x.operator.by_index]
    if len(found) != 1:
        raise PrepareError([Problem(f"the prediction network has {len(found)} embeddings", "one, of labels")])
    return found[0]


def _wider(graph: ModelGraph, path: str, rows: int) -> ModelGraph:
    """The graph with an embedding of so many rows."""
    layers = tuple(evolve(x, kernels=tuple(evolve(k, rows=rows) for k in x.kernels)) if x.path == path else x
                   for x in graph)
    return evolve(graph, layers=layers)


def axes_of(result: Result) -> list[str]:
    """What the axes of a joint's result are, but for the features; ``""`` for axes of size one."""
    return list(itertools.chain.from_iterable(axis or ("",) for axis in result.axes[:-1]))
