"""Linear layers, embeddings, norms, sums, products, tables, and what is left out: dropout."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import fx

from nnac.capture.readers.fixed import affine, repeated
from nnac.capture.readers.join import product_of_parts
from nnac.capture.readers.moments import SQUARE, Moment
from nnac.capture.reading import Reading, Refusal, reads, site_path
from nnac.capture.values import FEATURES, Joined, Ordered, Parts, Sequence, Weights, Zeros
from nnac.model.graph import Kernel
from nnac.ops.hardtanh import Hardtanh


def features_last(value: Any, what: str) -> None:
    """Refusal unless it is a value of the model whose last axis are the features."""
    if not isinstance(value, Sequence):
        raise Refusal(f"{what} goes over something that is no value of the model")
    if not value.features_last:
        raise Refusal(f"{what} goes along another axis than the features",
                      "bring the features to the end, with `transpose` or `permute`")


@reads("aten.linear.default")
def linear(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, weight, bias = (*args, None, None)[:3]
    return product(r, value, weight, bias)


@reads("aten.matmul.default", "aten.mm.default", "aten.bmm.default")
def matmul(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, weight = args
    if not isinstance(value, (Sequence, Joined, Ordered)) or not isinstance(weight, Weights) or weight.value.ndim != 2:
        raise Refusal("two values of the model are multiplied as matrices",
                      "matrix products are with weights: `nn.Linear`")
    return product(r, value, weight.turned, None)


@reads("aten.addmm.default")
def addmm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    bias, value, weight = args
    if not isinstance(value, (Sequence, Joined, Ordered)) or not isinstance(weight, Weights) or not isinstance(
            bias, Weights) or kwargs:
        raise Refusal("two values of the model are multiplied as matrices",
                      "matrix products are with weights: `nn.Linear`")
    return product(r, value, weight.turned, bias)


def product(r: Reading, value: Any, weight: Any, bias: Any) -> Sequence:
    if not isinstance(value, (Sequence, Joined, Ordered)) or not isinstance(weight, Weights) or not (
            bias is None or isinstance(bias, Weights)):
        raise Refusal("the weights of a product are values of the model",
                      "matrix products are with weights: `nn.Linear`")
    if isinstance(value, Ordered):                     # the columns in the order of its elements
        value, weight = value.source, weight[:, value.order.argsort()]
    for v in value.parts if isinstance(value, Joined) else (value,):
        features_last(v, "a linear layer")
    rows, cols = weight.value.shape
    own = weight.name.rpartition(".")[0]
    path = r.fresh(site_path(own)) if own else r.path()
    if isinstance(value, Joined):
        return product_of_parts(r, value, path, weight, bias)
    r.give(path, {"weight": weight, "bias": bias})
    return r.layer(path, "linear", [value], rows, (Kernel("weight", f"{path}.weight", rows, cols),),
                   bias=bias is not None)


@reads("aten.embedding.default")
def embedding(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    table, labels = args[:2]
    if not isinstance(table, Weights) or not isinstance(labels,
        Sequence) or labels.name not in r.inputs or r.inputs[labels.name] != 1:
        raise Refusal("an embedding reads something that is not an input of the model", "labels are inputs")
    rows, width = table.value.shape
    own = table.name.rpartition(".")[0]
    path = r.fresh(site_path(own)) if own else r.path()
    r.give(path, {"weight": table})
    with_features = labels.arranged((*labels.axes, (FEATURES,)), (*labels.sizes, width))
    return r.layer(path, "embedding", [with_features], width, (Kernel("weight", f"{path}.weight", rows, width),))


@reads("aten.layer_norm.default")
def layer_norm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, shape, gain, bias, epsilon = (*args, None, None, 1e-5)[:5] if len(args) < 5 else args[:5]
    features_last(value, "layer norm")
    if len(shape) != 1:
        raise Refusal(f"layer norm over {len(shape)} axes", "normalise the features alone")
    width = value.sizes[-1]
    path = r.path()
    ones, zeros = torch.ones(width), torch.zeros(width)
    r.give(path, {"weight": ones if gain is None else gain, "bias": zeros if bias is None else bias})
    return r.layer(path, "layer_norm", [value], width, epsilon=epsilon)


@reads("aten.rms_norm.default")
def rms_norm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, shape, gain, epsilon = (*args, None, None)[:4]
    features_last(value, "a norm")
    if len(shape) != 1:
        raise Refusal(f"a norm over {len(shape)} axes", "normalise the features alone")
    width, path = value.sizes[-1], r.path()
    r.give(path, {"weight": torch.ones(width) if gain is None else gain})
    return r.layer(path, "rms_norm", [value], width,
                   epsilon=torch.finfo(torch.float32).eps if epsilon is None else epsilon)


@reads("aten.native_layer_norm.default")
def native_layer_norm(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    return Parts((layer_norm(r, node, args, kwargs), None, None))


def total(r: Reading, a: Any, b: Any) -> Any:
    """A sum of two values of the model."""
    if isinstance(a, Zeros) or isinstance(b, Zeros):
        return b if isinstance(a, Zeros) else a
    for x, y in ((a, b), (b, a)):
        if isinstance(y, (int, float, Weights)):
            return affine(r, x, torch.tensor(1.0), y if isinstance(y, Weights) else torch.tensor(float(y)), "added to")
    return combined(r, "add", a, b)


def times(r: Reading, a: Any, b: Any) -> Any:
    """A product of two values of the model, or of one and a number."""
    if isinstance(a, Zeros) or isinstance(b, Zeros):
        return Zeros()
    for x, y in ((a, b), (b, a)):
        if isinstance(x, (int, float)):
            return scaled(r, y, float(x))
        if isinstance(x, Weights):
            return affine(r, y, x, None, "multiplied with")
    return combined(r, "multiply", a, b)


def combined(r: Reading, kind: str, a: Any, b: Any) -> Any:
    """An operator of two values of the model, element by element."""
    features_last(a, f"to {kind}")
    features_last(b, f"to {kind}")
    if 1 in (a.sizes[-1], b.sizes[-1]) and a.sizes[-1] != b.sizes[-1]:
        width = max(a.sizes[-1], b.sizes[-1])
        a, b = (repeated(r, v, width) if v.sizes[-1] == 1 else v for v in (a, b))
    if a.sizes[-1] != b.sizes[-1]:
        raise Refusal(f"a vector of {min(a.sizes[-1], b.sizes[-1])} is repeated along one of "
                      f"{max(a.sizes[-1], b.sizes[-1])}",
                      "both values have the same width")
    return r.layer(r.path(own=False), kind, [a, b], a.sizes[-1])


@reads("aten.add.Tensor", "aten.add_.Tensor")
def add(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a, b = args[:2]
    if (alpha := kwargs.get("alpha", 1)) != 1 and isinstance(b, Sequence):
        b = scaled(r, b, float(alpha))
    return total(r, a, b)


@reads("aten.mul.Tensor", "aten.mul_.Tensor")
def mul(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for x, y in (args, args[::-1]):
        if isinstance(y, (int, float)) and y == 1:
            return x
    if isinstance(args[0], Sequence) and args[0] == args[1]:
        return Moment(SQUARE, args[0], node)                        # a product, unless a norm takes the mean of it
    return times(r, *args)


def scaled(r: Reading, value: Any, factor: float) -> Any:
    """A value times a number."""
    if isinstance(value, Zeros) or factor == 1:
        return value
    if not isinstance(value, Sequence):
        raise Refusal(f"a number ({factor:g}) times something that is no value of the model")
    if factor < 0:
        return affine(r, value, torch.tensor(factor), None, "a negative number times")
    if not 0 < factor < 1e6:
        raise Refusal(f"a value times {factor:g}: factors are between 0 and a million")
    width = value.width
    return r.layer(r.path(own=False), "scale", [value], width, factor=factor)


@reads("aten.div.Tensor", "aten.div_.Tensor")
def div(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, by = args
    if not isinstance(by, (int, float)) or by == 0:
        raise Refusal("a value divided by another value", "only numbers divide")
    return scaled(r, value, 1 / by)


def table(r: Reading, kind: str, value: Any, **attributes: Any) -> Sequence:
    """A tabulated function.  It reads int16 in Q3.12: that of a value which something makes for it alone."""
    if not isinstance(value, Sequence):
        raise Refusal(f"`{kind}` of something that is no value of the model")
    return r.layer(r.path(), kind, [value], value.width, **attributes)


@reads("aten.relu.default", "aten.relu_.default", "aten.leaky_relu.default", "aten.leaky_relu_.default",
       "aten.relu6.default", "aten.relu6_.default", "aten.hardtanh.default", "aten.hardtanh_.default",
       "aten.clamp.default", "aten.clamp_.default", "aten.clamp_min.default")
def relu(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """ReLU, leaky or with a cap, under each of its names; and what has two limits that are alike."""
    value, name = args[0], str(node.target).split(".")[1].rstrip("_")
    if not isinstance(value, Sequence):
        raise Refusal(f"`{name}` of something that is no value of the model")
    slope, cap = 0.0, 0.0
    low: float | None = 0.0
    if name == "leaky_relu":
        slope = args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)
    elif name in ("relu6", "hardtanh"):
        low, cap = (0.0, 6.0) if name == "relu6" else (args[1:3] if len(args) > 2 else (-1.0, 1.0))
    elif name in ("clamp", "clamp_min"):
        low = args[1] if len(args) > 1 else kwargs.get("min")
        top = args[2] if len(args) > 2 else kwargs.get("max")
        if top == 0:
            raise Refusal(f"`{name}` up to 0", "`-F.relu(-x)`")
        cap = top or 0.0
    width, most = value.width, Hardtanh.most
    if low is not None and low == -cap and Hardtanh.least <= cap <= most:
        return r.layer(r.path(), "hardtanh", [value], width, cap=float(cap))
    if low != 0.0 or cap < 0.0:
        raise Refusal(f"`{name}` from {low:g} to {cap:g}" if low is not None else f"`{name}` without a lower end",
                      f"limits begin at 0, as of `F.relu6`, or are alike, up to {most:g}, as of `F.hardtanh`")
    if not 0.0 <= slope <= 1.0:
        raise Refusal(f"a leaky ReLU of slope {slope:g}", "slopes are from 0 to 1")
    return r.layer(r.path(), "relu", [value], width, slope=float(slope), cap=float(cap))


@reads("aten.silu.default", "aten.silu_.default")
def silu(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``x sigmoid(x)``, in one."""
    return table(r, "swish", args[0])


@reads("aten.gelu.default", "aten.gelu_.default")
def gelu(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = kwargs.get("approximate", "none")
    return table(r, "gelu", args[0], approximate=made == "tanh")


@reads("aten.hardsigmoid.default", "aten.hardsigmoid_.default")
def hardsigmoid(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return table(r, "hard_sigmoid", args[0])


@reads("aten.hardswish.default", "aten.hardswish_.default")
def hardswish(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return table(r, "hard_swish", args[0])


@reads("aten.glu.default")
def glu(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    """The first half of the features, weighed by the sigmoid of the second."""
    value, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", -1)
    if not isinstance(value, Sequence) or value.axes[dim % len(value.axes)] != (FEATURES,):
        raise Refusal("a gated linear unit splits another axis than the features", "`dim=-1`, with the features last")
    features_last(value, "a gated linear unit")
    return r.layer(r.path(), "glu", [value], value.sizes[-1] // 2)


@reads("aten.softmax.int", "aten._softmax.default")
def softmax(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, dim = args[:2]
    if not isinstance(value, Sequence) or value.axes[dim % len(value.axes)] != (FEATURES,):
        raise Refusal("softmax goes along another axis than the features", "`dim=-1`, with the features last")
    features_last(value, "softmax")
    return r.layer(r.path(), "softmax", [value], value.sizes[-1])


@reads("aten.tanh.default", "aten.tanh_.default")
def tanh(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    return table(r, "tanh", args[0])


@reads("aten.sigmoid.default", "aten.sigmoid_.default")
def sigmoid(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    return table(r, "sigmoid", args[0])


@reads("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence:
    value, dim = args[:2]
    features_last(value, "log-softmax")
    if dim % len(value.axes) != len(value.axes) - 1:
        raise Refusal("log-softmax goes along another axis than the features", "`dim=-1`, with the features last")
    return r.layer(r.path(), "log_softmax", [value], value.sizes[-1])


@reads("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default", "aten.native_dropout.default")
def dropout(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Acts in training alone; kept on the way from the value to what reads it."""
    value, p = args[:2]
    if isinstance(value, Joined):
        return Joined(tuple(evolve(v, keeps=v.keeps * (1 - p)) for v in value.parts))
    kept = evolve(value, keeps=value.keeps * (1 - p)) if isinstance(value, Sequence) else value
    return Parts((kept, None)) if "native" in str(node.target) else kept


@reads("aten.zeros.default", "aten.new_zeros.default", "aten.zeros_like.default")
def zeros(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Zeros:
    return Zeros()


@reads("aten.full.default", "aten.full_like.default", "aten.new_full.default")
def full(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Zeros:
    if args[1 if "new" not in str(node.target) else 2] != 0:
        raise Refusal("a constant is not a value yet", "only zeros, as the state that a sequence starts from")
    return Zeros()
