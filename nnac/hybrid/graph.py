"""The decoding graph: every sequence of HMM states that says words of the lexicon in an order the language model knows.

A weighted transducer, states in and words out, made directly from the n-gram's contexts, the lexicon and the topology:
the composition H o C o L o G of Mohri, Pereira and Riley (2002), which needs no determinisation at this size.

    (context, left phone) ──word's first phone──▶ rest of the word ──▶ after (context', last phone) ─┬──────▶ (…, last)
                                                                                                     └─ SIL ─▶ (…, SIL)

What follows a word's first phone depends on the word and on the context it leads to alone, and is there once for all
contexts before it.  Backing off is an epsilon, as usual: a path may also back off where it need not.  Weights are costs
in nats: language model, pauses, and half for every frame more of a second half (`nnac.hybrid.topology`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.errors import ABSURD, UserError
from nnac.hybrid.states import Inventory
from nnac.hybrid.topology import PAUSE, STAY

KIND = "decoding-graph"
Context = tuple[int, ...]
Contexts = Mapping[Context, tuple[Mapping[int, float], float]]
"""Of a back-off model (`nnac.decode.ngram.NGram.contexts`): context -> ({word: log p}, log back-off weight)."""


class GraphError(UserError):
    """A graph that cannot be made, or does not belong to the network it is used with; one line."""


@frozen(eq=False, slots=False)
class Graph:
    """arcs [n, 4] int32: from, to, HMM state + 1 (0: none), word (0: none)      costs [n] float32, nats
    finals [m] int32, states where a sentence may end, with ``ends`` [m] float32      start is state 0
    inventory  the digest of whose states it is      words  by number, from 1
    """

    inventory: str
    words: tuple[str, ...]
    arcs: NDArray[np.int32]
    costs: NDArray[np.float32]
    finals: NDArray[np.int32]
    ends: NDArray[np.float32]
    made: Mapping[str, Any] = field(factory=dict)

    @cached_property
    def states(self) -> int:
        return int(self.arcs[:, :2].max()) + 1

    def check(self, inventory: Inventory, called: str = "the graph") -> None:
        """GraphError: its inputs are other states than the network's outputs."""
        if self.inventory != inventory.digest:
            raise GraphError(f"{called}: of another inventory of states ({self.inventory[:12]}) than the network's "
                             f"({inventory.digest[:12]}, {inventory}): make it for this network with `nnac graph`")
        if (most := int(self.arcs[:, 2].max())) > inventory.count:
            raise GraphError(f"{called}: its arcs read state {most:,}, the network has {inventory.count}: make it for "
                             f"this network with `nnac graph`")

    def save(self, path: str | os.PathLike[str]) -> None:
        checkpoint.save(path, dict(arcs=self.arcs, costs=self.costs, finals=self.finals, ends=self.ends),
                        dict(kind=KIND, inventory=self.inventory, words=list(self.words), made=dict(self.made)))

    def __str__(self) -> str:
        return f"{self.states:,} states, {len(self.arcs):,} arcs, {len(self.words)} words"


def load(path: str | os.PathLike[str]) -> Graph:
    """CheckpointError: absent, damaged, of another kind, or arcs that lead nowhere."""
    file = checkpoint.load(path, KIND)
    try:
        t, words = file.tensors, tuple(str(w) for w in file.metadata["words"])
        made = Graph(str(file.metadata["inventory"]), words, t["arcs"], t["costs"], t["finals"], t["ends"],
                     file.metadata.get("made", {}))
        if made.arcs.ndim != 2 or made.arcs.shape[1] != 4 or made.arcs.dtype != np.int32 or not len(made.arcs):
            raise ValueError("arcs are rows of four 32-bit numbers")
        if made.costs.shape != (len(made.arcs),) or made.ends.shape != made.finals.shape or not len(made.finals):
            raise ValueError("costs that do not belong to the arcs or ends")
        if made.costs.dtype != np.float32 or made.ends.dtype != np.float32 or made.finals.dtype != np.int32:
            raise ValueError("costs and ends are 32-bit numbers")
        if made.arcs.min() < 0 or made.arcs[:, 3].max() > len(words) or not (
                0 <= made.finals.min() <= made.finals.max() < made.states) or made.states > 4 * len(made.arcs) + 4:
            raise ValueError("arcs that lead nowhere, or words that are none")
        if _turns(made.arcs[made.arcs[:, 2] == 0]):
            raise ValueError("arcs that read nothing and lead back to where they begin: no search of it would end")
        return made
    except ABSURD as error:
        raise CheckpointError(f"{path}: does not describe a decoding graph: "
                              f"{' '.join(str(error).split())[:200]}") from None


def _turns(arcs: NDArray) -> bool:
    """Whether a path of these arcs comes back to a state that it left: what no order of the states rules out."""
    import networkx  # 0.2 s: only who reads a graph pays

    return not networkx.is_directed_acyclic_graph(networkx.DiGraph(arcs[:, :2].tolist()))


@define
class _Arcs:
    """What has been made so far."""

    count: int = 0
    rows: list[tuple[int, int, int, int]] = field(factory=list)
    costs: list[float] = field(factory=list)

    def fresh(self) -> int:
        self.count += 1
        return self.count - 1

    def put(self, source: int, target: int, state: int = 0, word: int = 0, cost: float = 0.0) -> None:
        self.rows.append((source, target, state, word))
        self.costs.append(cost)


def build(contexts: Contexts, order: int, inventory: Inventory, made: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a back-off model over the lexicon's words (id k: the k-th word; 0: the sentence's start and end).

    GraphError: the model knows no sentence.
    """
    lexicon, table = inventory.lexicon, inventory.table
    words = tuple(lexicon.words)
    said = [lexicon.said(w) for w in words]
    if () not in contexts or not any(0 in seen for seen, _ in contexts.values()):
        raise GraphError("the language model ends no sentence: there is nothing to decode")
    out = _Arcs()
    start = out.fresh()
    places: dict[tuple[Context, int], int] = {}
    rests: dict[tuple[int, int, Context], int] = {}
    afters: dict[tuple[Context, int], int] = {}
    todo: list[tuple[Context, int]] = []

    def place(context: Context, left: int) -> int:
        """The state of a context after a phone."""
        if (key := (context, left)) not in places:
            places[key] = out.fresh()
            todo.append(key)
        return places[key]

    def phone(source: int, number: int, left: int, target: int, word: int = 0, cost: float = 0.0) -> None:
        """A phone from one state to another."""
        first, second = out.fresh(), out.fresh()
        halves = [int(s) + 1 for s in table[number, left]]
        out.put(source, first, halves[0], word, cost)
        out.put(first, target, cost=-math.log(1 - STAY))
        out.put(first, second, halves[1], cost=-math.log(STAY))
        out.put(second, second, halves[1], cost=-math.log(STAY))
        out.put(second, target, cost=-math.log(1 - STAY))

    def after(context: Context, last: int) -> int:
        """Where a word ends: silence may follow."""
        if (key := (context, last)) not in afters:
            afters[key] = out.fresh()
            out.put(afters[key], place(context, last), cost=-math.log(1 - PAUSE))
            phone(afters[key], 0, 0, place(context, 0), cost=-math.log(PAUSE))
        return afters[key]

    def rest(word: int, way: int, context: Context) -> int:
        """What follows the first phone of a word that leads to ``context``."""
        if (key := (word, way, context)) not in rests:
            phones, rests[key] = said[word - 1][way], out.fresh()
            at = rests[key]
            for left, number in pairwise(phones):
                following = out.fresh()
                phone(at, number, left, following)
                at = following
            out.put(at, after(context, phones[-1]))
        return rests[key]

    first = (0,) if (0,) in contexts else ()
    phone(start, 0, 0, place(first, 0), cost=-math.log(1 - PAUSE))     # most recordings begin with silence
    out.put(start, place(first, 0), cost=-math.log(PAUSE))
    ends: dict[int, float] = {}
    while todo:
        context, left = todo.pop()
        at, (seen, backoff) = places[context, left], contexts[context]
        if context:
            out.put(at, place(context[1:], left), cost=-backoff)
        for word, log in seen.items():
            if word == 0:
                ends[at] = -log
                continue
            to = (*context, word)[max(0, len(context) + 2 - order):]
            while to not in contexts:
                to = to[1:]
            for way, phones in enumerate(said[word - 1]):
                phone(at, phones[0], left, rest(word, way, to), word, -log)
    finals = sorted(ends)
    return Graph(inventory.digest, words, np.array(out.rows, np.int32), np.array(out.costs, np.float32),
                 np.array(finals, np.int32), np.array([ends[f] for f in finals], np.float32), made or {})
