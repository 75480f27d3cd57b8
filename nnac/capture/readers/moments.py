"""Norms that a forward writes out: means and powers of the features on their way to `layer_norm` and `rms_norm`.

A mean, a difference from it, a square, the root of a mean of squares are no values of the machine by themselves; they
wait (`Moment`) until a quotient makes a norm of them.  What else reads a mean or a difference from it has a fixed
matrix; what else reads a square, a product.  A variance by itself is refused.  Means over time are no moments
(`nnac.capture.readers.pooling`), but for a sum over time on its way to one.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import define, evolve, field
from torch import fx

from nnac.capture.readers.fixed import selected, shuffled
from nnac.capture.readers.pooling import by_length, over_time
from nnac.capture.reading import Reading, Refusal, bare, reads
from nnac.capture.values import FEATURES, Sequence, Weights

MEAN, CENTRED, SQUARE, POWER, ROOT, INVERSE, NORMED, TOTAL = ("mean", "centred", "square", "power", "root", "inverse",
                                                              "normed", "total")
# ATen call -> what it does
CALLS = {"aten.sub.Tensor": "sub", "aten.add.Tensor": "add", "aten.add_.Tensor": "add", "aten.mul.Tensor": "mul",
         "aten.mul_.Tensor": "mul", "aten.div.Tensor": "div", "aten.div_.Tensor": "div",
         "aten.pow.Tensor_Scalar": "pow", "aten.square.default": "pow", "aten.sqrt.default": "sqrt",
         "aten.rsqrt.default": "rsqrt", "aten.reciprocal.default": "reciprocal", "aten.mean.dim": "mean"}


@define(eq=False)
class Moment:
    """Something on its way to a norm.

    kind     MEAN over the features, CENTRED: less their mean, SQUARE, POWER: a mean of squares with ``epsilon`` added,
             ROOT of it, INVERSE of that root, NORMED; TOTAL: a sum along an axis
    value    of which      centred  whether of its difference from its mean
    node     the call that makes it      axis, keeps   of a TOTAL: along which, and whether it stays as an axis of one
    """

    kind: str
    value: Sequence
    node: fx.Node
    centred: bool = False
    epsilon: float = 0.0
    gain: Weights | None = None
    bias: Weights | None = None
    axis: int = 0
    keeps: bool = False
    made: Sequence | None = field(default=None, init=False)

    def of(self, value: Any, *kinds: str) -> bool:
        """Whether it is of one of these kinds and of that value."""
        return self.kind in kinds and isinstance(value, Sequence) and (value.name, value.axes) == (
            self.value.name, self.value.axes)

    def whole(self, r: Reading) -> Sequence:
        """As a value of the graph.  Refusal: there is no such operator."""
        if self.made is None:
            r.node, reader = self.node, r.node
            try:
                self.made = self._whole(r)
            finally:
                r.node = reader
        return self.made

    def _whole(self, r: Reading) -> Sequence:
        width = self.value.width
        if self.kind == MEAN:
            return selected(r, self.value, torch.full((1, width), 1 / width), "a mean of the features is taken")
        if self.kind == CENTRED:
            return selected(r, self.value, torch.eye(width) - 1 / width, "the mean of the features is taken off")
        if self.kind == SQUARE:
            source = Moment(CENTRED, self.value, self.node).whole(r) if self.centred else self.value
            return r.layer(r.path(own=False), "multiply", [source, source], width)
        if self.kind == NORMED:
            ones, zeros = torch.ones(width), torch.zeros(width)
            path = r.path(own=False)
            kind = "layer_norm" if self.centred else "rms_norm"
            given: dict[str, Any] = {"weight": ones if self.gain is None else self.gain}
            if self.centred:
                given["bias"] = zeros if self.bias is None else self.bias
            r.give(path, given)
            return r.layer(path, kind, [self.value], width, epsilon=self.epsilon)
        if self.kind == TOTAL:
            raise Refusal("a sum over time that is not divided by its length",
                          "`x.mean(1)`, or `x.sum(1) / x.shape[1]`")
        raise Refusal("a mean of squares, or the root of one, is read by something else than a norm",
                      "`(x - mean) / sqrt(var + eps)`, `nn.LayerNorm`, or `x / sqrt((x ** 2).mean(-1) + eps)`")


def waiting(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call makes of a moment while it is one; None where it is read as a value."""
    does = CALLS.get(str(node.target))
    if does is None or not args:
        return None
    a, b = args[0], args[1] if len(args) > 1 else None
    if does == "mean":
        return _mean(node, args, kwargs) if isinstance(a, Moment) else None
    if does in ("add", "mul") and not isinstance(a, Moment):
        a, b = b, a
    if does == "sub":
        alpha = kwargs.get("alpha", 1)
        return Moment(CENTRED, a, node, True) if isinstance(b, Moment) and b.of(a, MEAN) and alpha == 1 else None
    if isinstance(a, Moment) and a.kind == TOTAL and does in ("div", "mul") and isinstance(b, (int, float)) and b:
        return by_length(r, a.value, a.axis, float(b) if does == "div" else 1 / b, keeps=a.keeps)
    if does == "div":
        return _normed(node, a, b) if isinstance(b, Moment) and b.kind == ROOT else None
    if not isinstance(a, Moment):
        return None
    number = _number(b)
    if does == "pow":
        power = 2 if "square" in str(node.target) else number
        if a.kind == CENTRED and power == 2:
            return Moment(SQUARE, a.value, node, True)
        if a.kind == POWER and power in (0.5, -0.5):
            return evolve(a, kind=ROOT if power > 0 else INVERSE, node=node)
        return None
    if does in ("sqrt", "rsqrt") and a.kind == POWER:
        return evolve(a, kind=ROOT if does == "sqrt" else INVERSE, node=node)
    if does == "reciprocal" and a.kind == ROOT:
        return evolve(a, kind=INVERSE, node=node)
    if does == "add":
        if a.kind == POWER and number is not None and number >= 0 and kwargs.get("alpha", 1) == 1:
            if isinstance(b, Weights):
                r.notes.append(f"{', '.join(f'`{n}`' for n in b.sources)}: what a norm adds to its mean of squares "
                               "stays as it is")
            return evolve(a, epsilon=a.epsilon + number, node=node)
        if a.kind == NORMED and a.centred and a.bias is None and _vector(b, a):
            return evolve(a, bias=b, node=node)
        return None
    if does == "mul":
        if isinstance(a, Moment) and isinstance(b, Moment) and a.kind == b.kind == CENTRED and b.of(a.value, CENTRED):
            return Moment(SQUARE, a.value, node, True)
        for x, y in ((a, b), (b, a)):
            if isinstance(y, Moment) and y.kind == INVERSE:
                return _normed(node, x, y)
        if a.kind == NORMED and a.gain is None and a.bias is None and _vector(b, a):
            return evolve(a, gain=b, node=node)
    return None


def _vector(b: Any, a: Moment) -> bool:
    return isinstance(b, Weights) and b.value.shape == (a.value.sizes[-1],)


def _number(b: Any) -> float | None:
    """A number, or a parameter of one element, as it is."""
    if isinstance(b, Weights) and b.value.numel() == 1:
        return float(bare(b))
    return float(b) if isinstance(b, (int, float)) else None


def _normed(node: fx.Node, x: Any, by: Moment) -> Moment | None:
    """A value over a root of its mean of squares: a norm; None where they are of different values."""
    if by.centred and isinstance(x, Moment) and x.of(by.value, CENTRED):
        return Moment(NORMED, by.value, node, True, by.epsilon)
    if not by.centred and by.of(x, by.kind):
        return Moment(NORMED, by.value, node, False, by.epsilon)
    return None


def _dims(value: Sequence, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[int], bool]:
    """(the axes that a call goes along, whether it keeps them as axes of one)."""
    dims, keeps = args[1] if len(args) > 1 else kwargs.get("dim"), args[2] if len(args) > 2 else kwargs.get("keepdim")
    return [d % len(value.axes) for d in ([dims] if isinstance(dims, int) else dims or ())], bool(keeps)


def _axes(value: Sequence, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a mean goes over the features, which are last, and keeps them as an axis of one."""
    dims, keeps = _dims(value, args, kwargs)
    if not value.features_last or dims != [len(value.axes) - 1]:
        return False
    if not keeps:
        raise Refusal("a mean of the features leaves no features", "`mean(-1, keepdim=True)`")
    return True


def _mean(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Moment | None:
    a = args[0]
    if isinstance(a, Moment):
        return Moment(POWER, a.value, node, a.centred) if a.kind == SQUARE and _axes(a.value, node, args,
                                                                                     kwargs) else None
    return Moment(MEAN, a, node)


@reads("aten.mean.dim")
def mean(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Over the features, or over time."""
    value = args[0]
    if not isinstance(value, Sequence):
        raise Refusal("a mean of something that is no value of the model")
    if _axes(value, node, args, kwargs):
        return _mean(node, args, kwargs)
    dims, keeps = _dims(value, args, kwargs)
    if len(dims) == 2 and keeps and value.features_last and len(value.axes) - 1 in dims:          # of both
        value, dims = Moment(MEAN, value, node).whole(r), [d for d in dims if d != len(value.axes) - 1]
    if len(dims) != 1:
        raise Refusal(f"a mean over {len(dims) or 'all'} axes", "one axis at a time: over time, or over the features")
    return over_time(r, value, dims[0], keeps=keeps)


@reads("aten.sum.dim_IntList")
def total(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Over the features; over time, on its way to a mean."""
    value = args[0]
    if isinstance(value, Sequence):
        dims, keeps = _dims(value, args, kwargs)
        if len(dims) == 1 and value.axes[dims[0]] != (FEATURES,):
            return Moment(TOTAL, value, node, axis=dims[0], keeps=keeps)
    return shuffled(r, node, args, kwargs)


@reads("aten.pow.Tensor_Scalar", "aten.square.default")
def power(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, exponent = args[0], args[1] if len(args) > 1 else 2
    if not isinstance(value, Sequence) or exponent != 2 or not value.features_last:
        raise Refusal(f"a power of {exponent}", "squares alone: `x ** 2`")
    return Moment(SQUARE, value, node)


@reads("aten.sqrt.default", "aten.rsqrt.default", "aten.reciprocal.default")
def root(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise Refusal("a root, or one over a value", "only norms have them: the root of a mean of squares of the features")


@reads("aten.var.correction", "aten.var.dim")
def variance(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    biased = kwargs.get("correction", 1) == 0 if "correction" in str(node.target) else not args[2]
    keeps = kwargs.get("keepdim", args[3] if len(args) > 3 else False)
    if not biased:
        raise Refusal("a variance with Bessel's correction", "`var(-1, keepdim=True, unbiased=False)`")
    if not isinstance(value, Sequence) or not _axes(value, node, (value, dims, keeps), {}):
        raise Refusal("a variance over time, or over utterances", "norms are over the features")
    return Moment(POWER, value, node, True)
