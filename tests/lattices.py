"""Small random lattices for tests of searches, and two slow obvious readings of beam search beside which the real one
must stand.

A lattice says log-probabilities for (frame, prefix) from a seed: no network.  `exhaustive` adds real probabilities
over every alignment; `by_the_book` follows the words of `nnac.decode.search.beam` with dictionaries and lists, one
utterance, no cache, Python's integers.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from nnac import arith
from nnac.decode.fusion import fixed


class Lattice:
    """Keeps the protocol of `beam.Scorer`.  Frames are integers (which row of numbers), predictions are prefixes as
    tuples, in an object array.

    coarse  scores are multiples of this: a large one makes ties
    """

    def __init__(self, seed: int, vocabulary: int, coarse: int = 1, spread: float = 1.5):
        self.seed, self.vocabulary, self.coarse, self.spread = seed, vocabulary, coarse, spread
        self.calls: list[tuple[str, int]] = []

    @cache  # noqa: B019
    def row(self, frame: int, prefix: tuple) -> np.ndarray:
        r = np.random.default_rng([self.seed, frame + 1, *prefix])
        x = r.standard_normal(self.vocabulary) * self.spread
        p = np.floor((x - np.log(np.exp(x).sum())) * 2048 + 0.5).astype(np.int64)
        return np.maximum(p // self.coarse * self.coarse, -32768)

    def start(self, batch):
        return self._pack([()] * batch), (self._pack([()] * batch),)

    def predict(self, tokens, state):
        self.calls.append(("predict", len(tokens)))
        after = self._pack([(*p, int(k)) for p, k in zip(state[0], tokens, strict=True)])
        return after, (after,)

    def scores(self, frames, prediction):
        self.calls.append(("scores", len(frames)))
        return np.stack([self.row(int(f), p) for f, p in zip(frames, prediction, strict=True)])

    def internal(self, prediction):
        fine = Lattice(self.seed, self.vocabulary)                  # coarse rows could all be the same: no model at all
        rows = np.stack([fine.row(-1, p) for p in prediction])
        rows[:, 0] = 0
        return rows

    def count(self, call):
        """Rows that were asked for."""
        return sum(n for c, n in self.calls if c == call)

    @staticmethod
    def _pack(prefixes):
        out = np.empty(len(prefixes), object)
        out[:] = prefixes
        return out


class Sentences:
    """A language model of a lattice's kind."""

    def __init__(self, seed: int, vocabulary: int, coarse: int = 1):
        self.lattice = Lattice(seed, vocabulary, coarse, spread=1.0)

    def row(self, prefix):
        return self.lattice.row(0, prefix)

    def start(self):
        return self.row(())[None], (Lattice._pack([()]),)

    def step(self, tokens, state):
        after = Lattice._pack([(*p, int(k)) for p, k in zip(state[0], tokens, strict=True)])
        return np.stack([self.row(p) for p in after]), (after,)


def exhaustive(lattice, frames, max_symbols):
    """{prefix: natural logarithm of its probability}, over every alignment; the end of a frame is free at the cap."""
    total = {}

    def walk(t, prefix, said, logp):
        if t == len(frames):
            total[prefix] = np.logaddexp(total.get(prefix, -math.inf), logp)
            return
        if said == max_symbols:
            walk(t + 1, prefix, 0, logp)
            return
        row = lattice.row(int(frames[t]), prefix) / 2048
        walk(t + 1, prefix, 0, logp + row[0])
        for k in range(1, lattice.vocabulary):
            walk(t, (*prefix, k), said + 1, logp + row[k])

    walk(0, (), 0, 0.0)
    return total


def by_the_book(lattice, frames, search):
    """The n-best list [(tokens, times, score)] of one utterance."""
    entries = arith.log_add_table().entries.astype(np.int64)
    fusion, top = search.fusion, 1 << 31
    saturate = lambda v: max(-top, min(top - 1, v))  # noqa: E731
    weights = [round(w * 4096) for w in fusion.weights]
    delta, penalty = fixed(search.delta, 11), fixed(search.blank_penalty, 11)

    def worth(prefix, k):
        total = sum(w * int(m.row(prefix)[k]) for w, m in zip(weights, fusion.models, strict=True))
        if fusion.internal:
            total += round(fusion.internal * 4096) * int(lattice.internal([prefix])[0][k])
        return math.floor((total + 2048) / 4096) + fixed(fusion.bonus, 11)

    beam = [((), (), 0)]
    for t, frame in enumerate(frames):
        level, ended, best = beam, [], None
        for s in range(search.max_symbols + 1):
            if s == search.max_symbols:
                ended.append(level)
                break
            rows = [lattice.row(int(frame), prefix) for prefix, _, _ in level]
            done = [(p, times, saturate(score + int(row[0]) - penalty))
                    for (p, times, score), row in zip(level, rows, strict=True)]
            ended.append(done)
            best = max([score for _, _, score in done] + ([best] if best is not None else []))
            candidates = [(saturate(score + int(rows[i][k]) + worth(p, k)), i, k)
                          for i, (p, _, score) in enumerate(level) for k in range(1, lattice.vocabulary)]
            candidates = sorted((c for c in candidates if c[0] > best - delta), key=lambda c: (-c[0], c[1], c[2]))
            candidates = candidates[:search.beam]
            if not candidates:
                break
            level = [((*level[i][0], k), (*level[i][1], t), score) for score, i, k in candidates]
        merged = {}
        for prefix, times, score in (h for level in ended for h in level):
            if prefix not in merged:
                merged[prefix] = [score, score, times, len(merged)]
                continue
            m = merged[prefix]
            m[0] = saturate(int(arith.log_add(np.int64(m[0]), np.int64(score), entries)))
            if score > m[1]:
                m[1], m[2] = score, times
        ranked = sorted(merged.items(), key=lambda kv: (-kv[1][0], kv[1][3]))[:search.beam]
        beam = [(prefix, m[2], m[0]) for prefix, m in ranked]
    return beam[:search.nbest]
