"""Evaluate a bound QGraph on integers: the reference every other executor is compared with.  Slow, obvious, NumPy (or
torch).

And the protocol that all of them keep: `Executor`.  `nnac.executors` finds them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnac.errors import UserError
from nnac.ir import QGraph, Value
from nnac.ops import operator

Array = Any
State = dict[str, NDArray]
Watch = Callable[[str, NDArray], None]
Constants = Mapping[str, Mapping[str, Array]]      # a node's path -> its constants by name


class TooLongError(UserError):
    """A sequence is longer than what a layer can take in, of a mean over time; one line that names the layer."""


class Counted(Protocol):
    """What is read of a state (`nnac.ir.State`, `nnac.program.Slot`)."""

    @property
    def name(self) -> str: ...
    @property
    def scale(self) -> float | None: ...
    @property
    def most(self) -> int | None: ...


def check_lengths(states: Iterable[Counted], after: Mapping[str, Array]) -> None:
    """TooLongError where a state that counts says, after a call, that more was heard than counts for anything.

    after  states as executors leave them, [B, width] by name; a count stops at the end of its format, so that it can
           be read afterwards
    """
    for s in states:
        if s.most is not None and s.name in after and 0 not in after[s.name].shape and int(
                after[s.name].max()) > s.most:
            vectors = round(s.most * (s.scale or 1))
            raise TooLongError(f"`{s.name.rpartition('.')[0]}` takes a mean over time of {vectors} vectors at most, "
                               "and the sequence has more: give it in parts, or let the model hear fewer (a stride, "
                               "stacked frames)")


class Executor(Protocol):
    """Runs entry points on integers.  ``inputs`` and ``outputs`` name the values of each entry; ``values`` holds their
    formats."""

    @property
    def values(self) -> Mapping[str, Value]: ...
    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]: ...

    def bidirectional(self, entry: str) -> bool:
        """Whether a layer of the entry hears the sequence from its end as well."""
        ...

    def shows(self, value: str) -> bool:
        """Whether a watcher is told this value: hardware may have overwritten it before anyone can look."""
        ...

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


def initial_state(graph: QGraph, batch: int = 1) -> dict[str, np.ndarray]:
    """Every state at zero: [batch, width] int64 by name."""
    return {s.name: np.zeros((batch, s.width), np.int64) for s in graph.states}


def widened(graph: QGraph) -> Constants:
    """The constants of every node in int64, as operators compute with them."""
    return {n.path: {k: v.astype(np.int64) for k, v in n.constants.items()} for n in graph.nodes}


def evaluate(graph: QGraph, entry: str, inputs: Mapping[str, Array], state: dict[str, Array] | None = None,
             watch: Callable[[str, Array], None] | None = None,
             constants: Constants | None = None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run ``entry`` on whole sequences.

    inputs     value name -> [T, B, width] integers (T any multiple of the value's rate)
    state      as `initial_state`, not changed        watch  called with the name and integers of every value made
    constants  as `widened` gives them (default: of this graph); a kernel may be one that multiplies in its own way
               (`arith.matmul`)
    returns    (output name -> [T', B, width], new state)
    TooLongError: see `check_lengths`
    """
    values = {k: np.asarray(v, np.int64) for k, v in inputs.items()}
    batch = next(iter(values.values())).shape[1]
    state = dict(initial_state(graph, batch) if state is None else state)
    # shorter than a step: nothing is computed
    if any(len(v) < graph.rate(entry, k) for k, v in values.items()):
        return {k: np.zeros((0, batch, graph.values[k].width), np.int64) for k in graph.outputs[entry]}, state
    for node in graph.entry(entry):
        own = constants[node.path] if constants else {k: v.astype(np.int64) for k, v in node.constants.items()}
        values[node.output] = operator(node.op).integers(node, graph, [values[n] for n in node.inputs], state, own)
        if watch:
            watch(node.output, values[node.output])
        check_lengths(node.states, state)
    return {name: values[name] for name in graph.outputs[entry]}, state
