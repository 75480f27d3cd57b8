"""An RNN-T in integers, as searches want it: the same host code drives the reference evaluator and the emulator.

An *executor* runs an entry point on integers (`Executor`).  `IntegerStepper` is the host's side: features are
quantised once, labels go in as indices, frames and predictions pass between entry points as the integers they are,
and the joint's integers are compared as they are: one scale for all outputs, so the greatest integer is the greatest
score.  Beam search takes their log-softmax, in integers as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac import arith
from nnac.decode.fusion import IntegerRows, labels_alone
from nnac.evaluate import evaluate, initial_state
from nnac.ir import QGraph, Value

State = dict[str, NDArray]
Watch = Callable[[str, NDArray], None]


class Executor(Protocol):
    """Runs entry points.  ``inputs`` and ``outputs`` name the values of each entry; ``values`` holds their formats."""

    @property
    def values(self) -> Mapping[str, Value]: ...
    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]: ...

    def initial_state(self, entry: str, batch: int) -> State:
        """The states of one entry at zero: name -> [batch, width]."""
        ...

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State, watch: Watch | None = None,
            lengths: NDArray | None = None) -> tuple[dict[str, NDArray], State]:
        """inputs [T, B, width] integers -> (outputs [T', B, width] integers, new state).  ``state`` is not changed.

        watch    is told the name and integers [T', B, width] of every value made on the way
        lengths  steps of each row (default: all): a backward direction begins at a row's own end; what comes after it
                 counts for nothing
        """
        ...


@frozen(eq=False)
class Reference:
    """The executor that is slow and obvious: `nnac.evaluate`."""

    graph: QGraph

    @property
    def values(self) -> Mapping[str, Value]:
        return self.graph.values

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.graph.inputs

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.graph.outputs

    def initial_state(self, entry: str, batch: int) -> State:
        own = {s.name for n in self.graph.entry(entry) for s in n.states}
        return {k: v for k, v in initial_state(self.graph, batch).items() if k in own}

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State, watch: Watch | None = None,
            lengths: NDArray | None = None) -> tuple[dict[str, NDArray], State]:
        if not self.graph.bidirectional(entry) or lengths is None or len(set(np.asarray(lengths).tolist())) == 1:
            return evaluate(self.graph, entry, inputs, state, watch)
        rows = [self._row(entry, inputs, state, b, int(n)) for b, n in enumerate(lengths)]
        steps = min(len(v) // self.values[k].rate for k, v in inputs.items())
        whole = {}
        for name, first in rows[0][0].items():
            whole[name] = np.zeros((steps * self.values[name].rate, len(rows), first.shape[-1]), np.int64)
            for b, (seen, _) in enumerate(rows):
                whole[name][:len(seen[name]), b] = seen[name][:, 0]
            if watch:
                watch(name, whole[name])
        return {k: whole[k] for k in self.outputs[entry]}, {k: np.concatenate([s[k] for _, s in rows]) for k in state}

    def _row(self, entry: str, inputs: Mapping[str, NDArray], state: State, row: int, steps: int) -> tuple[dict[str, NDArray], State]:
        """(every value, new state) of one row alone, as long as it is."""
        seen: dict[str, NDArray] = {}
        own = {k: v[:steps * self.values[k].rate, row:row + 1] for k, v in inputs.items()}
        _, after = evaluate(self.graph, entry, own, {k: v[row:row + 1] for k, v in state.items()}, seen.__setitem__)
        return seen, after


@define(eq=False, slots=False)
class IntegerStepper:
    """Keeps the protocols of `nnac.decode.search.greedy` and `nnac.decode.search.beam` over an executor.

    ``steps`` counts the steps of each entry that were asked for, a row a step.
    """

    executor: Executor
    watch: Watch | None = None
    steps: dict[str, int] = field(factory=lambda: dict(encoder=0, prediction=0, joint=0))
    _states: tuple[str, ...] = ()

    def quantise(self, features: NDArray) -> NDArray:
        """Normalised features [T, B, bins] -> the first value's integers."""
        v = self.executor.values[self.executor.inputs["encoder"][0]]
        assert v.scale is not None
        return arith.quantise(features, v.scale, v.zero_point, v.bits)

    def _run(self, entry: str, inputs: dict[str, NDArray], state: State, lengths: NDArray | None = None) -> tuple[NDArray, State]:
        out, state = self.executor.run(entry, inputs, state, self.watch, lengths)
        return out[self.executor.outputs[entry][0]], state

    def encode(self, features: NDArray, lengths: NDArray) -> tuple[NDArray, NDArray]:
        """[T, B, bins] real, normalised -> (frames [T', B, joint] integers, lengths).  A rest shorter than a step is
        dropped."""
        name = self.executor.inputs["encoder"][0]
        rate = self.executor.values[name].rate
        x, lengths = self.quantise(_numpy(features)), _numpy(lengths)
        if self.watch:
            self.watch(name, x)
        steps = len(x) // rate
        frames, _ = self._run("encoder", {name: x[: steps * rate]}, self.executor.initial_state("encoder", x.shape[1]), lengths // rate)
        self.steps["encoder"] += int((lengths // rate).sum())
        return frames, lengths // rate * self.executor.values[self.executor.outputs["encoder"][0]].rate

    def start(self, batch: int) -> tuple[NDArray, tuple[NDArray, ...]]:
        state = self.executor.initial_state("prediction", batch)
        self._states = tuple(sorted(state))
        return self.predict(np.zeros(batch, np.int64), tuple(state[k] for k in self._states))

    def predict(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        inputs = {self.executor.inputs["prediction"][0]: np.asarray(tokens, np.int64)[None, :, None]}
        out, new = self._run("prediction", inputs, dict(zip(self._states, state, strict=True)))
        self.steps["prediction"] += len(tokens)
        return out[0], tuple(new[k] for k in self._states)

    def joint(self, frames: NDArray, prediction: NDArray) -> NDArray:
        encoder, predicted = self.executor.inputs["joint"]
        out, _ = self._run("joint", {encoder: frames[None], predicted: prediction[None]}, {})
        self.steps["joint"] += len(frames)
        return out[0]

    def scores(self, frames: NDArray, prediction: NDArray) -> NDArray:
        return self._log_softmax(self.joint(frames, prediction))

    def internal(self, prediction: NDArray) -> NDArray:
        v = self.executor.values[self.executor.inputs["joint"][0]]
        nothing = np.full((len(prediction), v.width), v.zero_point, np.int64)
        return labels_alone(self.joint(nothing, prediction), self._log_softmax)

    @cached_property
    def _log_softmax(self) -> IntegerRows:
        scale = self.executor.values[self.executor.outputs["joint"][0]].scale
        assert scale is not None
        return IntegerRows.of(scale)


def _numpy(x: Any) -> NDArray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
