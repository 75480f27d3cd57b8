"""Viterbi: the best path of an utterance through its HMM, many utterances at a time.

Source: Viterbi (1967), as Rabiner (1989) has it.  `best_path` says it in a page and is what `best_paths` is tested
against: that one walks the frames of a whole batch at once, one gather for each way into a node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.hybrid.topology import START, Utterance

NEVER = np.float32(-1e30)


@frozen(eq=False)
class Path:
    """nodes  [frames], the node of each frame      score  its log-likelihood; minus infinity: there is no path, as the
    utterance is shorter than the words that it says (nodes is then empty)
    """

    nodes: NDArray[np.int32]
    score: float


def best_path(scores: NDArray, hmm: Utterance) -> Path:
    """scores [frames, nodes] -> the best path.  Slow and obvious; of equals the predecessor named first."""
    frames, before = len(scores), [-math.inf] * hmm.nodes
    came: list[list[int]] = []
    for t in range(frames):
        now, links = [], []
        for i in range(hmm.nodes):
            best, source = -math.inf, -1
            for j in hmm.predecessors[i].tolist():
                value = -math.inf if j == hmm.nowhere else (0.0 if t == 0 else -math.inf) if j == START else before[j]
                if value > best:
                    best, source = value, j
            now.append(best + float(scores[t, i]))
            links.append(source)
        before = now
        came.append(links)
    ends = hmm.ends.tolist()
    if not frames or not ends or max(before[e] for e in ends) == -math.inf:
        return Path(np.zeros(0, np.int32), -math.inf)
    at = max(ends, key=lambda e: before[e])
    total, nodes = before[at], []
    for links in reversed(came):
        nodes.append(at)
        at = links[at]
    return Path(np.array(nodes[::-1], np.int32), total)


def best_paths(scores: Sequence[NDArray], hmms: Sequence[Utterance]) -> list[Path]:
    """`best_path` of several utterances, in float32: scores [frames, nodes] each."""
    count, frames = len(hmms), np.array([len(s) for s in scores])
    nodes, ways = max(h.nodes for h in hmms), max(h.predecessors.shape[1] for h in hmms)
    # per row, places for all nodes, one for the start, one for what leads nowhere
    row = nodes + 2
    into = np.full((ways, count, nodes), nodes + 1, np.int64)
    seen = np.full((int(frames.max(initial=0)), count, nodes), NEVER, np.float32)
    for b, (s, h) in enumerate(zip(scores, hmms, strict=True)):
        sources = h.predecessors.T
        into[:sources.shape[0], b, :h.nodes] = np.where(sources == h.nowhere, nodes + 1,
                                                        np.where(sources == START, nodes, sources))
        seen[:len(s), b, :h.nodes] = s
    into += (np.arange(count) * row)[:, None]
    before = np.full((count, row), NEVER, np.float32)
    before[:, nodes] = 0
    links = np.zeros(seen.shape, np.uint8)
    last = np.full((count, row), NEVER, np.float32)
    for t, now in enumerate(seen):
        flat = before.reshape(-1)
        best, way = flat.take(into[0]), np.zeros((count, nodes), np.uint8)
        for k in range(1, ways):
            other = flat.take(into[k])
            better = other > best
            np.copyto(best, other, where=better)
            way[better] = k
        before[:, :nodes] = np.maximum(best + now, NEVER)
        before[:, nodes] = NEVER
        links[t] = way
        ended = frames == t + 1
        last[ended] = before[ended]
    return [_back(last[b], links[:frames[b], b], h) for b, h in enumerate(hmms)]


def _back(last: NDArray, links: NDArray, hmm: Utterance) -> Path:
    """The path that ends best, from where each node was entered: links [frames, nodes], places in its predecessors."""
    ends = last[hmm.ends]
    if not len(links) or not len(ends) or ends.max() <= NEVER / 2:
        return Path(np.zeros(0, np.int32), -math.inf)
    at = int(hmm.ends[ends.argmax()])
    total, nodes = float(last[at]), np.empty(len(links), np.int32)
    for t in range(len(links) - 1, -1, -1):
        nodes[t] = at
        at = int(hmm.predecessors[at, links[t, at]])
    return Path(nodes, total)
