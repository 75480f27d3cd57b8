"""Search: from scores to words.  One file a search, found by the file's name; nothing else knows which there are.

A search is a frozen object with its settings; called on a model and features it gives, for every utterance, the n
best hypotheses and what finding them has cost (`Found`).  What the model must be able to do is the search's own
business: greedy compares the joint's outputs (`greedy.Stepper`), beam search wants log-probabilities (`beam.Scorer`).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.entry import Calls

MAX_SYMBOLS = 6                # labels a frame may emit: this model speaks in bursts, and a smaller cap loses words
ROUNDS = np.dtype([("utterance", np.int32), ("frame", np.int32), ("prediction", np.int32), ("joint", np.int32)])


@frozen
class Hypothesis:
    """``times[i]``: the encoder frame that emitted ``tokens[i]``.  ``score``: in units of 2^-11 nat; None where the
    search keeps none."""

    tokens: tuple[int, ...]
    times: tuple[int, ...] = ()
    score: int | None = None


@frozen(eq=False)
class Found:
    """What a search found.

    nbest   for every utterance its hypotheses, best first; at least one
    rounds  [n] of `ROUNDS`, in the order of time: one round asks the prediction network (and language models) for
            ``prediction`` new prefixes, then the joint for ``joint`` hypotheses, counted as a device that serves this
            utterance alone would have asked (beam search asks anew for a prefix that it has not come by for long)
    """

    nbest: list[list[Hypothesis]]
    rounds: NDArray = field(factory=lambda: np.zeros(0, ROUNDS))

    @property
    def best(self) -> list[Hypothesis]:
        return [hypotheses[0] for hypotheses in self.nbest]


class Machine(Protocol):
    """What has a price: a program, or the emulator of one."""

    def calls(self, entry: str, moved: bool = False) -> Calls:
        """As `nnac.program.Program.calls`."""
        ...


class Going(Protocol):
    """A search on its way, which takes the frames one after the other."""

    def take(self, frame: Any) -> None:
        """One more frame [B, …]; rows that have no more frames pass it by."""
        ...

    def found(self) -> Found:
        """What it has found when all frames are taken."""
        ...


class Search:
    """Base of all searches.  A subclass sets ``kind`` to the name of its file and defines `begin`, or `over`.

    moves  it goes on with another hypothesis at every step, so the host carries the states of each
    """

    kind: ClassVar[str]
    moves: ClassVar[bool] = False
    # whether it takes the frames one after the other, so that a stream of them is enough
    goes_forward: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        _registry[cls.kind] = cls

    def begin(self, model: Any, lengths: NDArray) -> Going:
        """Before the first frame of rows that have ``lengths`` [B] of them; of a search that ``goes_forward``."""
        raise NotImplementedError

    def over(self, model: Any, frames: Any, lengths: NDArray) -> Found:
        """Search encoder frames [T, B, …], of which each row has ``lengths`` [B]."""
        going = self.begin(model, lengths)
        for t in range(len(frames)):
            going.take(frames[t])
        return going.found()

    def asked(self, rounds: NDArray) -> dict[str, NDArray]:
        """Entry -> of how many hypotheses each of its calls is, where a round is one call."""
        return dict(prediction=rounds["prediction"], joint=rounds["joint"])

    def steps(self, rounds: NDArray) -> dict[str, int]:
        """Entry -> its steps that ``rounds`` stand for, a hypothesis a step."""
        return {entry: int(counts.sum()) for entry, counts in self.asked(rounds).items()}

    def cycles(self, machine: Machine, rounds: NDArray) -> int:
        """What a machine takes for ``rounds``: the cheapest calls that cover the hypotheses of each."""
        total = 0
        for entry, counts in self.asked(rounds).items():
            calls = machine.calls(entry, self.moves)
            many, often = np.unique(counts, return_counts=True)
            total += sum(sum(calls.several(n)) * k for n, k in zip(many.tolist(), often.tolist(), strict=True))
        return total

    def __call__(self, model: Any, features: Any, lengths: Any) -> Found:
        """Normalised features [T, B, bins], lengths [B] -> what was found for each row."""
        frames, frame_lengths = model.encode(features, lengths)
        return self.over(model, frames, numpy(frame_lengths))


_registry: dict[str, type[Search]] = {}


def names() -> list[str]:
    """The names of all searches, without importing any."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def search(kind: str) -> type[Search]:
    """The search called ``kind``.  KeyError if there is none."""
    if kind not in names():
        raise KeyError(kind)
    importlib.import_module(f"{__name__}.{kind}")
    return _registry[kind]


def numpy(x: Any) -> NDArray:
    """An array or a tensor of any device as NumPy."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
