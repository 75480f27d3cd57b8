"""Greedy decoding of an RNN-T, batched, and frame by frame for streaming.

The model may be anything that keeps this protocol: the float network, the training module, the emulator; NumPy or torch.

``start(batch) -> (prediction, state)``
    What the prediction network says before the first token: as ``predict`` of the blank from a zero state.
``predict(tokens, state) -> (prediction, state)``
    One step for n rows.  tokens: int64 NumPy [n]; prediction: array [n, …], as ``joint`` wants it;
    state: tuple of arrays whose FIRST axis is the row, so that rows can be taken out and put back.
``joint(frames, prediction) -> scores``
    [n, …] encoder frames as ``encode`` gives them, [n, …] predictions -> [n, vocabulary]; the greatest wins, a tie goes to the
    lowest id (integer scores do tie, and every executor must break ties alike).  Id 0 is the blank.
``encode(features, lengths) -> (frames, lengths)``      (used by `transcribe` only)
    features [T, B, bins] -> frames [T', B, …] ready for ``joint``, and how many of them each row has.

Per frame: choose; a blank ends the frame; a token is emitted, fed to ``predict``, and the frame is asked again, at most
``max_symbols`` times.
"""
from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

MAX_SYMBOLS = 6


class Stepper(Protocol):
    """See the module's docstring."""
    def start(self, batch: int) -> tuple[Any, tuple]: ...
    def predict(self, tokens: NDArray, state: tuple) -> tuple[Any, tuple]: ...
    def joint(self, frames: Any, prediction: Any) -> Any: ...


@define(eq=False)
class Search:
    """Where the decoding of a batch stands.  ``tokens[b]``: ids emitted so far; ``frames[b]``: the frame of each."""
    tokens: list[list[int]]
    prediction: Any
    state: tuple
    frames: list[list[int]] = field(factory=list)
    time: int = 0


def begin(model: Stepper, batch: int) -> Search:
    """The state of decoding before the first frame."""
    prediction, state = model.start(batch)
    return Search([[] for _ in range(batch)], prediction, tuple(state), [[] for _ in range(batch)])


def _numpy(x: Any) -> NDArray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def advance(model: Stepper, search: Search, frame: Any, live: NDArray | None = None, max_symbols: int = MAX_SYMBOLS) -> None:
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


def greedy(model: Stepper, frames: Any, lengths: NDArray, max_symbols: int = MAX_SYMBOLS) -> list[list[int]]:
    """frames [T, B, …], lengths [B] -> token ids of each row."""
    lengths = _numpy(lengths)
    search = begin(model, len(lengths))
    for t in range(len(frames)):
        advance(model, search, frames[t], t < lengths, max_symbols)
    return search.tokens


def transcribe(model: Any, features: Any, lengths: Any, max_symbols: int = MAX_SYMBOLS) -> list[list[int]]:
    """Normalised features [T, B, bins], lengths [B] -> token ids of each row."""
    frames, frame_lengths = model.encode(features, lengths)
    return greedy(model, frames, frame_lengths, max_symbols)
