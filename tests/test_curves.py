"""Functions of one value, by table, and the RMS norm: the integers of `nnac.ops`, near the real function, with its
gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from torch.nn import functional as F

from nnac.formats import PRE, Precision
from nnac.lower import lower
from nnac.ops import operator
from nnac.train.format import Format
from nnac.train.ops import layer_of
from tests.test_ops import model

CURVES = {
    "gelu": ("gelu", dict(approximate=False), F.gelu), "tanh_gelu": ("gelu", dict(approximate=True),
                                                                     lambda x: F.gelu(x, approximate="tanh")),
    "hard_sigmoid": ("hard_sigmoid", {}, F.hardsigmoid), "hard_swish": ("hard_swish", {}, F.hardswish),
    "hardtanh": ("hardtanh", dict(cap=1.0), F.hardtanh), "hardtanh_3": ("hardtanh", dict(cap=3.0),
                                                                        lambda x: F.hardtanh(x, -3, 3)),
    "swish": ("swish", {}, F.silu), "tanh": ("tanh", {}, torch.tanh), "sigmoid": ("sigmoid", {}, torch.sigmoid)}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_the_real_function_to_a_unit_and_the_training_layer_computes_its_integers_with_its_slope(name, bits):
    kind, attributes, real = CURVES[name]
    graph = lower(model(kind), lambda path: Precision(activations=bits))
    node = graph.by_path[kind]
    node = evolve(node, attributes=evolve(node.attributes, **attributes)) if attributes else node
    given = Format(PRE.scale, 0, 16)
    out = Format(attributes.get("cap", 8.0 if "swish" in name or "gelu" in name else 1.0) / (2 ** (bits - 1) - 1), 0,
                 bits)
    layer = layer_of(kind)(node, graph)
    x = torch.arange(-32768, 32768).float().view(64, 128, 8).requires_grad_()
    y = layer.integers([x], [given], out, {}, None)
    graph = evolve(graph, values={**graph.values, kind: evolve(graph.values[kind], scale=out.scale)})
    constants = {k: np.asarray(v).astype(np.int64) for k, v in layer.constants([given], out).bound().items()}
    want = operator(kind).integers(node, graph, [x.detach().long().numpy()], {}, constants)
    assert np.array_equal(y.detach().long().numpy(), want)
    exact = (x.detach().double() * PRE.scale).requires_grad_()
    made = real(exact)
    off = (y.detach() - made.detach() / out.scale).abs()
    assert off.max() < (0.6 if bits == 8 else 4), "one unit of the output at most, and the table's own error"
    y.sum().backward()
    made.sum().backward()
    inside = (y.detach() > out.limits[0]) & (y.detach() < out.limits[1])
    difference = (x.grad * out.scale / PRE.scale - exact.grad).abs()
    smooth = (exact.detach().abs() - attributes.get("cap", 3)).abs() > 0.01
    assert difference[inside & smooth].max() < 0.02


@pytest.mark.parametrize("bits", [8, 16])
def test_an_rms_norm_is_the_real_one_to_a_unit_with_its_gradients(bits):
    torch.manual_seed(bits)
    graph = lower(model("rms_norm"), lambda path: Precision(activations=bits))
    layer = layer_of("rms_norm")(graph.by_path["rms_norm"], graph)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 1.5)
    given, out = Format(0.02, 0, 8), Format(5.0 / (2 ** (bits - 1) - 1), 0, bits)
    x = torch.randint(-128, 128, (20, 5, 8)).float().requires_grad_()
    y = layer.integers([x], [given], out, {}, None)
    exact = (x.detach() * given.scale).requires_grad_()
    gain = layer.weight.detach().clone().requires_grad_()
    made = F.rms_norm(exact, (8,), gain, layer.epsilon)
    assert (y.detach() - made.detach() / out.scale).abs().max() < (0.7 if bits == 8 else 8)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    (made * weights).sum().backward()
    assert torch.allclose(x.grad * out.scale / given.scale, exact.grad, atol=1e-3)
    assert torch.allclose(layer.weight.grad * out.scale, gain.grad, atol=1e-3)
