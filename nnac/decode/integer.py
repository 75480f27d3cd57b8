"""An RNN-T in integers, as greedy decoding wants it: the same host code drives the reference evaluator and the emulator.

An *executor* runs an entry point on integers (`Executor`).  `IntegerStepper` is the host's side: features are quantised once, labels go
in as indices, frames and predictions pass between entry points as the integers they are, and the joint's integers are compared as they
are: one scale for all outputs, so the greatest integer is the greatest score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac import arith
from nnac.evaluate import evaluate, initial_state
from nnac.ir import QGraph, Value

State = dict[str, NDArray]


class Executor(Protocol):
    """Runs entry points.  ``inputs`` and ``outputs`` name the values of each entry; ``values`` holds their formats."""

    values: Mapping[str, Value]
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]

    def initial_state(self, entry: str, batch: int) -> State:
        """The states of one entry at zero: name -> [batch, width]."""
        ...

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State) -> tuple[dict[str, NDArray], State]:
        """inputs [T, B, width] integers -> (outputs [T', B, width] integers, new state).  ``state`` is not changed."""
        ...


@frozen(eq=False)
class Reference:
    """The executor that is slow and obvious: `nnac.evaluate`."""

    graph: QGraph
    watch: Callable[[str, NDArray], None] | None = None

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

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State) -> tuple[dict[str, NDArray], State]:
        return evaluate(self.graph, entry, inputs, state, self.watch)


@define(eq=False)
class IntegerStepper:
    """Keeps the protocol of `nnac.decode.greedy` over an executor.  ``frames_run`` counts encoder steps, for cycles per frame."""

    executor: Executor
    encoder_steps: int = 0
    prediction_steps: int = 0
    joint_steps: int = 0
    _names: dict[str, tuple[str, str]] = field(init=False, factory=dict)

    def quantise(self, features: NDArray) -> NDArray:
        """Normalised features [T, B, bins] -> the first value's integers."""
        v = self.executor.values[self.executor.inputs["encoder"][0]]
        assert v.scale is not None
        return arith.quantise(features, v.scale, v.zero_point, v.bits)

    def encode(self, features: NDArray, lengths: NDArray) -> tuple[NDArray, NDArray]:
        """[T, B, bins] real, normalised -> (frames [T', B, joint] integers, lengths).  A rest shorter than a step is dropped."""
        name = self.executor.inputs["encoder"][0]
        rate = self.executor.values[name].rate
        out_name = self.executor.outputs["encoder"][0]
        x = self.quantise(_numpy(features))
        steps = len(x) // rate
        state = self.executor.initial_state("encoder", x.shape[1])
        out, _ = self.executor.run("encoder", {name: x[: steps * rate]}, state)
        self.encoder_steps += steps
        return out[out_name], _numpy(lengths) // (rate // self.executor.values[out_name].rate)

    def start(self, batch: int) -> tuple[NDArray, tuple[NDArray, ...]]:
        state = self.executor.initial_state("prediction", batch)
        self._names["prediction"] = tuple(sorted(state))  # type: ignore[assignment]
        return self.predict(np.zeros(batch, np.int64), tuple(state[k] for k in sorted(state)))

    def predict(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        names = self._names["prediction"]
        inputs = {self.executor.inputs["prediction"][0]: np.asarray(tokens, np.int64)[None, :, None]}
        out, new = self.executor.run("prediction", inputs, dict(zip(names, state, strict=True)))
        self.prediction_steps += 1
        return out[self.executor.outputs["prediction"][0]][0], tuple(new[k] for k in names)

    def joint(self, frames: NDArray, prediction: NDArray) -> NDArray:
        encoder, predicted = self.executor.inputs["joint"]
        out, _ = self.executor.run("joint", {encoder: frames[None], predicted: prediction[None]}, {})
        self.joint_steps += 1
        return out[self.executor.outputs["joint"][0]][0]


def _numpy(x: Any) -> NDArray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
