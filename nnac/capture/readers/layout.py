"""Calls that move axes and change nothing else: transpose, permute, view, squeeze, …"""

from __future__ import annotations

import math
from typing import Any

from attrs import evolve
from torch import fx

from nnac.capture.readers.fixed import part
from nnac.capture.reading import Reading, Refusal, reads
from nnac.capture.values import FEATURES, Axis, Sequence, Zeros


@reads("aten.contiguous.default", "aten.clone.default", "aten.alias.default", "aten.detach.default",
       "aten.lift_fresh_copy.default",
       "aten.detach_.default", "aten.positive.default")
def same(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


@reads("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten._to_copy.default", "aten.to.other",
       "aten.float.default",
       "aten.type_as.default")
def cast(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Real to real, label to label: formats are the policy's, not the model's."""
    before, after = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
    if isinstance(args[0], Sequence) and before.is_floating_point != after.is_floating_point:
        raise Refusal(f"numbers are taken for {'real ones' if after.is_floating_point else 'labels'}",
                      "give the model what it reads")
    return args[0]


def rearranged(value: Any, order: list[int]) -> Any:
    """A value with its axes in another order."""
    if isinstance(value, Zeros):
        return value
    return value.arranged([value.axes[i] for i in order], [value.sizes[i] for i in order])


@reads("aten.transpose.int", "aten.swapaxes.default", "aten.transpose_.default")
def transpose(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, a, b = args
    n = node.meta["val"].ndim
    order = list(range(n))
    order[a % n], order[b % n] = order[b % n], order[a % n]
    return rearranged(value, order)


@reads("aten.permute.default")
def permute(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    n = node.meta["val"].ndim
    return rearranged(args[0], [d % n for d in args[1]])


@reads("aten.t.default", "aten.numpy_T.default")
def t(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return rearranged(args[0], list(range(node.meta["val"].ndim))[::-1])


@reads("aten.unsqueeze.default")
def unsqueeze(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, at = args
    if isinstance(value, Zeros):
        return value
    at %= len(value.axes) + 1
    return value.arranged([*value.axes[:at], (), *value.axes[at:]], [*value.sizes[:at], 1, *value.sizes[at:]])


@reads("aten.squeeze.dim", "aten.squeeze.default", "aten.squeeze.dims")
def squeeze(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    if isinstance(value, Zeros):
        return value
    n = len(value.axes)
    wanted = range(n) if len(args) == 1 else [d % n for d in (args[1] if isinstance(args[1], list) else [args[1]])]
    gone = [i for i in wanted if value.sizes[i] == 1]
    if any(value.axes[i] for i in gone):
        raise Refusal("an axis that is 1 in the example alone is taken away",
                      "squeeze axes that are always 1, by their number")
    stay = [i for i in range(n) if i not in gone]
    return value.arranged([value.axes[i] for i in stay], [value.sizes[i] for i in stay])


@reads("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints",
       "aten.unflatten.int",
       "aten._reshape_alias.default", "aten.view_as.default", "aten.reshape_as.default")
def view(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same elements in the same order: axes are joined, taken apart where they were joined, or of size 1."""
    value = args[0]
    if isinstance(value, Zeros):
        return value
    new = tuple(node.meta["val"].shape)
    if value.features_last and new[-1] != value.sizes[-1] and value.sizes[-1] and new[-1] % value.sizes[-1] == 0:
        return stacked(r, value, new)
    sizes = dict(_sizes(r, value))
    atoms: list[str] = [a for axis in value.axes for a in axis]
    axes: list[Axis] = []
    for size in new:
        axis: list[str] = []
        while math.prod(sizes[a] for a in axis) != size:
            if not atoms or math.prod(sizes[a] for a in axis) > size:
                raise Refusal(f"an axis is cut at {size} across what it is made of",
                              "join or take apart whole axes: time, batch, features")
            axis.append(atoms.pop(0))
        axes.append(tuple(axis))
    while atoms and sizes[atoms[0]] == 1 and axes:
        axes[-1] = (*axes[-1], atoms.pop(0))
    if atoms or any(FEATURES in a and len(a) > 1 for a in axes):
        raise Refusal("features are joined with time or batch", "keep the features an axis of their own")
    return value.arranged(axes, new)


def _sizes(r: Reading, value: Sequence) -> list[tuple[str, int]]:
    """The size of each of the user's axes in a value."""
    out = [(FEATURES, value.width)] if (FEATURES,) in value.axes else []
    for axis, size in zip(value.axes, value.sizes, strict=True):
        if len(axis) == 1:
            out.append((axis[0], size))
    known = dict(out) | {a: n for a, n in r.axes.sizes.items() if a not in dict(out)}
    for name, example in r.exported.inputs.values():
        known |= {f"{name}.{i}": n for i, n in enumerate(example.shape) if f"{name}.{i}" not in known}
    return list(known.items())


def stacked(r: Reading, value: Sequence, new: tuple[int, ...]) -> Sequence:
    """Consecutive frames side by side: [B, T, C] viewed as [B, T / k, k C]."""
    k = new[-1] // value.sizes[-1]
    like = len(new) == len(value.axes) >= 2 and new[:-2] == value.sizes[:-2] and new[-2] * k == value.sizes[-2]
    if not like:
        raise Refusal("features are joined with other axes",
                      "join consecutive frames by a view of [B, T, C] as [B, T / k, k C]")
    axis, = value.axes[-2] or ("",)
    if not axis or not r.axes.mark(axis, "time"):
        raise Refusal("features of several sequences are joined", "frames are stacked along time")
    width, path = k * value.sizes[-1], r.path(own=False)
    r.layer(path, "stack", [value], width, frames=k)
    joint = r.axes.shorter(f"{axis}/{k}", new[-2])
    r.notes.append(f"`{path}` joins {k} frames: a step takes so many, a rest shorter than that is dropped")
    return evolve(value, name=path, axes=(*value.axes[:-2], (joint,), (FEATURES,)), sizes=tuple(new))


@reads("aten.expand.default")
def expand(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(args[0], Zeros):
        return args[0]
    new = tuple(node.meta["val"].shape)
    if new == args[0].sizes:
        return args[0]
    if r.crossed and len(new) == len(args[0].axes) and all(n == m or not a for n, m, a in zip(
            new, args[0].sizes, args[0].axes, strict=True)):
        return args[0].arranged(args[0].axes, new)                  # repeated where it has no axis of its own
    raise Refusal("a value is repeated along an axis", "values that are combined have the same time and batch")


@reads("aten.select.int")
def select(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``y[-1]`` along time: the last step."""
    value, at, index = args
    if isinstance(value, Zeros):
        return value
    at %= len(value.axes)
    size, axis = value.sizes[at], value.axes[at]
    if not axis:
        return value.arranged([a for i, a in enumerate(value.axes) if i != at],
                              [s for i, s in enumerate(value.sizes) if i != at])
    if len(axis) != 1 or axis == (FEATURES,) or index not in (-1, size - 1):
        raise Refusal("one element of an axis is taken out", "only the last step in time can be: `y[-1]`")
    if not r.axes.mark(axis[0], "time"):
        raise Refusal("one utterance of the batch is taken out", "only the last step in time can be: `y[-1]`")
    rest = [i for i in range(len(value.axes)) if i != at]
    return evolve(value, axes=tuple(value.axes[i] for i in rest), sizes=tuple(value.sizes[i] for i in rest), last=True)


@reads("aten.slice.Tensor")
def cut(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A slice that takes all is none, and one that takes off what a convolution made behind the last frame."""
    if isinstance(args[0], Zeros):
        return args[0]
    new = tuple(node.meta["val"].shape)
    value, at = args[0], (args[1] if len(args) > 1 else 0) % len(new)
    if isinstance(value, Sequence) and value.behind and (args[2] if len(args) > 2 else 0) in (0, None) and (
            value.sizes[at] - new[at] == value.behind) and r.axes.role(value.axes[at][0]) == "time":
        return evolve(value, sizes=new, behind=0)
    if isinstance(value, Sequence) and new == value.sizes:
        return value
    first = (args[2] if len(args) > 2 else 0) or 0
    if isinstance(value, Sequence) and value.axes[at] == (FEATURES,):
        return part(r, value, first % value.sizes[at], new[at], args[4] if len(args) > 4 else 1)
    raise Refusal("a part of an axis is taken", "parts of the features alone")


@reads("aten.unbind.int")
def unbind(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """For a loop alone (`nnac.capture.loops`)."""
    raise Refusal("`unbind` takes a value apart frame by frame, otherwise than for a loop that does the same with each",
                  "`for frame in x`, a step that reads its own frame and what the one before left, `torch.stack(out)`")
