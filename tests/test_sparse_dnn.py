"""Sparse networks as models: lint, lower, train, evaluate, compile, emulate, GraphBLAS; all integers equal; ReLU and
cap by saturation."""

import numpy as np
import pytest
import torch

from nnac.emulator.executor import Emulator
from nnac.executors import Subject, executor
from nnac.executors.graphblas import GraphBlas
from nnac.executors.reference import Reference
from nnac.executors.torch import Torch
from nnac.lower import lower_plan
from nnac.model import ModelError, build
from nnac.model.sparse_dnn import weights
from nnac.policy import load, loads
from nnac.schedule.compile import Settings, compile_graph
from nnac.train.module import GraphModule
from tests.test_executors import same_integers

POLICY = """
import "targets/edge.nnac"
policy p {{
  model sparse_dnn(neurons={neurons}, layers={layers})
  target edge
  layers ** {{ weights {weights}; activations {activations} minmax }}
}}
"""


def images(neurons, count, density, seed=0):
    return (np.random.default_rng(seed).random((1, count, neurons)) < density).astype(np.float32)


def made(neurons=64, layers=5, kind="int8 per_channel", activations="int8", bias=-0.3, density=0.5):
    """(plan, calibrated module of the challenge's weights)."""
    plan = loads(POLICY.format(neurons=neurons, layers=layers, weights=kind, activations=activations)).plan
    own = {k: torch.from_numpy(v) for k, v in weights(neurons, layers, bias).items()}
    module = GraphModule(lower_plan(plan), own, plan)
    module.calibrate([torch.from_numpy(images(neurons, 20, density))], lambda x: real(module, x))
    return plan, module.eval()


def real(module, x):
    return module.run("network", dict(image=x), dict(image=False), {}, None)


@pytest.mark.parametrize(("activations", "kind"), [("int8", "int8 per_channel"), ("int16", "int8 per_channel"),
                                                   ("int8", "int4 per_tensor")])
@pytest.mark.parametrize(("neurons", "layers"), [(32, 3), (64, 6), (256, 5)])
def test_every_executor_computes_the_same_integers(neurons, layers, activations, kind):
    pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")
    plan, module = made(neurons, layers, kind, activations)
    graph = module.bind()
    program = compile_graph(graph, plan.target, Settings.of(plan))
    one = Reference(graph)
    assert same_integers(one, Torch(module), graph) > 2_000
    assert same_integers(one, GraphBlas.of(graph, "graphblas"), graph) > 2_000
    assert same_integers(one, Emulator(program), graph, taps=False) > 500
    assert executor("graphblas", Subject(bound=graph)).inputs == graph.inputs


def test_the_relu_and_the_cap_are_the_ends_of_the_format():
    """Real 0 is -128 and real 32 is 127; sums below and above stay there."""
    _, module = made(64, 1, bias=-0.25)
    with torch.no_grad():
        module.layer("network.layer[0]").bias.copy_(torch.linspace(-40, 40, 64))
    graph = module.bind()
    node, = graph.nodes
    out = graph.values[node.output]
    assert (out.zero_point, out.bits) == (-128, 8) and out.scale == pytest.approx(32 / 255)
    y = Reference(graph).run("network", dict(image=np.full((1, 1, 64), graph.values["image"].zero_point)),
                             {})[0][node.output][0, 0]
    expected = np.clip(np.floor(np.linspace(-40, 40, 64) / (32 / 255) + 0.5) - 128, -128, 127)
    assert np.abs(y - expected).max() <= 1 and (y == -128).sum() == 32 and (y == 127).sum() >= 6


def test_real_numbers_are_the_challenges():
    """One definition in float64: bias where there is a sum, 0 and 32 as limits."""
    _, module = made(64, 6)
    x = images(64, 30, 0.4)[0]
    y = x.astype(np.float64)
    for k in range(6):
        z = y @ module.float_state_dict()[f"network.layer.{k}.weight"].numpy().astype(np.float64).T
        y = np.clip(np.where(z != 0, z - 0.3, 0), 0, 32)
    with module.real_numbers(), torch.no_grad():
        got = real(module, torch.from_numpy(x[None]))["network.layer[5]"].numpy()[0]
    assert np.allclose(got, y, atol=1e-4) and got.max() > 0


def test_gradients_pass_where_the_format_does_not_end():
    _, module = made(64, 2)
    x = torch.from_numpy(images(64, 8, 0.5))
    module.train()
    out = real(module, x)["network.layer[1]"]
    out.sum().backward()
    for name, p in module.named_parameters():
        if name.endswith("weight"):
            assert torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, name


def test_the_weights_of_a_model_become_matrices_of_as_many_entries():
    pytest.importorskip("suitesparse_graphblas", reason="the extra `graphblas` is not installed")
    _, module = made(256, 5)
    for _, k in GraphBlas.of(module.bind(), "graphblas").kernels():
        assert k.sparse(np.dtype(np.float32)).turned.count == np.count_nonzero(k.weight) == 256 * 32


def test_the_shipped_policy_is_lowered_and_names_every_layer():
    plan = load("specs/sparse_dnn.nnac").plan
    graph = lower_plan(plan)
    assert len(graph.nodes) == 12 and {n.op for n in graph.nodes} == {"linear_relu"} and plan.graph.weights == 12 << 20


@pytest.mark.parametrize(("arguments", "message"), [(dict(neurons=1000), "a power of two"),
                                                    (dict(layers=0), "1 to 1920"), (dict(neurons=16), "32"),
                                                    (dict(topology="random"), "radix"), (dict(cap=-1), "above 0")],
                         ids=str)
def test_impossible_networks_are_one_line(arguments, message):
    with pytest.raises(ModelError, match=message):
        build("sparse_dnn", **arguments)


def test_a_positive_bias_would_stand_where_no_sum_is():
    with pytest.raises(ModelError, match="at most 0"):
        weights(64, 2, 0.5)
    with pytest.raises(ModelError, match="at most 0"):
        weights(64, 2)
