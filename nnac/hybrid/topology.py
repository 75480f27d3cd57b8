"""The HMM of a phone, and of an utterance: which state may follow which.

A phone has two halves.  Its first half lasts one frame; its second any number of frames, none included (`PICTURE`).
So a phone lasts 30 ms at the least (frames of 30 ms), and a word of four phones 120.  Silence, before, between and
after words, has the same two halves and may be left out everywhere.  Source: the topology of "chain" models (Povey et
al. 2016, "Purely sequence-trained neural networks for ASR based on lattice-free MMI"), which suits frames this long.

An utterance is the graph of all ways to say its words: every pronunciation, with and without silence.  A phone is seen
with its left neighbour (`Unit`), silence included: a word's first phone is there twice, after the word before and after
silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.hybrid.lexicon import Lexicon

HALVES = 2
STAY = 0.5                    # probability of another frame of a second half (our choice; only decoding asks)
PAUSE = 0.2                   # of silence between two words (our choice; only decoding asks)
PICTURE = """\
──▶ (first) ──┬────────────────▶      a frame in `first`, always one
              └─▶ (second) ─┬──▶      then as many in `second` as the phone lasts
                    ▲       │
                    └───────┘"""
Unit = tuple[int, int, int]   # (phone, left neighbour, half); silence has no left neighbour: 0 there
START = -1


@frozen(eq=False)
class Utterance:
    """The HMM of one text.

    units         [nodes, 3] (phone, left, half) of every node
    predecessors  [nodes, most] nodes from which each is entered, itself among them; -1: from the start; `nowhere`
                  fills up      ends  nodes in which the utterance may end
    """

    units: NDArray[np.int32]
    predecessors: NDArray[np.int32]
    ends: NDArray[np.int32]

    @property
    def nodes(self) -> int:
        return len(self.units)

    @property
    def nowhere(self) -> int:
        return self.nodes


def utterance(words: Sequence[str], lexicon: Lexicon) -> Utterance:
    """The HMM of a sequence of words.  LexiconError: a word without pronunciation."""
    units: list[Unit] = []
    entered: list[list[int]] = []

    def phone(number: int, left: int, sources: list[int]) -> list[int]:
        """Add a phone that ``sources`` lead to; the nodes in which it may end."""
        at = len(units)
        units.extend([(number, left, 0), (number, left, 1)])
        entered.extend([sources, [at, at + 1]])
        return [at, at + 1]

    # by left neighbour, the nodes that the next phone may follow; at the start nothing is a silence as well
    fronts: dict[int, list[int]] = {0: [START, *phone(0, 0, [START])]}
    for word in words:
        after: dict[int, list[int]] = {}
        for said in lexicon.said(word):
            # the first phone once for each neighbour, the others once
            ends = [e for left, sources in fronts.items() for e in phone(said[0], left, sources)]
            for left, number in pairwise(said):
                ends = phone(number, left, ends)
            after.setdefault(said[-1], []).extend(ends)
        pause = phone(0, 0, [e for ends in after.values() for e in ends])
        fronts = after | {0: pause}
    # two words of one last phone, or silence, are one front: nothing that follows can tell them apart
    nodes, most = len(units), max(map(len, entered))
    predecessors = np.full((nodes, most), nodes, np.int32)
    for i, sources in enumerate(entered):
        predecessors[i, :len(sources)] = sources
    ends = [e for front in fronts.values() for e in front if e != START]
    return Utterance(np.array(units, np.int32).reshape(-1, 3), predecessors, np.array(sorted(ends), np.int32))


def table(lexicon: Lexicon) -> str:
    """The topology as text: a picture, each half's frames, what may follow it, and the phones."""
    rows = [("half", "frames", "leads to, with probability"),
            ("first", "1", f"second {1 - _leave(0):g}, the next phone {_leave(0):g}"),
            ("second", "1 or more", f"itself {STAY:g}, the next phone {_leave(1):g}")]
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    phones = " ".join(lexicon.phones)
    return "\n".join([PICTURE, *lines, f"between words silence {PAUSE:g}", f"{len(lexicon.phones)} phones: {phones}"])


def _leave(half: int) -> float:
    """Probability of leaving a phone after a frame of this half."""
    return 1.0 - STAY
