"""Convolutions that begin a model, over time or over time and frequency, whatever they hear of what comes: frames are
given to the model as often as they are read (`nnac.decode.patches.Patches`), and the convolution is a matrix that meets
each patch.  Several may follow each other: each stacks what the one before makes of the patches that it reads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, fx

from nnac.capture.readers.fixed import selected
from nnac.capture.readers.pooling import of_image
from nnac.capture.reading import SAME, Reading, Refusal, reads, site_path
from nnac.capture.values import BAND, BATCH, CHANNEL, FEATURES, TIME, Image, Ordered, Sequence, Weights
from nnac.decode.patches import Patches
from nnac.model.graph import Kernel

# what is done with a vector of channels as with any other
POINTWISE = ("aten.relu.default", "aten.relu_.default", "aten.leaky_relu.default", "aten.leaky_relu_.default",
             "aten.relu6.default", "aten.relu6_.default", "aten.hardtanh.default", "aten.hardtanh_.default",
             "aten.silu.default", "aten.silu_.default", "aten.gelu.default", "aten.tanh.default",
             "aten.tanh_.default", "aten.sigmoid.default", "aten.sigmoid_.default", "aten.hardswish.default",
             "aten.hardswish_.default", "aten.hardsigmoid.default", "aten.clamp.default", "aten.clamp_min.default",
             "aten.mul.Tensor", "aten.div.Tensor", "aten.dropout.default", "aten.dropout_.default",
             "aten.feature_dropout.default")
NORMS = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
POOLED = ("aten.mean.dim", "aten.adaptive_avg_pool2d.default")
VIEWS = ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints")
FEW = "convolutions at the model's input, one behind the other, with what goes element by element between"


def begun(r: Reading, value: Sequence) -> tuple[str, int]:
    """(the input that a value is made of by nothing but convolutions of patches, how many of them).  Refusal: it is
    not."""
    name = value.name
    while name not in r.inputs and name not in r.ends:
        layer = r.made[name]
        does = layer.operator
        if len(layer.inputs) != 1 or does.recurrent or does.remembers or does.view:
            raise Refusal("a convolution that hears what comes, or leaves frames out, stands behind other layers", FEW)
        name, = layer.inputs
    return r.ends.get(name, (name, 0))


def blocks(r: Reading, path: str, value: Sequence, weight: Weights, index: Tensor, bias: Weights | None,
           groups: int) -> Sequence:
    """A convolution as a matrix of as many blocks as there are groups, of vectors that are side by side, [taps,
    channels].

    index  [rows, channels / groups, taps]: which element of the weights each is
    """
    rows, own, taps = index.shape
    columns = taps * groups * own
    whole = torch.full((rows, taps, groups, own), -1)
    each = torch.arange(rows)
    whole[each, :, each // (rows // groups)] = index.transpose(1, 2)
    at = whole.reshape(rows, columns)
    dense = weight.value.flatten()[at.clamp_min(0)] * (at >= 0)
    r.give(path, {"weight": evolve(weight, value=dense, index=at), "bias": bias})
    return r.layer(path, "grouped" if groups > 1 else "linear", [value], rows,
                   (Kernel("weight", f"{path}.weight", rows, columns),), bias=bias is not None, taps=taps,
                   groups=groups)


def convolved(r: Reading, value: Sequence, weight: Weights, index: Tensor, bias: Weights | None, patches: Patches,
              groups: int) -> Sequence:
    """A convolution, as vectors of channels [T', B, rows], a vector for each band.

    value  frames [T, B, C], or the vectors of the convolution before
    index  [rows, channels / groups, taps, bands]: which element of the weights each is
    """
    source, depth = begun(r, value)
    chain = r.hears.setdefault(source, [])
    if depth != len(chain) or (depth == 0 and any(source in x.inputs for x in r.layers)):
        raise Refusal("a convolution reads frames that something else reads as well", FEW)
    if depth and (patches.before or patches.behind or patches.band_before or patches.band_behind):
        raise Refusal("zeros stand around what a convolution makes of frames", "zeros around the frames themselves, "
                      "before the first convolution; or a causal one, `F.pad(x, (k - 1, 0))`")
    time, batch = value.axes[0], value.axes[1]
    if len(time) != 1 or not r.axes.mark(time[0], TIME):
        raise Refusal("a convolution goes along another axis than time", "`nn.Conv1d` over [B, C, T]")
    rows, own, taps, bands = index.shape
    name, patch = weight.name.rpartition(".")[0], taps * bands
    steps = (value.sizes[0] + patches.before + patches.behind - (taps - 1) * patches.apart - 1) // patches.hop + 1
    path = r.fresh(site_path(name)) if name else r.path()
    chain.append(patches)
    if value.keeps < 1:
        r.notes.append(f"`{path}`: what is dropped before it is drawn anew for each frame as often as it is given")
    if depth:
        value = r.layer(f"{path}.stack", "stack", [value], patch * own * groups, frames=patch)
        r.ends[value.name], path = (source, depth + 1), f"{path}.matrix"
    else:
        r.inputs[source] = patch
    made = blocks(r, path, value, weight, index.flatten(2), bias, groups)
    r.ends[path] = source, depth + 1
    step, hop = r.axes.shorter(f"{source}~{depth + 1}", steps), math.prod(p.hop for p in chain)
    r.notes.append(f"`{path}` reads {taps} frames every {patches.hop}: the model is given frames as often as they are "
                   f"read, for a step every {hop} of them, and ends where no more are whole")
    return evolve(made, axes=((step,), batch, (FEATURES,)), sizes=(steps, value.sizes[1], rows))


def starts(r: Reading, value: Sequence) -> bool:
    """Whether a convolution that reads a value is one of those that begin the model."""
    try:
        return begun(r, value)[0] in r.inputs
    except Refusal:
        return False


def one_axis(r: Reading, value: Sequence, weight: Weights, bias: Weights | None, patches: Patches,
             groups: int) -> Sequence:
    """A convolution over time [B, C, T], laid out so: of a model's own frames, all bands at once."""
    at = weight.numbers
    flat = value.arranged([value.axes[i] for i in (2, 0, 1)], [value.sizes[i] for i in (2, 0, 1)])
    first = begun(r, flat)[1] == 0
    if first and groups > 1:
        raise Refusal("a convolution in groups hears what comes", "a causal one, `F.pad(x, (k - 1, 0))`, or one group")
    index = at.transpose(1, 2)[:, None] if first else at[..., None]
    bands = at.shape[1] if first else 1
    made = convolved(r, flat, weight, index, bias, evolve(patches, bands=bands, band_hop=bands), groups)
    return made.arranged([made.axes[i] for i in (1, 2, 0)], [made.sizes[i] for i in (1, 2, 0)])


@reads("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Image:
    """Over time and frequency, in either order, of [B, 1, T, F] or of what another one makes."""
    value, weight, bias, stride, padding, dilation, groups = (*args, *([None], [1, 1], [0, 0], [1, 1], 1)[
        len(args) - 2:])[:7]
    if not isinstance(weight, Weights) or not (bias is None or isinstance(bias, Weights)):
        raise Refusal("a convolution of weights that the model computes", "`nn.Conv2d`")
    if isinstance(padding, str) and padding != "valid":
        raise Refusal(f"a convolution over two axes with padding {padding!r}", "numbers: `padding=(1, 1)`")
    both = [list(x) * (2 // len(x)) for x in (stride, [0] if isinstance(padding, str) else padding, dilation)]
    if isinstance(value, Image):
        if value.labels[:2] != (BATCH, CHANNEL):
            raise Refusal("a convolution over other axes than time and frequency", "`nn.Conv2d` over [B, C, T, F]")
        flat, over = value.flat, value.labels[2:]
    elif isinstance(value, Sequence):
        flat, over = frames(r, value)
    else:
        raise Refusal("a convolution of something that is no value of the model")
    at = weight.numbers
    turn = over == (BAND, TIME)
    index = at.transpose(2, 3) if turn else at
    (hop, band_hop), (pad, band_pad), (apart, band_apart) = (x[::-1] if turn else x for x in both)
    bands = value.bands if isinstance(value, Image) else flat.sizes[-1]
    taps, across = index.shape[2:]
    made = convolved(r, flat, weight, index, bias, Patches(taps, hop, apart, pad, pad, across, band_hop, band_apart,
                                                          band_pad, band_pad), groups)
    left = (bands + 2 * band_pad - (across - 1) * band_apart - 1) // band_hop + 1
    return Image(made, (BATCH, CHANNEL, *over), left)


def frames(r: Reading, value: Sequence) -> tuple[Sequence, tuple[str, str]]:
    """The model's frames [T, B, C] in a value [B, 1, T, C] or [B, 1, C, T]; which axis is which."""
    if len(value.axes) != 4 or value.axes[1] != () or (FEATURES,) not in value.axes[2:] or value.last or (
            value.before or value.behind) or value.keeps < 1:
        raise Refusal("a convolution over other axes than time and frequency",
                      "`nn.Conv2d` over [B, 1, T, F]: `x.unsqueeze(1)` of the model's frames")
    over = (TIME, BAND) if value.axes[3] == (FEATURES,) else (BAND, TIME)
    order = (2 + over.index(TIME), 0, 2 + over.index(BAND))
    if len(value.axes[0]) > 1:
        raise Refusal("a convolution goes over time and batch together", "keep time and batch apart")
    return value.arranged([value.axes[i] for i in order], [value.sizes[i] for i in order]), over


def planes(r: Reading, node: fx.Node, value: Image, args: tuple[Any, ...], kwargs: dict[str, Any], known: Any) -> Any:
    """What a call makes of an image, which it reads first.  Refusal: that is not read."""
    target = str(node.target)
    if target in SAME:
        return value
    if target == "aten.conv2d.default" or target == "aten.conv2d.padding":
        return conv2d(r, node, args, kwargs)
    if target in POINTWISE and not any(isinstance(a, (Image, Sequence, Weights)) for a in args[1:]):
        made = known[target](r, node, (value.flat, *args[1:]), kwargs)
        return evolve(value, flat=made)
    if target in NORMS and value.labels[1] == CHANNEL:
        x = value.flat
        turned = x.arranged([x.axes[i] for i in (1, 2, 0)], [x.sizes[i] for i in (1, 2, 0)])
        made = known[target](r, node, (turned, *args[1:]), kwargs)
        made = made[0] if isinstance(made, tuple) else made
        back = made.arranged([made.axes[i] for i in (2, 0, 1)], [made.sizes[i] for i in (2, 0, 1)])
        whole = evolve(value, flat=back)
        return (whole, None, None) if "native" in target else whole
    if target in ("aten.transpose.int", "aten.permute.default"):
        n, order = len(value.labels), list(range(len(value.labels)))
        if "permute" in target:
            order = [int(d) % n for d in args[1]]
        else:
            a, b = (int(d) % n for d in args[1:3])
            order[a], order[b] = order[b], order[a]
        return evolve(value, labels=tuple(value.labels[i] for i in order))
    if target in VIEWS:
        return flattened(r, node, value)
    if target in POOLED:
        return of_image(r, node, value, args, kwargs)
    raise Refusal(f"`{target.split('.')[1]}` of channels over time and frequency has no integer operator",
                  "convolutions, batch norm, what goes element by element, and channels and frequencies as one axis")


def flattened(r: Reading, node: fx.Node, value: Image) -> Any:
    """Channels and bands as one axis of features."""
    new = list(node.meta["val"].shape)
    if new == [value.size(label) for label in value.labels]:
        return value
    labels, pair = list(value.labels), {CHANNEL, BAND}
    at = next((i for i in range(len(labels) - 1) if set(labels[i: i + 2]) == pair), None)
    if at is None:
        raise Refusal("channels and frequencies are joined that do not follow each other", "`transpose(1, 2)` before")
    channels_first, x = labels[at] == CHANNEL, value.flat
    labels[at: at + 2] = [FEATURES]
    width = x.sizes[-1] * value.bands
    sizes = {TIME: x.sizes[0], BATCH: x.sizes[1], FEATURES: width}
    if new != [sizes[label] for label in labels]:
        raise Refusal("something else is joined than channels and frequencies", "`x.transpose(1, 2).flatten(2)`")
    flat = x if value.bands == 1 else r.layer(r.path(own=False), "stack", [x], width, frames=value.bands)
    place = {TIME: 0, BATCH: 1, FEATURES: 2}
    axes = [(x.axes[0], x.axes[1], (FEATURES,))[place[label]] for label in labels]
    made = evolve(flat, axes=tuple(axes), sizes=tuple(new))
    if not channels_first or value.bands == 1 or x.sizes[-1] == 1:
        return made
    return Ordered(made, torch.arange(width).reshape(value.bands, x.sizes[-1]).t().flatten())


def in_order(r: Reading, value: Ordered) -> Sequence:
    """As the user has it."""
    return selected(r, value.source, torch.eye(len(value.order))[value.order], "elements are put in another order")


def complete(r: Reading) -> None:
    """Refusal unless what convolutions of patches make, but for the last one of an input, is read by the next one
    alone: there the same vector comes several times."""
    for source, chain in r.hears.items():
        depth = {source: 0}
        if len({i for x in r.layers for i in x.inputs} & set(r.inputs)) > 1:
            raise Refusal(f"the model reads `{source}` by a convolution that leaves frames out or hears what comes, "
                          f"and another input beside it", "one input")
        for layer in r.layers:
            given = {depth[i] for i in layer.inputs if i in depth}
            does = layer.operator
            here = r.ends[layer.path][1] if layer.path in r.ends else max(given, default=0)
            depth[layer.path] = here
            early = here < len(chain) and (layer.path in r.returned or does.recurrent or does.remembers
                                           or (does.view and layer.path not in r.ends))
            if early or len(given) > 1 or (layer.path not in r.ends and 0 in given):
                raise Refusal(f"`{layer.path}` reads frames, or what a convolution makes of them, beside another "
                              f"convolution that hears what comes or leaves frames out", FEW)
