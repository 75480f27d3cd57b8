"""Convolutions along time: the last frames side by side, then a matrix; a channel by itself where it is depthwise.

Only what has been heard is read: zeros stand before the first frame, ``kernel - stride`` of them, and none behind.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from torch import fx

from nnac.capture.readers.patches import blocks, one_axis, starts
from nnac.capture.reading import Reading, Refusal, reads, site_path
from nnac.capture.values import FEATURES, Sequence, Weights, Zeros
from nnac.decode.patches import Patches
from nnac.model.graph import Kernel
from nnac.ops.window import reach

MOVED = ("aten.transpose.int", "aten.permute.default", "aten.contiguous.default")


@reads("aten.pad.default", "aten.constant_pad_nd.default")
def pad(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Zeros before the first frame."""
    value, widths, *more = args
    if isinstance(value, Zeros):
        return value
    mode = next((m for m in more if isinstance(m, str)), kwargs.get("mode", "constant"))
    fill = next((m for m in more if isinstance(m, (int, float))), kwargs.get("value")) or 0
    if not isinstance(value, Sequence) or mode != "constant" or fill != 0:
        raise Refusal(f"`pad` of mode {mode}, with {fill}", "zeros before the first frame: `F.pad(x, (k - 1, 0))`")
    ends = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    padded = [(len(value.axes) - 1 - i, e) for i, e in enumerate(ends) if e != (0, 0)]
    if not padded:
        return value
    if len(padded) > 1 or padded[0][1][1] or padded[0][1][0] < 0 or not along_time(r, value, padded[0][0]):
        raise Refusal("zeros are put elsewhere than before the first frame", "`F.pad(x, (k - 1, 0))` along time")
    at, (before, _) = padded[0]
    return evolve(value, sizes=tuple(n + before if i == at else n for i, n in enumerate(value.sizes)),
                  before=value.before + before)


def cut_off(node: fx.Node) -> bool:
    """Whether a part is taken of what a call makes, as it is or with its axes moved."""
    return any(str(u.target) == "aten.slice.Tensor" or (str(u.target) in MOVED and cut_off(u)) for u in node.users)


def along_time(r: Reading, value: Sequence, axis: int) -> bool:
    """Whether an axis is one of the user's own, which is time from now on."""
    name = value.axes[axis]
    return len(name) == 1 and name != (FEATURES,) and r.axes.mark(name[0], "time")


@reads("aten.conv1d.default", "aten.conv1d.padding", "aten.convolution.default")
def conv1d(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, weight, bias, stride, padding, dilation, *rest = (*args, *([None], [1], [0], [1], 1)[len(args) - 2:])[:7]
    groups = rest[-1] if "convolution" not in str(node.target) else args[8]
    if not isinstance(value, Sequence) or not isinstance(weight, Weights) or weight.value.ndim != 3:
        raise Refusal("a convolution of other than one axis, or of weights that the model computes", "`nn.Conv1d`")
    if len(value.axes) != 3 or value.axes[1] != (FEATURES,) or not along_time(r, value, 2) or value.last:
        raise Refusal("a convolution goes along another axis than time", "`nn.Conv1d` over [B, C, T]")
    taps, step, apart = weight.value.shape[2], stride[0], (dilation or [1])[0]
    same = reach(taps, apart) - 1 if padding == "same" else 0
    behind = same - same // 2 if isinstance(padding, str) else int(padding[0])
    before = (same // 2 if isinstance(padding, str) else behind) or value.before
    causal = step <= taps and before == reach(taps, apart) - step and (apart == 1 or step == 1) and not same
    if (not causal or (behind and not cut_off(node))) and starts(r, value):
        flat = evolve(value, before=0, sizes=(*value.sizes[:2], value.sizes[2] - value.before))
        return one_axis(r, flat, weight, bias, Patches(taps, step, apart, before, behind, 1, 1, 1, 0, 0), groups)
    if apart > 1 and step > 1:
        raise Refusal("a convolution with dilation and stride", "one of them")
    if not causal:
        raise Refusal(f"a convolution of {taps} frames every {step} has {before} zeros before the first frame: the "
                      f"machine's begins with {reach(taps, apart) - step}",
                      f"`F.pad(x, ({reach(taps, apart) - step}, 0))` along time")
    name = weight.name.rpartition(".")[0]
    path = r.fresh(site_path(name)) if name else r.path()
    plain = evolve(value, before=0, sizes=(*value.sizes[:2], value.sizes[2] - value.before))
    alone = step == apart == 1 and groups == weight.value.shape[0] == value.sizes[1]
    made = depthwise(r, path, plain, weight, bias) if alone else windowed(r, path, plain, weight, bias, step, groups,
                                                                          apart)
    time, = made.axes[2]
    if step > 1:
        time = r.axes.shorter(f"{time}/{step}", node.meta["val"].shape[2])
        r.notes.append(f"`{path}` takes {step} frames a step: a rest shorter than that is dropped")
    return evolve(made, axes=(*made.axes[:2], (time,)), sizes=tuple(node.meta["val"].shape), behind=behind)


def depthwise(r: Reading, path: str, value: Sequence, weight: Weights, bias: Weights | None) -> Sequence:
    """Each channel by itself."""
    channels, _, taps = weight.value.shape
    r.give(path, {"weight": weight[:, 0], "bias": bias})
    return r.layer(path, "depthwise", [value], channels, (Kernel("weight", f"{path}.weight", channels, taps),), chunk=1,
                   taps=taps, bias=bias is not None)


def windowed(r: Reading, path: str, value: Sequence, weight: Weights, bias: Weights | None, step: int,
             groups: int, dilation: int) -> Sequence:
    """The frames side by side, then a matrix of as many blocks as there are groups."""
    _, own, taps = weight.value.shape
    seen = r.layer(f"{path}.window", "window", [value], own * groups * taps, taps=taps, frames=step, dilation=dilation)
    return blocks(r, f"{path}.matrix", seen, weight, weight.numbers, bias, groups)
