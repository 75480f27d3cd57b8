"""An RNN-T in integers, as searches want it: the same host code drives the reference evaluator and the emulator.

An *executor* runs an entry point on integers (`nnac.evaluate.Executor`).  `IntegerStepper` is the host's side:
features are quantised once, labels go in as indices, frames and predictions pass between entry points as the integers
they are, and the joint's integers are compared as they are: one scale for all outputs, so the greatest integer is the
greatest score.  Beam search takes their log-softmax, in integers as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac import arith
from nnac.decode.fusion import FusionError, IntegerRows, labels_alone
from nnac.errors import UserError
from nnac.evaluate import Executor, State, Watch
from nnac.model.rnnt import ENCODER, JOINT, PREDICTION

TAKEN = {ENCODER.name: 1, PREDICTION.name: 1, JOINT.name: 2}       # values from outside that an entry of an RNN-T takes


class ProtocolError(UserError):
    """A program or model whose entries are not a recogniser's."""


def check_entry(executor: Executor, entry: str) -> None:
    """ProtocolError where an entry is absent, takes other values than a recogniser's, or makes none."""
    if entry not in executor.inputs:
        raise ProtocolError(f"a recogniser has an entry `{entry}`, and there is none (found: "
                            f"{', '.join(executor.inputs) or 'nothing'})")
    taken, made = executor.inputs[entry], executor.outputs[entry]
    if len(taken) != TAKEN[entry] or not made:
        raise ProtocolError(f"entry `{entry}` takes {len(taken)} values from outside and makes {len(made)}: a "
                            f"recogniser's takes {TAKEN[entry]} and makes one")


@frozen
class Pace:
    """What a step of an encoder takes and makes: ``features`` (of 10 ms, say), ``frames``.  A step of several frames is
    filled up with zeros where an utterance ends within it; a rest shorter than a frame is dropped."""

    features: int
    frames: int

    @classmethod
    def of(cls, executor: Executor) -> Pace:
        """ProtocolError: its encoder is no recogniser's."""
        check_entry(executor, ENCODER.name)
        (taken,), made = executor.inputs[ENCODER.name], executor.outputs[ENCODER.name][0]
        return cls(executor.values[taken].rate, executor.values[made].rate)

    @property
    def hop(self) -> int:
        """Features that a frame is made of."""
        return self.features // self.frames

    def steps(self, lengths: Any) -> Any:
        """Steps of so many features."""
        return -(-(lengths // self.hop) // self.frames)

    def filled(self, x: NDArray) -> NDArray:
        """[T, B, bins] up to a whole number of steps, where a step makes several frames."""
        return x if self.frames == 1 else np.pad(x, ((0, -len(x) % self.features), (0, 0), (0, 0)))


@define(eq=False, slots=False)
class IntegerStepper:
    """Keeps the protocols of `nnac.decode.search.greedy` and `nnac.decode.search.beam` over an executor.

    ``steps`` counts the steps of each entry that were asked for, a row a step.
    """

    executor: Executor
    watch: Watch | None = None
    steps: dict[str, int] = field(factory=lambda: dict.fromkeys((ENCODER.name, PREDICTION.name, JOINT.name), 0))
    _states: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        check_entry(self.executor, ENCODER.name)

    def quantise(self, features: NDArray) -> NDArray:
        """Normalised features [T, B, bins] -> the first value's integers."""
        v = self.executor.values[self.executor.inputs[ENCODER.name][0]]
        assert v.scale is not None
        return arith.quantise(features, v.scale, v.zero_point, v.bits)

    def _run(self, entry: str, inputs: dict[str, NDArray], state: State,
             lengths: NDArray | None = None) -> tuple[NDArray, State]:
        out, state = self.executor.run(entry, inputs, state, self.watch, lengths)
        return out[self.executor.outputs[entry][0]], state

    def encode(self, features: NDArray, lengths: NDArray) -> tuple[NDArray, NDArray]:
        """[T, B, bins] real, normalised -> (frames [T', B, joint] integers, lengths).  A rest shorter than a frame is
        dropped; a step of several frames that an utterance does not fill goes on with zeros."""
        name, pace = self.executor.inputs[ENCODER.name][0], Pace.of(self.executor)
        x, lengths = pace.filled(_numpy(features)), _numpy(lengths)
        x = self.quantise(x)
        if self.watch:
            self.watch(name, x)
        steps = pace.steps(lengths)
        frames, _ = self._run(ENCODER.name, {name: x[: len(x) // pace.features * pace.features]},
                              self.executor.initial_state(ENCODER.name, x.shape[1]), steps)
        self.steps[ENCODER.name] += int(steps.sum())
        return frames, lengths // pace.hop

    def frames_of(self, count: int) -> int:
        """How many frames `encode` makes of so many of features."""
        (taken,), made = self.executor.inputs[ENCODER.name], self.executor.outputs[ENCODER.name][0]
        return count // self.executor.values[taken].rate * self.executor.values[made].rate

    def encode_pieces(self, blocks: Iterator[NDArray]) -> Iterator[NDArray] | None:
        """As `encode`, block by block, of one utterance; None where the encoder hears it from its end as well."""
        return None if self.executor.bidirectional(ENCODER.name) else self._pieces(blocks)

    def _pieces(self, blocks: Iterator[NDArray]) -> Iterator[NDArray]:
        name = self.executor.inputs[ENCODER.name][0]
        rate, state = self.executor.values[name].rate, self.executor.initial_state(ENCODER.name, 1)
        for block in whole_steps(blocks, rate):
            x = self.quantise(block)
            if self.watch:
                self.watch(name, x)
            frames, state = self._run(ENCODER.name, {name: x}, state, np.array([len(x) // rate]))
            self.steps[ENCODER.name] += len(x) // rate
            yield frames

    def start(self, batch: int) -> tuple[NDArray, tuple[NDArray, ...]]:
        for entry in (PREDICTION.name, JOINT.name):                    # a hybrid, which has neither, is not begun
            check_entry(self.executor, entry)
        state = self.executor.initial_state(PREDICTION.name, batch)
        self._states = tuple(sorted(state))
        return self.predict(np.zeros(batch, np.int64), tuple(state[k] for k in self._states))

    def predict(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        inputs = {self.executor.inputs[PREDICTION.name][0]: np.asarray(tokens, np.int64)[None, :, None]}
        out, new = self._run(PREDICTION.name, inputs, dict(zip(self._states, state, strict=True)))
        self.steps[PREDICTION.name] += len(tokens)
        return out[0], tuple(new[k] for k in self._states)

    def joint(self, frames: NDArray, prediction: NDArray) -> NDArray:
        encoder, predicted = self.executor.inputs[JOINT.name]
        out, _ = self._run(JOINT.name, {encoder: frames[None], predicted: prediction[None]}, {})
        self.steps[JOINT.name] += len(frames)
        return out[0]

    def scores(self, frames: NDArray, prediction: NDArray) -> NDArray:
        return self._log_softmax(self.joint(frames, prediction))

    def language(self, entry: str) -> EntryModel:
        return EntryModel.of(self.executor, entry, self.watch)

    def internal(self, prediction: NDArray) -> NDArray:
        v = self.executor.values[self.executor.inputs[JOINT.name][0]]
        nothing = np.full((len(prediction), v.width), v.zero_point, np.int64)
        return labels_alone(self.joint(nothing, prediction), self._log_softmax)

    @cached_property
    def _log_softmax(self) -> IntegerRows:
        scale = self.executor.values[self.executor.outputs[JOINT.name][0]].scale
        assert scale is not None
        return IntegerRows.of(scale)


def whole_steps(blocks: Iterator[NDArray], rate: int) -> Iterator[NDArray]:
    """Blocks [n, …] cut anew so that each is of whole steps of ``rate``; a rest shorter than one is dropped."""
    rest: NDArray | None = None
    for block in blocks:
        rest = block if rest is None or not len(rest) else np.concatenate([rest, block])
        ends = len(rest) // rate * rate
        if ends:
            yield rest[:ends]
            rest = rest[ends:]


def _numpy(x: Any) -> NDArray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


@frozen(eq=False)
class EntryModel:
    """Keeps the protocol of `nnac.decode.fusion.LanguageModel` over an entry of an executor."""

    executor: Executor
    entry: str
    watch: Watch | None = None

    @classmethod
    def of(cls, executor: Executor, entry: str, watch: Watch | None = None) -> EntryModel:
        """FusionError: the executor has no such entry."""
        if entry not in executor.inputs:
            raise FusionError(f"there is no entry `{entry}` beside the recogniser: compile its language model in")
        return cls(executor, entry, watch)

    def start(self) -> tuple[NDArray, tuple[NDArray, ...]]:
        state = self.executor.initial_state(self.entry, 1)
        return self._run(np.zeros(1, np.int64), state)

    def step(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        names = sorted(self.executor.initial_state(self.entry, 1))
        return self._run(tokens, dict(zip(names, state, strict=True)))

    def _run(self, tokens: NDArray, state: State) -> tuple[NDArray, tuple[NDArray, ...]]:
        taken, = self.executor.inputs[self.entry]
        given = {taken: np.asarray(tokens, np.int64)[None, :, None]}
        out, after = self.executor.run(self.entry, given, state, self.watch)
        return out[self.executor.outputs[self.entry][0]][0], tuple(after[k] for k in sorted(after))


@contextmanager
def stepping(executor: Executor, watch: Watch | None = None) -> Iterator[Any]:
    """The host's side of an executor, as `nnac.decode.search.beam.Scorer`: its own, where it has one (the training
    module quantises in PyTorch), or `IntegerStepper`."""
    own = getattr(executor, "stepper", None)
    if own is None:
        yield IntegerStepper(executor, watch)
        return
    with own(watch) as stepper:
        yield stepper
