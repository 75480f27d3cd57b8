"""What a matrix that nobody trains can say: a number or a vector times a value, added to it, parts of vectors, vectors
side by side, one that is repeated; and batch norm with its statistics."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import Tensor, fx

from nnac.capture.reading import Reading, Refusal, reads
from nnac.capture.values import FEATURES, Sequence, Weights, Zeros
from nnac.model.graph import Kernel


def selected(r: Reading, value: Sequence, matrix: Tensor, why: str) -> Sequence:
    """A fixed matrix [rows, features] times a value."""
    path, (rows, columns) = r.path(own=False), matrix.shape
    r.give(path, {"weight": matrix})
    r.notes.append(f"`{path}`: {why} by a matrix of {rows} x {columns} that is not trained")
    return r.layer(path, "linear", [value], rows, (Kernel("weight", f"{path}.weight", rows, columns),), bias=False)


def affine(r: Reading, value: Any, weight: Weights | Tensor, bias: Weights | Tensor | None, why: str) -> Sequence:
    """Each feature times its own number, and another one added: a matrix with nothing beside its diagonal.

    weight, bias   of one element, or one for each feature
    """
    if not isinstance(value, Sequence):
        raise Refusal(f"{why} something that is no value of the model")
    width = value.width
    vectors = [p.value if isinstance(p, Weights) else p for p in (weight, bias) if p is not None]
    if not value.features_last and any(v.numel() > 1 for v in vectors) and not why.startswith("batch"):
        raise Refusal(f"{why} a parameter along another axis than the features", "bring the features to the end")
    path = r.path(own=False)
    w = weight.value if isinstance(weight, Weights) else weight
    if w.numel() not in (1, width) or (w.ndim > 1 and w.shape[-1] != w.numel()):
        raise Refusal(f"{why} a parameter of {list(w.shape)}", f"one number, or {width}: one for each feature")
    index = torch.full((width, width), -1)
    index.diagonal().copy_(torch.arange(width))
    dense = torch.diag(w.flatten().expand(width))
    given: dict[str, Weights | Tensor | None] = {"weight": dense.detach(), "bias": None}
    if isinstance(weight, Weights):
        given["weight"] = Weights(dense, weight.sources, weight.name if w.numel() == width else "", index)
    if bias is not None:
        b = bias.value if isinstance(bias, Weights) else bias
        if b.numel() not in (1, width) or (b.ndim > 1 and b.shape[-1] != b.numel()):
            raise Refusal(f"{why} a parameter of {list(b.shape)}", f"one number, or {width}: one for each feature")
        flat = b.flatten().expand(width)
        given["bias"] = flat.detach().clone()
        if isinstance(bias, Weights):
            own = bias.name if b.shape == (width,) else ""
            given["bias"] = Weights(flat if own else flat.clone(), bias.sources, own)
    r.give(path, given)
    return r.layer(path, "grouped", [value], width, (Kernel("weight", f"{path}.weight", width, width),), taps=1,
                   groups=width, bias=bias is not None)


def part(r: Reading, value: Sequence, first: int, count: int, step: int = 1) -> Sequence:
    """Some of the features."""
    width = value.width
    return selected(r, value, torch.eye(width)[first:: step][:count], "a part is taken")


def repeated(r: Reading, value: Sequence, width: int) -> Sequence:
    """A vector of one element as one of ``width``."""
    return selected(r, value, torch.ones(width, 1), "one element is repeated")


@reads("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
def batch_norm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """With the statistics that it has: they stay as they are."""
    value, gain, bias, mean, variance, *rest = args
    epsilon = next(v for v in reversed(rest) if isinstance(v, float))
    if not isinstance(value, Sequence) or (FEATURES,) not in value.axes or not isinstance(mean, Weights):
        raise Refusal("batch norm of something that is no value of the model, or without statistics")
    if len(value.axes) > 1 and value.axes[1] != (FEATURES,):
        raise Refusal("batch norm goes along another axis than the features", "`nn.BatchNorm1d` over [B, C, T]")
    with torch.no_grad():
        g = torch.ones_like(mean.value) if gain is None else gain.value
        b = torch.zeros_like(mean.value) if bias is None else bias.value
        w = g / torch.sqrt(variance.value + epsilon)
        made = affine(r, value, w, b - w * mean.value, "batch norm of")
    r.notes.append(f"`{made.name}`: batch norm with the statistics that it has; it is not trained")
    return (made, None, None) if "native" in str(node.target) else made


@reads("aten.sub.Tensor", "aten.sub_.Tensor", "aten.rsub.Scalar", "aten.rsub.Tensor")
def sub(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A difference: the second one's sign is turned, then a sum."""
    from nnac.capture.readers.arithmetic import total

    a, b = args[:2] if "rsub" not in str(node.target) else args[1::-1]
    if kwargs.get("alpha", 1) != 1:
        raise Refusal("a difference of a multiple", "multiply before")
    return total(r, a, negative(r, b))


@reads("aten.neg.default")
def neg(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return negative(r, args[0])


def negative(r: Reading, value: Any) -> Any:
    if isinstance(value, (int, float)):
        return -value
    if isinstance(value, Zeros):
        return value
    if isinstance(value, Weights):
        return evolve(value, value=-value.value, name="")
    return affine(r, value, torch.tensor(-1.0), None, "the sign of")


@reads("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default")
def split(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Parts of the features."""
    from nnac.capture.values import Parts

    value = args[0]
    made = node.meta["val"]
    at = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % made[0].ndim
    if not isinstance(value, Sequence) or value.axes[at] != (FEATURES,):
        raise Refusal("an axis other than the features is taken apart", "`chunk(…, -1)`, with the features last")
    first, out = 0, []
    used = {int(user.args[1]) for user in node.users if len(user.args) > 1 and isinstance(user.args[1], int)}
    for i, piece in enumerate(made):
        out.append(part(r, value, first, piece.shape[at]) if i in used else None)
        first += piece.shape[at]
    return Parts(tuple(out))


@reads("aten.flip.default", "aten.roll.default", "aten.cumsum.default")
def shuffled(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    """Features in another order, or summed: what the call makes of the unit matrix."""
    value, name = args[0], str(node.target).split(".")[1]
    dims = args[2] if name == "roll" and len(args) > 2 else args[1] if len(args) > 1 else kwargs.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    if not isinstance(value, Sequence) or not value.features_last or [d % len(value.axes) for d in dims or ()] != [
            len(value.axes) - 1]:
        raise Refusal(f"`{name}` along another axis than the features", "along the features, which are last")
    if name == "sum" and not (args[2] if len(args) > 2 else kwargs.get("keepdim", False)):
        raise Refusal("a sum of the features leaves no features", "`sum(-1, keepdim=True)`")
    target: Any = node.target
    unit = torch.eye(value.sizes[-1])
    made = target(unit, args[1], [1]) if name == "roll" else target(unit, 1 if name == "cumsum" else [1],
                                                                    *([True] if name == "sum" else []))
    return selected(r, value, made.T.contiguous(), f"`{name}` is done")


@reads("aten.index_select.default", "aten.index.Tensor")
def indexed(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    """Features by a list of their numbers."""
    value = args[0]
    if "select" in str(node.target):
        at, index = args[1] % len(value.axes) if isinstance(value, Sequence) else 0, args[2]
    else:
        given = [(i, x) for i, x in enumerate(args[1]) if x is not None]
        at, index = given[0] if len(given) == 1 else (-1, None)
    if not isinstance(value, Sequence) or not value.features_last or at != len(value.axes) - 1 or not isinstance(
            index, Weights) or index.value.ndim != 1 or index.value.dtype == torch.bool:
        raise Refusal("elements are taken by an index", "features alone, by a list of numbers: `x[..., [2, 0]]`")
    return selected(r, value, torch.eye(value.sizes[-1])[index.value], "features are taken by their numbers")
