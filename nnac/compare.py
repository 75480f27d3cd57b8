"""Two executors of one model, side by side: every integer of every layer, and what they transcribe.

The training module is the reference; the other is the emulator, or `nnac.evaluate`.  Both are watched while they transcribe the same
utterances; what they make is compared in the order in which it is made, so the first difference is the first cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac.decode.front_end import FrontEnd, by_length, pad
from nnac.decode.greedy import transcribe
from nnac.decode.integer import Executor, IntegerStepper

Event = tuple[str, NDArray]


@frozen
class Divergence:
    """The first integers that differ.  ``step`` counts this value's vectors within the utterance (its frames, or its labels)."""

    utterance: int
    value: str
    step: int
    element: int
    expected: int
    got: int

    def __str__(self) -> str:
        return (f"utterance {self.utterance}: {self.value}[{self.element}] at step {self.step} is {self.got}, "
                f"the training module says {self.expected}")


@define
class Comparison:
    """What was compared.  ``by_value``: name -> (integers compared, integers that differ)."""

    compared: int = 0
    different: int = 0
    by_value: dict[str, list[int]] = field(factory=dict)
    first: Divergence | None = None
    expected_texts: list[str] = field(factory=list)
    texts: list[str] = field(factory=list)
    steps: Counter = field(factory=Counter)

    @property
    def different_transcripts(self) -> int:
        return sum(a != b for a, b in zip(self.expected_texts, self.texts, strict=True))

    @property
    def equal(self) -> bool:
        return not self.different and not self.different_transcripts


def compare(module: Any, executor: Executor, front: FrontEnd, features: Sequence[NDArray], batch: int = 32,
            advance: Callable[[int], None] | None = None) -> Comparison:
    """Transcribe ``features`` (normalised, [T, bins] each) with the training module and the executor, and compare all they make."""
    out = Comparison(expected_texts=[""] * len(features), texts=[""] * len(features))
    rate = executor.values[executor.inputs["encoder"][0]].rate        # a rest shorter than a step is heard by neither
    whole = [f[: len(f) // rate * rate] for f in features]
    for rows in by_length([len(f) for f in whole], batch):
        x, lengths = pad([whole[i] for i in rows])
        expected: list[Event] = []
        with torch.no_grad(), module.watching(recorder(expected)):
            tokens = transcribe(module, torch.from_numpy(x), torch.from_numpy(lengths))
        got: list[Event] = []
        stepper = IntegerStepper(executor, recorder(got))
        for i, a, b in zip(rows, tokens, transcribe(stepper, x, lengths), strict=True):
            out.expected_texts[i], out.texts[i] = front.text(a), front.text(b)
        out.steps.update(stepper.steps)
        _tally(out, expected, got, rows)
        if advance:
            advance(len(rows))
    return out


def recorder(events: list[Event]) -> Callable[[str, Any], None]:
    """A watcher that keeps what it is shown, as [T, B, width].  Copies: greedy search goes on writing into the states it was given."""

    def record(name: str, integers: Any) -> None:
        v = integers.detach().cpu().numpy() if hasattr(integers, "detach") else integers
        events.append((name, np.array(v if v.ndim == 3 else v[None], np.int64)))

    return record


def _by_value(events: list[Event]) -> dict[str, list[NDArray]]:
    out: dict[str, list[NDArray]] = {}
    for name, v in events:
        out.setdefault(name, []).append(v)
    return out


def _tally(out: Comparison, expected: list[Event], got: list[Event], rows: Sequence[int]) -> None:
    """Compare call by call, value by value.  A value that one side never makes counts as different, all of it."""
    theirs = _by_value(got)
    for name, calls in _by_value(expected).items():
        counts = out.by_value.setdefault(name, [0, 0])
        others = theirs.get(name, [])
        step = 0
        for k, a in enumerate(calls):
            b = others[k] if k < len(others) else None
            counts[0] += a.size
            if b is None or b.shape != a.shape:
                counts[1] += a.size
                where = None if b is None else b.shape
                out.first = out.first or Divergence(rows[0], f"{name} (shape {where}, not {a.shape})", step, 0, 0, 0)
                continue
            wrong = a != b
            if wrong.any():
                counts[1] += int(wrong.sum())
                t, r, e = (int(v) for v in np.argwhere(wrong)[0])
                at = rows[r] if a.shape[1] == len(rows) else -1       # within greedy search, rows come and go
                out.first = out.first or Divergence(at, name, step + t, e, int(a[t, r, e]), int(b[t, r, e]))
            step += len(a)
    out.compared = sum(c for c, _ in out.by_value.values())
    out.different = sum(d for _, d in out.by_value.values())
