"""Greedy decoding of an RNN-T, batched, and frame by frame for streaming.

The model may be anything that keeps this protocol: the float network, the training module, the emulator; NumPy or
torch.

``start(batch) -> (prediction, state)``
    What the prediction network says before the first token: as ``predict`` of the blank from a zero state.
``predict(tokens, state) -> (prediction, state)``
    One step for n rows.  tokens: int64 NumPy [n]; prediction: array [n, …], as ``joint`` wants it;
    state: tuple of arrays whose FIRST axis is the row, so that rows can be taken out and put back.
``joint(frames, prediction) -> scores``
    [n, …] encoder frames as ``encode`` gives them, [n, …] predictions -> [n, vocabulary]; the greatest wins, a tie
    goes to the lowest id (integer scores do tie, and every executor must break ties alike).  Id 0 is the blank.
``encode(features, lengths) -> (frames, lengths)``      (used by `transcribe` only)
    features [T, B, bins] -> frames [T', B, …] ready for ``joint``, and how many of them each row has.

Per frame: choose; a blank ends the frame; a token is emitted, fed to ``predict``, and the frame is asked again, at most
``max_symbols`` times.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac.decode.search import MAX_SYMBOLS, ROUNDS, Found, Hypothesis, Search
from nnac.decode.search import numpy as _numpy


class Stepper(Protocol):
    """See the module's docstring."""
    def start(self, batch: int) -> tuple[Any, tuple]: ...
    def predict(self, tokens: NDArray, state: tuple) -> tuple[Any, tuple]: ...
    def joint(self, frames: Any, prediction: Any) -> Any: ...


@define(eq=False)
class Progress:
    """Where the decoding of a batch stands.  ``tokens[b]``: ids emitted so far; ``frames[b]``: the frame of each."""
    tokens: list[list[int]]
    prediction: Any
    state: tuple
    frames: list[list[int]] = field(factory=list)
    time: int = 0


def begin(model: Stepper, batch: int) -> Progress:
    """The state of decoding before the first frame."""
    prediction, state = model.start(batch)
    return Progress([[] for _ in range(batch)], prediction, tuple(state), [[] for _ in range(batch)])


def advance(model: Stepper, search: Progress, frame: Any, live: NDArray | None = None,
            max_symbols: int = MAX_SYMBOLS) -> None:
    """Take one encoder frame [B, …] into ``search``.  ``live`` [B] bool: rows that still have frames (default: all)."""
    rows = np.arange(len(search.tokens)) if live is None else np.flatnonzero(live)
    for _ in range(max_symbols):
        if len(rows) == 0:
            break
        chosen = _numpy(model.joint(frame[rows], search.prediction[rows])).argmax(-1)      # NumPy: the first of equals
        rows, chosen = rows[chosen != 0], chosen[chosen != 0].astype(np.int64)
        if len(rows) == 0:
            break
        for row, token in zip(rows, chosen, strict=True):
            search.tokens[row].append(int(token))
            search.frames[row].append(search.time)
        prediction, state = model.predict(chosen, tuple(s[rows] for s in search.state))
        search.prediction[rows] = prediction
        for old, new in zip(search.state, state, strict=True):
            old[rows] = new
    search.time += 1


@frozen
class Greedy(Search):
    """The best output of every frame: one hypothesis, no score.  See the module."""

    kind = "greedy"
    goes_forward = True
    max_symbols: int = MAX_SYMBOLS

    def begin(self, model: Stepper, lengths: NDArray) -> _Greedily:
        return _Greedily(self, model, lengths, begin(model, len(lengths)))

    def rounds(self, emitted: list[list[int]], lengths: NDArray) -> NDArray:
        """A frame with n labels asks the joint n + 1 times, or ``max_symbols`` times; the prediction after a label
        counts to the next round."""
        out = []
        for u, (frames, length) in enumerate(zip(emitted, lengths, strict=True)):
            waiting = 1                                                       # the prediction before any label
            for t, labels in enumerate(np.bincount(np.asarray(frames, np.int64), minlength=int(length)).tolist()):
                for i in range(min(labels + 1, self.max_symbols)):
                    out.append((u, t, waiting, 1))
                    waiting = int(i < labels)
            if waiting:                                                    # asked for at once, though no frame follows
                out.append((u, max(0, int(length) - 1), waiting, 0))
        return np.array(out, ROUNDS)


@frozen(eq=False)
class _Greedily:
    """Greedy search on its way."""

    how: Greedy
    model: Stepper
    lengths: NDArray
    search: Progress

    def take(self, frame: Any) -> None:
        advance(self.model, self.search, frame, self.search.time < self.lengths, self.how.max_symbols)

    def found(self) -> Found:
        tokens, frames = self.search.tokens, self.search.frames
        best = [[Hypothesis(tuple(k), tuple(f))] for k, f in zip(tokens, frames, strict=True)]
        return Found(best, self.how.rounds(frames, self.lengths))


def greedy(model: Stepper, frames: Any, lengths: NDArray, max_symbols: int = MAX_SYMBOLS) -> list[list[int]]:
    """frames [T, B, …], lengths [B] -> token ids of each row."""
    return [list(h.tokens) for h in Greedy(max_symbols).over(model, frames, _numpy(lengths)).best]


def transcribe(model: Any, features: Any, lengths: Any, max_symbols: int = MAX_SYMBOLS) -> list[list[int]]:
    """Normalised features [T, B, bins], lengths [B] -> token ids of each row."""
    return [list(h.tokens) for h in Greedy(max_symbols)(model, features, lengths).best]
