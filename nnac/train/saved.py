"""A float model in a file, with its graph: what `nnac import` writes and `nnac train --float` starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from torch import Tensor

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.decode.front_end import FrontEnd, end_from_json
from nnac.decode.tensors import LabelEnd, TensorError
from nnac.errors import ABSURD
from nnac.formats import Precision
from nnac.lower import lower, lower_plan
from nnac.model.graph import ModelGraph
from nnac.model.saved import KIND
from nnac.plan import Plan
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import Tokens
from nnac.train.families import module_of
from nnac.train.families.transducer import OwnTransducer


@frozen(eq=False, slots=False)
class SavedModel:
    """graph    with its entries      weights   under the names of its training module
    end      a front end of a model that hears, or how its arrays lie      training   where it is from
    """

    graph: ModelGraph
    weights: Mapping[str, Tensor]
    end: FrontEnd | LabelEnd
    training: dict[str, Any] = field(factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        checkpoint.save(path, {n: w.detach().numpy() for n, w in self.weights.items()},
                        dict(kind=KIND, graph=self.graph.to_json(), front_end=self.end.to_json(),
                             training=self.training))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SavedModel:
        """CheckpointError: absent, damaged, of another kind, or weights that do not fit the graph."""
        file = checkpoint.load(path, KIND)
        try:
            meta = file.metadata
            end = end_from_json(meta["front_end"])
            if not isinstance(end, (FrontEnd, LabelEnd)):
                raise ValueError("it neither hears nor takes features")
            made = cls(ModelGraph.from_json(meta["graph"]), file.state_dict(), end, dict(meta.get("training", {})))
            if made.graph.weights > sum(v.size for v in file.tensors.values()):
                raise ValueError(f"its graph is of {made.graph.weights:,} weights, more than it holds")
            _ = made.model
            return made
        except ABSURD as error:
            raise CheckpointError(f"{path}: does not describe a model: {' '.join(str(error).split())[:200]}") from None

    @cached_property
    def model(self) -> OwnTransducer:
        """The network in real numbers."""
        module = module_of(self.graph.name)(lower(self.graph, lambda _: Precision()), self.weights, None)
        assert isinstance(module, OwnTransducer)
        module.switch("*", False)
        return module.eval()

    @property
    def front(self) -> FrontEnd:
        """The front end.  CheckpointError: the model takes arrays."""
        if not isinstance(self.end, FrontEnd):
            raise CheckpointError("the model takes arrays of features, and hears nothing: `nnac import` with --tokens")
        return self.end

    @property
    def features(self) -> FeatureSpec:
        return self.front.features

    @property
    def normalisation(self) -> Normalisation:
        return self.front.normalisation

    @property
    def tokens(self) -> Tokens:
        return self.front.tokens

    def calibrated(self, plan: Plan, arrays: Mapping[str, NDArray]) -> OwnTransducer:
        """The training module of a plan, its scales found on arrays: ``features`` as the model takes them, ``labels``
        [B, U] in the toolkit's numbers.  TensorError: they are not these."""
        module = module_of(plan.model.builder)(lower_plan(plan), self.weights, plan)
        assert isinstance(module, OwnTransducer)
        if not isinstance(self.end, LabelEnd):
            raise TensorError("the model hears audio: calibrate it on a corpus")
        if "labels" not in arrays:
            raise TensorError(f"`labels` [batch, labels] are not given (given: {', '.join(arrays) or 'nothing'})")
        x = torch.from_numpy(self.end.features(arrays).copy())
        labels = arrays["labels"]
        if labels.ndim != 2 or labels.shape[0] != x.shape[1] or not np.issubdtype(labels.dtype, np.integer) or (
                labels.size and not 0 <= labels.min() <= labels.max() < self.end.vocabulary):
            raise TensorError(f"`labels` are whole numbers [{x.shape[1]}, labels] below {self.end.vocabulary}")
        y = module.ours(torch.from_numpy(labels.astype(np.int64)).T)
        module.calibrate([(x, torch.full((x.shape[1],), len(x)), y)], alike=True)
        return module.eval()
