"""The training module: the same integers, as PyTorch computes them with gradients (`nnac.train.module`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from nnac.companions import renamed
from nnac.decode.fusion import FusionError
from nnac.decode.integer import EntryModel
from nnac.decode.scorers import scorer
from nnac.evaluate import State, Watch
from nnac.executors import EngineError, Subject
from nnac.ir import Value
from nnac.train.module import GraphModule


def executor(subject: Subject) -> Torch:
    """EngineError: the graph is another than the module's own, whose weights are all that is computed from here."""
    if subject.bound is not None:
        raise EngineError("the training module computes from its own weights, not from a graph with a fault planted: "
                          "let another engine have it")
    return Torch(subject.module.module, {name: Torch(t.module) for name, t in subject.languages.items()})


@frozen(eq=False)
class Torch:
    """A calibrated training module, in evaluation mode.  Between layers its integers are carried by float32."""

    module: GraphModule
    languages: Mapping[str, Torch] = field(factory=dict)       # beside it, by the names of `nnac.companions.NAMES`

    @cached_property
    def values(self) -> Mapping[str, Value]:
        forms = self.module.formats()
        return {k: evolve(v, scale=forms[k].scale, zero_point=forms[k].zero_point) if k in forms else v
                for k, v in self.module.graph.values.items()}

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.module.graph.inputs

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.module.graph.outputs

    def bidirectional(self, entry: str) -> bool:
        return self.module.graph.bidirectional(entry)

    def shows(self, value: str) -> bool:
        return True

    def initial_state(self, entry: str, batch: int) -> State:
        return {s.name: np.zeros((batch, s.width), np.int64) for n in self.module.graph.entry(entry) for s in n.states}

    @torch.no_grad()
    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State, watch: Watch | None = None,
            lengths: NDArray | None = None) -> tuple[dict[str, NDArray], State]:
        """As the protocol says.  Layers that the plan leaves in real numbers have no integers to give:
        AssertionError."""
        # shorter than a step: nothing is computed
        if any(len(v) < self.module.graph.rate(entry, k) for k, v in inputs.items()):
            batch = next(iter(inputs.values())).shape[1]
            return {k: np.zeros((0, batch, self.values[k].width), np.int64) for k in self.outputs[entry]}, dict(state)
        given = {k: self._carried(k, v) for k, v in inputs.items()}
        now = {k: torch.from_numpy(v).to(torch.float32) for k, v in state.items()}
        rate = next(self.module.graph.rate(entry, k) for k in inputs)
        frames = None if lengths is None else torch.from_numpy(np.asarray(lengths)) * rate
        integer = dict.fromkeys(given, True)
        with self.module.watching(lambda name, v: watch(name, _integers(v)) if watch else None):
            values = self.module.run(entry, given, integer, now, frames)
        assert all(integer[k] for k in self.outputs[entry]), f"{entry}: real numbers come out"
        # a backward pass streams nothing
        after = {k: v if ".backward." in k else _integers(now[k]) for k, v in state.items()}
        return {k: _integers(values[k]) for k in self.outputs[entry]}, after

    def _carried(self, name: str, v: NDArray) -> torch.Tensor:
        v = np.asarray(v, np.int64)
        return torch.from_numpy(v) if self.values[name].bits == 32 else torch.from_numpy(v).to(torch.float32)

    @contextmanager
    def stepper(self, watch: Watch | None = None) -> Iterator[Any]:
        """The host's side as the module has it: features are quantised, frames handed on, inside PyTorch."""
        with torch.no_grad(), self.module.watching(lambda name, v: watch(name, _integers(v)) if watch else None):
            yield _Hearing(scorer(self.module), self.languages, watch)


@frozen(eq=False)
class _Hearing:
    """A module's scorer, fed with arrays; the rest is the scorer's own."""

    scorer: Any
    languages: Mapping[str, Torch]
    watch: Watch | None

    def language(self, entry: str) -> EntryModel:
        """A language model is a module of its own here; its values have the names they have beside the recogniser."""
        if entry not in self.languages:
            raise FusionError(f"there is no entry `{entry}` beside the recogniser: give its language model")
        one, seen = self.languages[entry], self.watch
        own, = one.inputs
        to = renamed(entry, own)
        return EntryModel.of(one, own, seen and (lambda name, v: seen(to(name), v)))

    def encode(self, features: NDArray, lengths: NDArray) -> tuple[torch.Tensor, torch.Tensor]:
        return self.scorer.encode(torch.from_numpy(np.asarray(features, np.float32)),
                                  torch.from_numpy(np.asarray(lengths)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)


def _integers(v: torch.Tensor) -> NDArray:
    """A copy, as int64: greedy search goes on writing into the states it was given."""
    return v.detach().cpu().numpy().astype(np.int64)
