"""Arrays in, arrays out, on any engine: what `nnac run --tensors` and `nnac compare --tensors` do with a user's own
model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.arrays import ArraysError
from nnac.arrays import read_arrays as read_file
from nnac.compare import Comparison, recorder, tally, unseen
from nnac.compare import compare as searching
from nnac.decode.integer import stepping
from nnac.decode.search.greedy import Greedy
from nnac.decode.tensors import LabelEnd, TensorEnd, TensorError
from nnac.evaluate import Executor
from nnac.executors import Subject, executor
from nnac.files import atomic


@frozen(eq=False)
class Made:
    """The results, in the model's order; cycles of the machine, None for an engine that is none; steps in time."""

    results: list[NDArray]
    cycles: int | None
    steps: int


def read_arrays(path: str | os.PathLike[str], end: TensorEnd | LabelEnd) -> dict[str, NDArray]:
    """A ``.npz`` of arrays by argument, or a ``.npy`` where the model reads one.  TensorError: it is neither."""
    try:
        found = read_file(path)
    except ArraysError as error:
        raise TensorError(str(error)) from None
    if isinstance(found, dict):
        return found
    if len(end.read) != 1:
        names = ", ".join(f"`{a.name}`" for a in end.read)
        raise TensorError(f"{path}: one array, but the model reads {len(end.read)}: {names}; give them as .npz")
    return {end.read[0].name: found}


def write_arrays(path: str | os.PathLike[str], results: list[NDArray]) -> None:
    """The results as a ``.npz``: ``result``, or ``result_0`` … of several."""
    named = {"result": results[0]} if len(results) == 1 else {f"result_{i}": r for i, r in enumerate(results)}
    with atomic(path) as out:
        np.savez(out, **named)      # type: ignore[arg-type]


def run(subject: Subject, arrays: Mapping[str, NDArray], engine: str = "emulator") -> Made:
    """The model's results for its arguments.  TensorError, EngineError."""
    chosen, end = executor(engine, subject), subject.tensors
    if isinstance(end, LabelEnd):
        return recognised(chosen, end, arrays)
    entry, = chosen.inputs                                       # a user's model is one call
    inputs = end.integers(arrays, chosen.values)
    name, x = next(iter(inputs.items()))
    steps, batch = x.shape[0] // chosen.values[name].rate, x.shape[1]
    made, _ = chosen.run(entry, inputs, chosen.initial_state(entry, batch))
    priced = getattr(chosen, "cycles", None)
    cycles = None if priced is None else steps * batch * priced(entry)
    return Made(end.real(made, chosen.values), cycles, steps * batch)


def recognised(chosen: Executor, end: LabelEnd, arrays: Mapping[str, NDArray]) -> Made:
    """The labels of each utterance, in the user's numbers, by greedy search."""
    x = end.features(arrays)
    with stepping(chosen) as stepper:
        found = Greedy()(stepper, x, np.full(x.shape[1], len(x)))
        steps = Counter(stepper.steps) if hasattr(stepper, "steps") else Counter()
    priced = getattr(chosen, "cycles", None)
    cycles = None if priced is None else sum(n * priced(entry) for entry, n in steps.items())
    results = [np.array(end.labels(nbest[0].tokens), np.int64) for nbest in found.nbest]
    return Made(results, cycles, x.shape[0] * x.shape[1])


def compare(subject: Subject, other: Subject, arrays: Mapping[str, NDArray], engines: tuple[str, str]) -> Comparison:
    """Every integer that two engines make of the same arguments."""
    one, two = executor(engines[0], subject), executor(engines[1], other)
    end = subject.tensors
    if isinstance(end, LabelEnd):
        x = end.features(arrays)
        return searching(one, two, end, list(x.swapaxes(0, 1)))
    inputs = end.integers(arrays, one.values)
    batch = next(iter(inputs.values())).shape[1]
    out, (entry,) = Comparison(), one.inputs
    seen: list[list[tuple[str, NDArray]]] = []
    for each in (one, two):
        events: list[tuple[str, NDArray]] = []
        made, _ = each.run(entry, inputs, each.initial_state(entry, batch), recorder(events))
        seen.append([*events, *((f"{name} (returned)", v) for name, v in made.items())])
    tally(out, seen[0], seen[1], list(range(batch)), unseen(one, two))
    return out
