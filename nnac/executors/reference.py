"""The slow and obvious meaning of the graph, in NumPy (`nnac.evaluate`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.evaluate import Constants, State, Watch, evaluate, initial_state
from nnac.executors import Subject
from nnac.ir import QGraph, Value


def executor(subject: Subject) -> Reference:
    return Reference(subject.graph)


@frozen(eq=False)
class Reference:
    """The operators' own integers, one after another.  ``constants``: as `nnac.evaluate.evaluate` takes them."""

    graph: QGraph
    constants: Constants | None = None

    @property
    def values(self) -> Mapping[str, Value]:
        return self.graph.values

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.graph.inputs

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.graph.outputs

    def bidirectional(self, entry: str) -> bool:
        return self.graph.bidirectional(entry)

    def shows(self, value: str) -> bool:
        return True

    def initial_state(self, entry: str, batch: int) -> State:
        own = {s.name for n in self.graph.entry(entry) for s in n.states}
        return {k: v for k, v in initial_state(self.graph, batch).items() if k in own}

    def run(self, entry: str, inputs: Mapping[str, NDArray], state: State, watch: Watch | None = None,
            lengths: NDArray | None = None) -> tuple[dict[str, NDArray], State]:
        if not self.bidirectional(entry) or lengths is None or len(set(np.asarray(lengths).tolist())) == 1:
            return self.whole(entry, inputs, state, watch)
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

    def _row(self, entry: str, inputs: Mapping[str, NDArray], state: State, row: int,
             steps: int) -> tuple[dict[str, NDArray], State]:
        """(every value, new state) of one row alone, as long as it is."""
        seen: dict[str, NDArray] = {}
        own = {k: v[:steps * self.values[k].rate, row:row + 1] for k, v in inputs.items()}
        _, after = self.whole(entry, own, {k: v[row:row + 1] for k, v in state.items()}, seen.__setitem__)
        return seen, after

    def whole(self, entry: str, inputs: Mapping[str, NDArray], state: State,
              watch: Watch | None) -> tuple[dict[str, NDArray], State]:
        """`run` of rows that are all of one length."""
        return evaluate(self.graph, entry, inputs, state, watch, self.constants)
