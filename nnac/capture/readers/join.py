"""Values side by side: read one by one by a product, else refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from nnac.capture.reading import Reading, Refusal, reads
from nnac.capture.values import FEATURES, Joined, Sequence, Weights, Zeros
from nnac.model.graph import Kernel


@reads("aten.cat.default", "aten.concat.default")
def cat(r: Reading, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Vectors side by side; parts of no elements are none."""
    given: Any = node.args[0]
    parts = [v for v, n in zip(args[0], given, strict=True) if n.meta["val"].numel()]
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(v, Zeros) for v in parts):
        return Zeros()
    flat = [s for v in parts for s in (v.parts if isinstance(v, Joined) else [v])]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % node.meta["val"].ndim
    for s in flat:
        if not isinstance(s, Sequence) or s.axes[dim] != (FEATURES,):
            raise Refusal("values are joined along another axis than the features, or with constants",
                          "`torch.cat([…], -1)` of values of the model")
    r.aligned(flat)
    return Joined(tuple(flat))


def joined(r: Reading, value: Joined) -> Any:
    """The parts as one value: each in its place, and their sum."""
    width = sum(p.width for p in value.parts)
    path = r.untaken(f"{r.path(own=False)}_joined")
    r.notes.append(f"`{path}`: values side by side, each put in its place by a matrix that is not trained")
    return product_of_parts(r, value, path, torch.eye(width), None)


def product_of_parts(r: Reading, value: Joined, path: str, weight: Weights | torch.Tensor,
                     bias: Weights | None) -> Sequence:
    """A matrix, the model's or a fixed one, times values side by side: the sum of its columns' products."""
    rows, at = len(weight.value if isinstance(weight, Weights) else weight), 0
    out: Sequence | None = None
    for i, part in enumerate(value.parts):
        width = part.width
        own = f"{path}.part[{i}]"
        r.give(own, {"weight": weight[:, at: at + width], "bias": None if i else bias})
        y = r.layer(own, "linear", [part], rows, (Kernel("weight", f"{own}.weight", rows, width),),
                    bias=i == 0 and bias is not None)
        out = y if out is None else r.layer(f"{path}.sum[{i - 1}]", "add", [out, y], rows)
        at += width
    assert out is not None
    return out
