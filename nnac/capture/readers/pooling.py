"""Means over time: `x.mean(1)`, pooling to one, a sum over time by its length.

What they give is the last step of `nnac.ops.mean`, as the last step of a recurrent layer is.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import fx

from nnac.capture.readers.fixed import selected
from nnac.capture.reading import Reading, Refusal, reads
from nnac.capture.values import BAND, BATCH, CHANNEL, FEATURES, TIME, Axis, Image, Sequence, StateIds
from nnac.ops.mean import MOST

WHOLE = "`x.mean(1)` of a sequence [B, T, C], or `F.adaptive_avg_pool1d(x, 1)` of [B, C, T]"
FEW = 3                        # steps that show whether a number is their length: the example is read shorter as well


def over_time(r: Reading, value: Any, at: int, *, keeps: bool) -> Sequence:
    """The mean of a value along an axis, which is time; ``keeps`` it as an axis of one.  Refusal: it is another."""
    if not isinstance(value, Sequence):
        raise Refusal("a mean of something that is no value of the model", WHOLE)
    axis, size = value.axes[at], value.sizes[at]
    rest = [i for i in range(len(value.axes)) if i != at]
    axes: list[Axis] = [value.axes[i] for i in rest]
    sizes = [value.sizes[i] for i in rest]
    if keeps:
        axes.insert(at, ())
        sizes.insert(at, 1)
    if not axis:                                       # of one element in every call
        return value.arranged(axes, sizes)
    if FEATURES in axis or len(axis) > 1:
        raise Refusal("a mean over features, or over time and batch together", WHOLE)
    if r.crossed or value.last or not r.axes.mark(axis[0], TIME):
        raise Refusal("a mean over utterances, or over what is repeated", "means are over time, and over the features: "
                      "`mean(-1, keepdim=True)`")
    made = pooled(r, value, size)
    return evolve(made, axes=tuple(axes), sizes=tuple(sizes))


def pooled(r: Reading, value: Sequence, vectors: int) -> Sequence:
    """The layer, of so many vectors in the example.  Refusal: its sum does not hold them, or they are not a row's
    own."""
    if vectors > MOST:
        raise Refusal(f"a mean over time of {vectors} vectors: its sum holds {MOST}", "an example as long as what the "
                      "model will hear, or a stride before the mean, or stacked frames")
    if r.exported.packed:
        raise Refusal("a mean over time of packed sequences, which counts what is padded",
                      "give each utterance as long as it is")
    if any(n.op == "placeholder" and isinstance(v, StateIds) for n, v in r.values.items()):
        raise Refusal("a mean over time in a model that is given its states, or keeps them: it is that of one call's "
                      "frames, and the machine goes on from call to call", "a model without states; its program, step "
                      "by step, gives the mean of all that was heard since it began")
    path, width = r.path(), value.width
    maker = r.made.get(value.name)
    if maker is not None and maker.operator.gives is not None:                # a format that no policy narrows
        value = r.layer(r.fresh(f"{path}_input".removeprefix(r.prefix)), "scale", [value], width, factor=1.0)
    r.notes.append(f"`{path}` is the mean over time, of {MOST} vectors at most: longer sequences are refused when they "
                   "are given")
    return evolve(r.layer(path, "mean", [value], width, length=vectors), last=True)


def by_length(r: Reading, value: Sequence, at: int, number: float | None, *, keeps: bool) -> Sequence:
    """A sum along an axis by a number, which is its length.  Refusal: it is not."""
    size = value.sizes[at]
    if number is None or abs(number - size) > 1e-6 * size or size < FEW:
        raise Refusal("a sum over time that is not divided by its length" if size >= FEW else
                      f"a sum over {size} steps, of which it is not to be seen whether its divisor is their number",
                      f"`x.mean(1)`, or `x.sum(1) / x.shape[1]` with an example of {FEW} steps at least")
    made = over_time(r, value, at, keeps=keeps)
    r.doubts.append(r.problem(f"a sum over time is divided by {size}, which is the length of the example alone",
                              "`x.mean(1)`, or `x.sum(1) / x.shape[1]`"))
    return made


@reads("aten.adaptive_avg_pool1d.default", "aten.avg_pool1d.default")
def pool(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    """Of all frames."""
    value, size, *more = args
    whole = isinstance(value, Sequence) and list(size) == (
        [1] if "adaptive" in str(node.target) else [value.sizes[-1]]) and not any(
        more[1] if len(more) > 1 else ())
    if not whole or ("adaptive" not in str(node.target) and value.sizes[-1] < FEW):
        raise Refusal("pooling over a part of the frames", "`nn.AdaptiveAvgPool1d(1)`: the mean over time")
    return over_time(r, value, len(value.axes) - 1, keeps=True)


def of_image(r: Reading, node: fx.Node, value: Image, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    """The mean of channels over time and frequency: of all vectors of all bands, where a sum holds so many."""
    n = len(value.labels)
    if "pool" in str(node.target):
        dims, keeps = [n - 2, n - 1], True
        if [*args[1]] * (2 // len(args[1])) != [1, 1]:
            raise Refusal("pooling over a part of time and frequency", "`nn.AdaptiveAvgPool2d(1)`: the mean of both")
    else:
        given = args[1] if len(args) > 1 else kwargs.get("dim")
        dims = [d % n for d in ([given] if isinstance(given, int) else given or ())]
        keeps = bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
    if {value.labels[d] for d in dims} != {TIME, BAND}:
        raise Refusal("a mean of channels over time alone, or over frequency alone", "over both: `x.mean((2, 3))`")
    time, batch, _ = value.flat.axes
    if len(time) != 1 or r.crossed or not r.axes.mark(time[0], TIME):
        raise Refusal("a mean over utterances", "over time and frequency: `x.mean((2, 3))`")
    x, vectors = value.flat, value.flat.sizes[0] * value.bands
    if vectors > MOST:                                 # first over frequency, by a matrix
        width = x.sizes[-1]
        x = r.layer(r.path(own=False), "stack", [x], width * value.bands, frames=value.bands)
        x = selected(r, x, torch.eye(width).repeat(1, value.bands) / value.bands, "the mean over frequency is taken")
        vectors = x.sizes[0]
    made = pooled(r, x, vectors)
    axes = {BATCH: batch, CHANNEL: (FEATURES,)}
    stays = [label for label in value.labels if keeps or label in axes]
    return evolve(made, axes=tuple(axes.get(label, ()) for label in stays),
                  sizes=tuple(value.size(label) if label in axes else 1 for label in stays))
