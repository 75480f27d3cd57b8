"""A deep sparse network as a training module: binary images in, the activations of its last layer out.

    module = SparseDnn(lower(model, precision), weights)
    module.calibrate(batches)                                       # of (images,)
    scores = module.scores(images, classes)
    loss = module.loss(scores, labels)
Its places of weights are the model's topology, and stay: the gradient is nothing anywhere else.  A class is read out as
the mean of its share of the last layer's neurons, so the integers of the network decide, and nothing after them.  Our
choice; the challenge's own networks are given, not learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nnac.ir import QGraph
from nnac.model.sparse_dnn import DEGREE, STEP, topology
from nnac.train.families import family
from nnac.train.integers import dequantise
from nnac.train.module import GraphModule


@family
class SparseDnn(GraphModule):
    """See the module."""

    learns_from = "images"

    def __init__(self, graph: QGraph, weights: Mapping[str, Tensor] | None = None, plan: Any = None) -> None:
        super().__init__(graph, weights, plan)
        for node, places in zip(graph.nodes, masks(graph), strict=True):
            def only(gradient: Tensor, places: Tensor = places) -> Tensor:
                return gradient * places.to(gradient)

            weight = self.get_parameter(f"{'.'.join(self.names_of(node.path))}.weight")
            weight.register_hook(only)

    def forward(self, images: Tensor) -> Tensor:
        """images [B, neurons] of 0 and 1 -> real activations of the last layer [B, neurons]."""
        name, = self.graph.inputs[STEP.name]
        made = self.run(STEP.name, {name: images[None].to(self._like())}, {name: False}, {}, None)
        out, = self.graph.outputs[STEP.name]
        values = made[out][0]
        if not self.layer(self.graph.producers[out].path).quantised:
            return values
        return dequantise(values, self.format_of(out)).float()

    def scores(self, images: Tensor, classes: int) -> Tensor:
        """images [B, neurons] -> [B, classes]: class c is the mean of neurons c, c + classes, …"""
        return read_out(self(images), classes)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy in nats, summed over the batch."""
        return cross_entropy(scores, labels, reduction="sum")


def read_out(activations: Tensor, classes: int) -> Tensor:
    """[B, neurons] -> [B, classes], as `SparseDnn.scores` says; neurons that no class has an equal share of are left
    out."""
    each = activations.shape[1] // classes
    return activations[:, : each * classes].reshape(len(activations), each, classes).mean(1)


def masks(graph: QGraph) -> list[Tensor]:
    """Where each layer of the model has weights, [to, from] of truth values."""
    neurons = graph.values[graph.inputs[STEP.name][0]].width
    out = []
    for columns in topology(neurons, len(graph.nodes)):
        mask = torch.zeros(neurons, neurons, dtype=torch.bool)
        mask[torch.from_numpy(columns), torch.arange(neurons)[:, None]] = True
        out.append(mask)
    return out


def initial(graph: QGraph, seed: int) -> dict[str, Tensor]:
    """Weights to start from, under the names of a float state dict: He et al. 2015 for 32 inputs a neuron, biases 0."""
    draw = torch.Generator().manual_seed(seed)
    named: dict[str, Tensor] = {}
    for k, mask in enumerate(masks(graph)):
        w = torch.randn(mask.shape, generator=draw) * (2 / DEGREE) ** 0.5
        named |= {f"network.layer.{k}.weight": w * mask, f"network.layer.{k}.bias": torch.zeros(len(mask))}
    return named
