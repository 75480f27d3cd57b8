"""The exact ONNX model, run by onnxruntime: integer operators of a standard, of another house (`nnac.onnx`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.errors import UserError
from nnac.evaluate import State, Watch, check_lengths, evaluate
from nnac.executors import Subject
from nnac.executors.reference import Reference

if TYPE_CHECKING:
    from nnac.onnx.session import Session


def executor(subject: Subject) -> Onnx:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX or its runtime is not installed ({error}): pip install 'nnac[onnx]'") from None
    return Onnx(subject.graph)


@frozen(eq=False, slots=False)
class Onnx(Reference):
    """Each entry is a model of one step, asked step by step; one that hears its sequence from the end as well is a
    model of the whole sequence, of as many steps as it has."""

    @cached_property
    def _sessions(self) -> dict[tuple[str, int, bool], Session]:
        return {}

    def session(self, entry: str, steps: int, watched: bool) -> Session:
        """The model of so many steps of an entry, loaded.  OnnxError: a layer has no form in ONNX."""
        from nnac.onnx.model import integers, trace
        from nnac.onnx.session import Session

        key = entry, steps, watched
        if key not in self._sessions:
            self._sessions[key] = Session.of(integers(trace(self.graph, entry, steps), entry, watched))
        return self._sessions[key]

    def whole(self, entry: str, inputs: Mapping[str, NDArray], state: State,
              watch: Watch | None) -> tuple[dict[str, NDArray], State]:
        rates = {k: self.graph.rate(entry, k) for k in inputs}
        count = min(len(v) // rates[k] for k, v in inputs.items())
        if not count:
            return evaluate(self.graph, entry, inputs, state, watch)
        together = count if self.bidirectional(entry) else 1
        session = self.session(entry, together, watch is not None)
        parts: dict[str, list[NDArray]] = {}
        for at in range(0, count, together):
            given = {k: v[at * rates[k]:(at + together) * rates[k]] for k, v in inputs.items()}
            made, state = session(given, state)
            for name, value in made.items():
                parts.setdefault(name, []).append(value)
        check_lengths((s for n in self.graph.entry(entry) for s in n.states), state)
        values: dict[str, Any] = {k: np.asarray(v, np.int64) for k, v in inputs.items()}
        values |= {name: np.concatenate(each) for name, each in parts.items()}
        if watch:
            for node in self.graph.entry(entry):
                watch(node.output, values[node.output])
        return {name: values[name] for name in self.outputs[entry]}, state
