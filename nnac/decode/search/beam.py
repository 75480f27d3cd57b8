"""Time-synchronous beam search with prefix merging, in integers, batched.

Scores are integers in units of 2^-11 nat, saturated to 32 bits.  Per utterance and frame, from at most K hypotheses
of different prefixes:

1.  Levels s = 0, 1, …, S.  A hypothesis of level s may end the frame: its score plus that of the blank less the blank
    penalty; at level S, the cap, it ends free of charge, as greedy search does.  Before the cap it may emit any
    label: its score plus ``lp(label)`` plus what fusion says of the label (`nnac.decode.fusion`).  Of these the K
    best go to level s + 1 if they lie within delta of the best that has ended by now: ``score > best - delta``.  Ties
    go by the parent's place, then by the label.
2.  At the frame's end hypotheses of one prefix become one: their scores are added as probabilities (`arith.log_add`)
    in the order of levels; label times are those of the best of them, the earliest level's among equals.  The K best
    stay; ties go by the earliest level, then place.

So beam 1 is not greedy: it keeps the best prefix that has ended, where greedy stops at the first blank.  No sort is
left to chance: two executors that agree on log-probabilities give the same n-best lists, scores and times.  A
hypothesis of one utterance never meets those of another.

The model keeps the protocol of `nnac.decode.search.greedy.Stepper` except ``joint``, and answers `Scorer.scores` (and
`internal`).  What it says of a prefix is asked for once, when first needed, and kept for all utterances that come by it
(`_Prefixes`), until none has for `AGE` frames: an hour has more prefixes than there is memory.

Source: the prefix search of Graves 2012 (arXiv 1211.3711) made time-synchronous, as is usual (background: the baseline
of Saon, Tüske, Audhkhasi, ICASSP 2020); levels within a frame, the free end at the cap and the integers are our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
from attrs import define, field, frozen
from attrs.validators import ge, le
from numpy.typing import NDArray

from nnac import arith
from nnac.decode.fusion import Fusion, FusionError, LanguageModel, fixed
from nnac.decode.search import MAX_SYMBOLS, ROUNDS, Found, Hypothesis, Search

SCORE_BITS = 32
ROOM = 2_048             # nodes that a tree grows by before it is pruned (our choice)
AGE = 256                # frames that a prefix is remembered for, 20 s here: then it is asked for anew (our choice)
ENOUGH_PREFIXES = 8      # that say one thing: then the model has no internal language model (our choice)


class Scorer(Protocol):
    """What beam search asks of a model.  ``start`` and ``predict`` as in `nnac.decode.search.greedy.Stepper`."""

    def start(self, batch: int) -> tuple[Any, tuple]: ...
    def predict(self, tokens: NDArray, state: tuple) -> tuple[Any, tuple]: ...

    def scores(self, frames: Any, prediction: Any) -> NDArray:
        """Log-probabilities int64 [n, vocabulary], in int16 Q4.11, of n encoder frames and predictions; column 0 is
        the blank."""
        ...

    def language(self, entry: str) -> LanguageModel:
        """The language model beside the recogniser that has this name.  FusionError: there is none."""
        ...

    def internal(self, prediction: Any) -> NDArray:
        """The internal language model's log-probabilities of the labels, likewise; column 0 is 0."""
        ...


@frozen
class Beam(Search):
    """See the module.

    beam     K, hypotheses kept         max_symbols  S, labels a frame may emit
    delta    in nats                    nbest        how many hypotheses are given back; no more than K exist
    blank_penalty  nats taken from the blank at every frame: against deletions
    """

    kind = "beam"
    moves = True
    goes_forward = True
    beam: int = field(default=8, validator=[ge(1), le(1 << 10)])
    max_symbols: int = field(default=MAX_SYMBOLS, validator=[ge(1), le(64)])
    delta: float = field(default=5.0, validator=[ge(0.0), le(1e6)])
    blank_penalty: float = field(default=0.0, validator=[ge(-16.0), le(16.0)])
    nbest: int = field(default=1, validator=ge(1))
    fusion: Fusion = field(factory=Fusion)

    def asked(self, rounds: NDArray) -> dict[str, NDArray]:
        calls = super().asked(rounds)
        if self.fusion.internal:                                                               # the joint once more
            calls["joint"] = np.concatenate([calls["joint"], calls["prediction"]])
        return calls | dict.fromkeys(self.fusion.entries, calls["prediction"])

    def begin(self, model: Scorer, lengths: NDArray) -> _Beaming:
        return _Beaming(self, model, lengths)


@define(eq=False)
class _Beaming:
    """Beam search on its way."""

    how: Beam
    model: Scorer
    lengths: NDArray
    time: int = 0
    hypotheses: _Hypotheses = field(init=False)
    prefixes: _Prefixes = field(init=False)
    paths: _Paths = field(init=False, factory=lambda: _Paths())
    rounds: bytearray = field(init=False, factory=bytearray)   # of `ROUNDS`; an array a round takes ten times that

    def __attrs_post_init__(self) -> None:
        rows = len(self.lengths)
        self.prefixes = _Prefixes(self.model, self.how.fusion)
        self.hypotheses = _Hypotheses(np.arange(rows), np.zeros(rows, np.int64), np.zeros(rows, np.int64),
                                      np.full(rows, -1))

    def take(self, frame: Any) -> None:
        h = self.hypotheses
        live = self.lengths[h.utterance] > self.time
        if live.any():
            after = self._frame(frame, h[live])
            h = after if live.all() else h[~live].joined(after)
            self.hypotheses = _Hypotheses(h.utterance, self.prefixes.pruned(h.prefix, self.time), h.score,
                                          self.paths.pruned(h.path))
        self.time += 1

    def found(self) -> Found:
        out: list[list[Hypothesis]] = [[] for _ in self.lengths]
        for u, prefix, score, path in self.hypotheses.rows():
            if len(out[u]) < self.how.nbest:
                out[u].append(Hypothesis(self.prefixes.tokens(prefix), self.paths.times(path), score))
        return Found(out, np.frombuffer(bytes(self.rounds), ROUNDS))

    def _frame(self, frame: Any, level: _Hypotheses) -> _Hypotheses:
        """One frame: the hypotheses after it, those of an utterance side by side, best first.  ``level``: the same,
        before it."""
        how, prefixes, ended = self.how, self.prefixes, list[_Hypotheses]()
        best = np.full(int(level.utterance.max()) + 1, -(1 << 62))
        penalty, delta = fixed(how.blank_penalty, arith.LOG_FRACTION), fixed(how.delta, arith.LOG_FRACTION)
        for _ in range(how.max_symbols):
            fresh = prefixes.prepare(level.prefix, level.utterance, self.time)
            rows = self.model.scores(frame[level.utterance], prefixes.prediction(level.prefix))
            self.rounds += _round(self.time, level.utterance, fresh).tobytes()
            done = arith.saturate(level.score + rows[:, 0] - penalty, SCORE_BITS)
            ended.append(level.scored(done))
            np.maximum.at(best, level.utterance, done)
            said = rows[:, 1:] + prefixes.worth(level.prefix)[:, 1:] if how.fusion else rows[:, 1:]
            said = arith.saturate(level.score[:, None] + said, SCORE_BITS)
            parent, label = np.nonzero(said > (best[level.utterance] - delta)[:, None])
            chosen = _best(level.utterance[parent], said[parent, label], how.beam, parent, label)
            if not len(chosen):
                return _merged(ended, how.beam)
            parent, label = parent[chosen], label[chosen]
            level = _Hypotheses(level.utterance[parent], prefixes.extend(level.prefix[parent], label + 1),
                                said[parent, label], self.paths.extend(level.path[parent], self.time))
        ended.append(level)
        return _merged(ended, how.beam)


@frozen(eq=False)
class _Hypotheses:
    """Columns of one length: utterance, prefix (a node of `_Prefixes`), score, path (a node of `_Paths`).  Sorted by
    utterance."""

    utterance: NDArray
    prefix: NDArray
    score: NDArray
    path: NDArray

    def __getitem__(self, which: NDArray) -> _Hypotheses:
        return _Hypotheses(self.utterance[which], self.prefix[which], self.score[which], self.path[which])

    def scored(self, score: NDArray) -> _Hypotheses:
        return _Hypotheses(self.utterance, self.prefix, score, self.path)

    def joined(self, other: _Hypotheses) -> _Hypotheses:
        """Both, sorted by utterance; within one, in the order they have."""
        whole = _together([self, other])
        return whole[np.argsort(whole.utterance, kind="stable")]

    def rows(self) -> list[tuple[int, int, int, int]]:
        return list(zip(*(c.tolist() for c in self.columns()), strict=True))

    def columns(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        return self.utterance, self.prefix, self.score, self.path


def _together(parts: list[_Hypotheses]) -> _Hypotheses:
    return _Hypotheses(*map(np.concatenate, zip(*(p.columns() for p in parts), strict=True)))


def _best(utterance: NDArray, score: NDArray, count: int, *ties: NDArray) -> NDArray:
    """Indices of the ``count`` best of each utterance, sorted by utterance, falling score, then ``ties``, the first
    the weightiest."""
    order = np.lexsort((*reversed(ties), -score, utterance))
    sorted_ = utterance[order]
    return order[np.arange(len(order)) - np.searchsorted(sorted_, sorted_) < count]


@cache
def _log_add_entries() -> NDArray:
    return arith.log_add_table().entries.astype(np.int64)


def _merged(ended: list[_Hypotheses], count: int) -> _Hypotheses:
    """The ``count`` best prefixes of each utterance, from those that ended the frame at each level."""
    whole = _together(ended)
    _, first, group = np.unique(whole.utterance << 40 | whole.prefix, return_index=True, return_inverse=True)
    entries = _log_add_entries()
    total, leader, at = whole.score[first], first.copy(), 0
    for level in ended:                       # a prefix comes once in a level; ``first`` is in the earliest that has it
        here = group[at:at + len(level.score)]
        where = np.arange(at, at + len(level.score))
        again = first[here] < at
        here, where = here[again], where[again]
        total[here] = arith.saturate(arith.log_add(total[here], whole.score[where], entries), SCORE_BITS)
        better = whole.score[where] > whole.score[leader[here]]
        leader[here[better]] = where[better]
        at += len(level.score)
    merged = _Hypotheses(whole.utterance[first], whole.prefix[first], total, whole.path[leader])
    return merged[_best(merged.utterance, total, count, first)]


def _round(t: int, utterance: NDArray, fresh: NDArray) -> NDArray:
    """What each utterance asks for in one round: ``fresh`` lists the utterance of every prefix that is new to it."""
    counts = np.bincount(utterance)
    asked = np.flatnonzero(counts)
    out = np.zeros(len(asked), ROUNDS)
    out["utterance"], out["frame"], out["joint"] = asked, t, counts[asked]
    out["prediction"] = np.bincount(fresh, minlength=len(counts))[asked]
    return out


# ------------------------------------------------------------------------------------------- what is kept of prefixes

class _Prefixes:
    """The tree of prefixes with what model and language models say of each; node 0 is the empty one.

    A prefix costs one step when it is first scored, whichever utterance asks; `prepare` says for which utterances it
    was new.
    """

    def __init__(self, model: Scorer, fusion: Fusion) -> None:
        self._model, self._fusion = model, fusion
        self._models = [model.language(m) if isinstance(m, str) else m for m in fusion.models]
        self._parent, self._token = [-1], [0]
        self._limit = ROOM
        self._child: dict[tuple[int, int], int] = {}
        self._known: dict[tuple[int, int], int] = {}                   # (utterance, prefix) -> when it last came by
        self._ready = np.zeros(1, bool)
        self._kept = _Kept()
        self._languages = [_Kept() for _ in fusion.models]
        self._worth = _Kept()
        self._first: NDArray | None = None                                     # what `_internal` first said
        # prefixes that said so too; -1: one did not
        self._same = 0

    def extend(self, parents: NDArray, tokens: NDArray) -> NDArray:
        """The nodes of ``parents`` with one more token each."""
        out = np.empty(len(parents), np.int64)
        for i, key in enumerate(zip(parents.tolist(), tokens.tolist(), strict=True)):
            node = self._child.get(key)
            if node is None:
                node = self._child[key] = len(self._parent)
                self._parent.append(key[0])
                self._token.append(key[1])
            out[i] = node
        return out

    def prepare(self, nodes: NDArray, utterance: NDArray, time: int) -> NDArray:
        """Have the models' word on ``nodes``; returns the utterance of every node that it had not asked about
        before, or has forgotten."""
        asked = list(zip(utterance.tolist(), nodes.tolist(), strict=True))
        fresh = [pair for pair in asked if self._known.get(pair, -AGE - 1) < time - AGE]
        self._known.update(dict.fromkeys(asked, time))
        if len(self._ready) < len(self._parent):
            self._ready = np.concatenate([self._ready, np.zeros(2 * len(self._parent) - len(self._ready), bool)])
        missing = np.unique(nodes[~self._ready[nodes]])
        if len(missing):
            self._ask(missing)
            self._ready[missing] = True
        return np.array([u for u, _ in fresh], np.int64)

    def _ask(self, nodes: NDArray) -> None:
        if nodes[0] == 0:                                     # the empty prefix comes first, and alone
            assert len(nodes) == 1, "a prefix is asked for before its parent"
            prediction, state = self._model.start(1)
            said = [m.start() for m in self._models]
        else:
            parents = np.array([self._parent[n] for n in nodes.tolist()], np.int64)
            tokens = np.array([self._token[n] for n in nodes.tolist()], np.int64)
            prediction, state = self._model.predict(tokens, tuple(self._kept.get(parents)[1:]))
            said = [m.step(tokens, tuple(kept.get(parents)))
                    for m, kept in zip(self._models, self._languages, strict=True)]
        self._kept.put(nodes, [prediction, *state])
        for kept, (_, after) in zip(self._languages, said, strict=True):
            kept.put(nodes, list(after))
        if self._fusion:
            rows = [row for row, _ in said] + ([self._internal(prediction)] if self._fusion.internal else [])
            self._worth.put(nodes, [self._fusion.worth(rows) if rows else self._bonus(nodes)])

    def _internal(self, prediction: Any) -> NDArray:
        """The internal language model's rows.  FusionError: there is none, for it says the same after every prefix."""
        rows = np.asarray(self._model.internal(prediction))
        if self._same >= 0 and rows.shape[1] > 2:
            first = rows[0] if self._first is None else self._first
            self._first, self._same = first, self._same + len(rows) if (rows == first).all() else -1
            if self._same >= ENOUGH_PREFIXES:
                raise FusionError("this model has no internal language model to take off: with its encoder at zero its "
                                  "joint says the same after every prefix, as a joint that multiplies does; density "
                                  "ratio, with a language model of the training text, needs none")
        return rows

    def _bonus(self, nodes: NDArray) -> NDArray:
        """What the bonus alone is worth: the same for every label."""
        return np.broadcast_to(np.array([[0, fixed(self._fusion.bonus, arith.LOG_FRACTION)]]), (len(nodes), 2))

    def pruned(self, alive: NDArray, time: int) -> NDArray:
        """``alive``, as its nodes are called now: where there are many, those are forgotten that nobody has come by for
        long, or can come by again, for they do not follow one of ``alive``.  Of what comes before these the tokens
        stay, and the state from which one goes on that was not asked for yet."""
        count = len(self._parent)
        if count < self._limit:
            return alive
        again = np.zeros(count, bool)
        again[alive] = True
        for node, parent in enumerate(self._parent):                           # a parent comes before its children
            if parent >= 0 and again[parent]:
                again[node] = True
        self._known = {key: last for key, last in self._known.items() if last >= time - AGE and again[key[1]]}
        held = np.zeros(count, bool)
        held[[node for _, node in self._known]] = True
        # the empty prefix has none before it.  Of an utterance that has ended no prefix is asked for again, and what
        # comes before it may have been forgotten already: there is nothing to hold
        before = np.array([self._parent[n] for n in alive.tolist() if n and not held[n]], np.int64)
        held[before[self._ready[before]]] = True
        kept = _above(np.concatenate([np.flatnonzero(held), alive]), self._parent)
        to, self._parent, self._token = _renumbered(kept, self._parent, self._token)
        self._child = {(to[p], token): to[n] for (p, token), n in self._child.items() if kept[n] and again[p]}
        self._known = {(u, to[n]): last for (u, n), last in self._known.items()}
        now = np.array(to, np.int64)
        for rows in (self._kept, *self._languages, self._worth):
            rows.keep(np.flatnonzero(held), now)
        self._ready = np.zeros(len(self._parent), bool)
        self._ready[now[held]] = True
        self._limit = len(self._parent) + ROOM + int(held.sum())
        return now[alive]

    def prediction(self, nodes: NDArray) -> Any:
        return self._kept.get(nodes)[0]

    def worth(self, nodes: NDArray) -> NDArray:
        """What fusion adds to each label of each prefix [n, vocabulary]."""
        return self._worth.get(nodes)[0]

    def tokens(self, node: int) -> tuple[int, ...]:
        return tuple(self._token[n] for n in _back(node, self._parent.__getitem__, 0))


@define(eq=False)
class _Kept:
    """Rows of several arrays (NumPy or torch) by node; room doubles as it is needed.  ``_at[node]``: where its row
    is."""

    _arrays: list[Any] = field(factory=list)
    _at: NDArray = field(factory=lambda: np.zeros(0, np.int64))
    _count: int = 0

    def put(self, nodes: NDArray, rows: list[Any]) -> None:
        first = self._count
        self._count += len(nodes)
        if not self._arrays:
            self._arrays = [_room(r, self._count) for r in rows]
        for i, (array, row) in enumerate(zip(self._arrays, rows, strict=True)):
            if len(array) < self._count:
                larger = _room(array, 2 * self._count)
                larger[:len(array)] = array
                self._arrays[i] = larger
            self._arrays[i][first:self._count] = row
        if len(self._at) <= nodes.max():
            self._at = np.concatenate([self._at, np.zeros(2 * int(nodes.max()) + 1 - len(self._at), np.int64)])
        self._at[nodes] = np.arange(first, self._count)

    def keep(self, nodes: NDArray, to: NDArray) -> None:
        """The rows of ``nodes`` alone, which are called ``to[node]`` from here on."""
        if self._arrays:
            self._arrays, self._count = self.get(nodes), len(nodes)
            self._at = np.zeros(int(to.max()) + 1, np.int64)
            self._at[to[nodes]] = np.arange(len(nodes))

    def get(self, nodes: NDArray) -> list[Any]:
        return [a[self._at[nodes]] for a in self._arrays]


def _room(like: Any, rows: int) -> Any:
    """An array of the same kind with ``rows`` rows, its contents undefined."""
    shape = (rows, *like.shape[1:])
    return like.new_empty(shape) if hasattr(like, "new_empty") else np.empty(shape, like.dtype)


class _Paths:
    """When each label of a hypothesis was emitted: a tree of (parent, frame); -1 is the empty path."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._time: list[int] = []
        self._limit = ROOM

    def extend(self, parents: NDArray, time: int) -> NDArray:
        first = len(self._parent)
        self._parent += parents.tolist()
        self._time += [time] * len(parents)
        return np.arange(first, first + len(parents))

    def pruned(self, alive: NDArray) -> NDArray:
        """As that of `_Prefixes`."""
        if len(self._parent) < self._limit:
            return alive
        kept = _above(alive, self._parent)
        to, self._parent, self._time = _renumbered(kept, self._parent, self._time)
        self._limit = len(self._parent) + ROOM
        return np.array([*to, -1], np.int64)[alive]

    def times(self, path: int) -> tuple[int, ...]:
        return tuple(self._time[p] for p in _back(path, self._parent.__getitem__, -1))


def _back(node: int, parent: Callable[[int], int], root: int) -> list[int]:
    """The nodes from below ``root`` to ``node``, in that order."""
    out = []
    while node != root:
        out.append(node)
        node = parent(node)
    return out[::-1]


def _above(nodes: NDArray, parent: list[int]) -> NDArray:
    """Which nodes of a tree are ``nodes`` or lie between them and its root, as a mask."""
    seen = np.zeros(len(parent), bool)
    for node in nodes.tolist():
        while node >= 0 and not seen[node]:
            seen[node] = True
            node = parent[node]
    return seen


def _renumbered(kept: NDArray, parent: list[int], value: list[int]) -> tuple[list[int], list[int], list[int]]:
    """(the new name of every node, parents, values) of a tree of which only ``kept`` stay; a node's parent stays with
    it."""
    to = np.where(kept, np.cumsum(kept) - 1, -1).tolist()
    stay = np.flatnonzero(kept).tolist()
    return to, [to[parent[n]] if parent[n] >= 0 else -1 for n in stay], [value[n] for n in stay]
