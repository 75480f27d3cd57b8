"""Flat start: alignments from nothing but texts, by one Gaussian a state and Viterbi.

Every half of every phone, whatever its neighbour, is one Gaussian with a diagonal covariance over 14 cepstra and their
two deltas.  They begin from utterances cut into equal parts, with a few frames of silence at either end, and are then
re-estimated from the best paths, again and again.  Source: the flat start of HTK and Kaldi, with Viterbi training; the
numbers are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.hybrid.topology import HALVES, Utterance
from nnac.hybrid.viterbi import Path, best_paths

CEPSTRA = 14
PASSES = 9
PRIOR_FRAMES = 20.0            # of the whole corpus's mean and variance, in every Gaussian
FLOOR = 0.05                   # of a variance, as a share of the corpus's
SHARPNESS = 0.4                # log-likelihoods count so much: neighbouring frames are not independent
MEAN_TAKEN = 0.7               # of an utterance's own mean
BATCH = 64


def cepstra(features: NDArray, stack: int) -> NDArray[np.float32]:
    """Normalised log-mel [frames, bins] -> [frames // stack, 3 * CEPSTRA]: cepstra of averaged frames, with deltas."""
    count, bins = len(features) // stack, features.shape[1]
    x = features[:count * stack].reshape(count, stack, bins).mean(1)
    x = x - MEAN_TAKEN * x.mean(0) if count else x
    cosines = np.cos(np.pi / bins * (np.arange(bins)[None] + 0.5) * np.arange(CEPSTRA)[:, None]) / 6
    c = x @ cosines.T.astype(np.float32)
    wide = np.pad(c, ((2, 2), (0, 0)), "edge") if count else np.zeros((4, CEPSTRA), np.float32)
    return np.concatenate([c, (wide[3:-1] - wide[1:-3]) / 2, (wide[4:] - wide[:-4]) / 4], 1).astype(np.float32)


@frozen(eq=False)
class Gaussians:
    """mean, variance  [classes, dimensions], a class for each half of each phone: ``HALVES * phone + half``."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    constant: NDArray[np.float32] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "constant", -0.5 * np.log(2 * np.pi * self.variance).sum(1))

    def log_likelihoods(self, x: NDArray) -> NDArray[np.float32]:
        """[frames, dimensions] -> [frames, classes], made less sure by `SHARPNESS`."""
        inverse = 1 / self.variance
        quadratic = (x ** 2) @ inverse.T - 2 * x @ (self.mean * inverse).T + (self.mean ** 2 * inverse).sum(1)
        return (SHARPNESS * (self.constant - 0.5 * quadratic)).astype(np.float32)

    @classmethod
    def of(cls, x: NDArray, labels: NDArray, classes: int) -> Gaussians:
        """The most likely ones of frames [n, dimensions] with their classes [n], drawn a little to the whole."""
        mean, variance = x.mean(0), x.var(0)
        counts = np.bincount(labels, minlength=classes)[:, None] + PRIOR_FRAMES

        def summed(values: NDArray) -> NDArray:
            return np.stack([np.bincount(labels, values[:, d], classes) for d in range(x.shape[1])], 1)

        first = (summed(x) + PRIOR_FRAMES * mean) / counts
        second = (summed(x ** 2) + PRIOR_FRAMES * (variance + mean ** 2)) / counts
        return cls(first.astype(np.float32), np.maximum(second - first ** 2, FLOOR * variance).astype(np.float32))


def classes(hmm: Utterance) -> NDArray[np.int32]:
    """The Gaussian of every node."""
    return HALVES * hmm.units[:, 0] + hmm.units[:, 2]


def equal_parts(frames: int, hmm: Utterance) -> NDArray[np.int64]:
    """A class for each frame: silence at the ends, between them the phones of the first way through, equally long."""
    before, after = min(3, frames // 10), min(4, frames // 8)
    kinds = classes(hmm)
    # the first way through, both halves of each phone: from an end, back along the first predecessors that are not
    # silence
    way: list[int] = []
    at = int(hmm.ends[1])
    while at >= 0:
        way.append(at)
        sources = [int(j) for j in hmm.predecessors[at] if j != hmm.nowhere and j < at]
        speech = [j for j in sources if j < 0 or hmm.units[j, 0]]
        first = (speech or sources or [-1])[0]
        at = first + 1 if first + 1 in sources else first
    spoken = [k for k in reversed(way) if hmm.units[k, 0]]
    middle = max(0, frames - before - after)
    if not spoken or not middle:
        return np.where(np.arange(frames) == 0, 0, 1)
    inner = kinds[np.array(spoken)[np.arange(middle) * len(spoken) // middle]]
    out = np.concatenate([np.ones(before, np.int64), inner, np.ones(after, np.int64)])
    out[:1] = 0 if before else out[:1]
    return out


def align(model: Gaussians, features: Sequence[NDArray], hmms: Sequence[Utterance],
          advance: Callable[[int], None] | None = None) -> list[Path]:
    """The best path of every utterance, `cepstra` each."""
    out: list[Path | None] = [None] * len(features)
    order = np.argsort([len(x) for x in features], kind="stable")
    for begin in range(0, len(order), BATCH):
        rows = order[begin:begin + BATCH]
        scores = [model.log_likelihoods(features[i])[:, classes(hmms[i])] for i in rows]
        for i, path in zip(rows, best_paths(scores, [hmms[i] for i in rows]), strict=True):
            out[i] = path
        if advance:
            advance(len(rows))
    return [p for p in out if p is not None]


def flat_start(features: Sequence[NDArray], hmms: Sequence[Utterance], phones: int, passes: int = PASSES,
               advance: Callable[[int], None] | None = None) -> tuple[Gaussians, list[float]]:
    """Gaussians of `cepstra` with their texts, and the log-likelihood of a frame after each pass; ``advance`` hears of
    utterances."""
    x = np.concatenate(list(features))
    labels = np.concatenate([equal_parts(len(f), h) for f, h in zip(features, hmms, strict=True)])
    curve: list[float] = []
    model = Gaussians.of(x, labels, HALVES * phones)
    for _ in range(passes):
        paths = align(model, features, hmms, advance)
        kept = [i for i, p in enumerate(paths) if len(p.nodes)]
        labels = np.concatenate([classes(hmms[i])[paths[i].nodes] for i in kept])
        whole = x if len(kept) == len(paths) else np.concatenate([features[i] for i in kept])
        curve.append(sum(paths[i].score for i in kept) / max(1, len(whole)))
        model = Gaussians.of(whole, labels, HALVES * phones)
    return model, curve
