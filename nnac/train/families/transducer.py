"""A transducer of a user's own, read back from its checkpoint: `nnac.train.transducer` made it, ``model transducer`` in
its policy.

Labels are numbered with the blank first; ``order`` says which of the user's each is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnac.ir import QGraph
from nnac.model.rnnt import JOINT, PREDICTION
from nnac.ops import operator
from nnac.train.families import family
from nnac.train.families.rnnt import Transducer
from nnac.train.module import attribute_path


@family
class OwnTransducer(Transducer):
    """A `Transducer` whose layers may be called as anything at all."""

    def __init__(self, graph: QGraph, weights: Mapping[str, Tensor] | None = None, plan: Any = None) -> None:
        super().__init__(graph, weights, plan)
        arguments = graph.metadata["arguments"]
        blank, start = int(arguments["blank"]), arguments["start"]
        name, = graph.outputs[JOINT.name]
        count = graph.values[name].width
        self.order = (blank, *(i for i in range(count) if i != blank))
        if start == "zeros":                                    # the blank's row is zero, and stays so
            path, = (n.path for n in graph.entry(PREDICTION.name) if operator(n.op).by_index)

            def without_first(gradient: Tensor) -> Tensor:
                return torch.cat([torch.zeros_like(gradient[:1]), gradient[1:]])

            self.layer(path).get_parameter("weight").register_hook(without_first)

    def names_of(self, path: str) -> list[str]:
        """A layer that is called as something that every module has is kept under another name."""
        return own_names(path)

    def ours(self, labels: Tensor) -> Tensor:
        """The user's labels in our numbers."""
        number = torch.empty(len(self.order), dtype=torch.long, device=labels.device)
        number[torch.tensor(self.order, device=labels.device)] = torch.arange(len(self.order), device=labels.device)
        return number[labels.long()]


def own_names(path: str) -> list[str]:
    """The names of the modules that lead to a layer: `OwnTransducer.names_of`."""
    first, *rest = attribute_path(path)
    return [first, *(f"{name}_" if hasattr(nn.Module, name) else name for name in rest)]
