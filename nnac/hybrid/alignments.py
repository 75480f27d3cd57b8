"""Alignments: which HMM state each frame of a corpus is, as a file.

One label a step of the network (``stack`` frames); -1 where an utterance is too short for its words.  The file says of
which corpus it is, split by split, and of which inventory: it is used with no other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac import checkpoint
from nnac.checkpoint import CheckpointError
from nnac.errors import ABSURD, UserError
from nnac.hybrid import gaussians
from nnac.hybrid.lexicon import Lexicon
from nnac.hybrid.states import Inventory, chosen
from nnac.hybrid.topology import Unit, Utterance, utterance
from nnac.hybrid.viterbi import Path, best_paths
from nnac.speech.corpus import Split

KIND = "alignments"
NONE = -1                      # the label of a frame that has none
FLAT = 1800                    # utterances that the flat start learns from: a fifth of the demo's corpus


class AlignmentError(UserError, ValueError):
    """Alignments that do not belong to the corpus they are used with; one line."""


def digest_of(split: Split) -> str:
    """What alignments know a split by: its recipe, texts, voices and lengths."""
    said = [split.recipe.to_json(), split.texts, split.voices, [len(f) for f in split.features]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@frozen(eq=False)
class Labels:
    """Of one split.  ``states`` [all frames] int16 end to end, ``frames`` [utterances] how many each has."""

    corpus: str
    frames: NDArray[np.int64]
    states: NDArray[np.int16]

    @classmethod
    def of(cls, split: Split, each: Sequence[NDArray]) -> Labels:
        return cls(digest_of(split), np.array([len(s) for s in each], np.int64),
                   np.concatenate(list(each)).astype(np.int16) if each else np.zeros(0, np.int16))

    def each(self) -> list[NDArray[np.int16]]:
        """One array an utterance."""
        return list(np.split(self.states, np.cumsum(self.frames)[:-1])) if len(self.frames) else []


@frozen(eq=False)
class Alignments:
    """inventory  whose states the labels are      stack  10 ms frames of a label      splits  by name"""

    inventory: Inventory
    stack: int
    splits: Mapping[str, Labels]
    made: Mapping[str, object] = field(factory=dict)

    def of(self, split: Split, called: str = "the alignments") -> list[NDArray[np.int16]]:
        """The labels of every utterance of a split.  AlignmentError: they are of another corpus, or of other lengths.

        A part of the aligned split (`Split.first`) has the labels of its utterances.
        """
        if split.name not in self.splits:
            raise AlignmentError(f"{called}: no alignment of the split `{split.name}` (there are: "
                                 f"{', '.join(sorted(self.splits)) or 'none'}); make them with `nnac align`")
        own = self.splits[split.name]
        each = own.each()
        wanted = [len(f) // self.stack for f in split.features]
        for i, (labels, frames) in enumerate(zip(each, wanted, strict=False)):
            if len(labels) != frames:
                raise AlignmentError(f"{called}: utterance {i} of `{split.name}` has {frames} frames of {self.stack}, "
                                     f"its alignment {len(labels)}: align this corpus again")
        if len(wanted) > len(each):
            raise AlignmentError(f"{called}: {len(each)} utterances of `{split.name}` are aligned, the corpus has "
                                 f"{len(wanted)}: align this corpus again")
        if len(wanted) == len(each) and own.corpus != digest_of(split):
            raise AlignmentError(f"{called}: of another corpus: `{split.name}` has other texts, voices or recipe; "
                                 f"align this corpus again")
        return each[:len(wanted)]

    def counts(self, split: str = "train") -> NDArray[np.int64]:
        """Frames of every state."""
        states = self.splits[split].states
        return np.bincount(states[states != NONE], minlength=self.inventory.count)

    def save(self, path: str | os.PathLike[str]) -> None:
        tensors = {f"{name}.{kind}": value for name, labels in self.splits.items()
                   for kind, value in (("frames", labels.frames), ("states", labels.states))}
        checkpoint.save(path, tensors, dict(kind=KIND, inventory=self.inventory.to_json(), stack=self.stack,
                                            corpus={n: labels.corpus for n, labels in self.splits.items()},
                                            made=dict(self.made)))


def load(path: str | os.PathLike[str]) -> Alignments:
    """CheckpointError: absent, damaged, of another kind, or labels that are no states of its own inventory."""
    file = checkpoint.load(path, KIND)
    try:
        inventory, stack = Inventory.from_json(file.metadata["inventory"]), file.metadata["stack"]
        if not isinstance(stack, int) or isinstance(stack, bool) or stack < 1:
            raise ValueError(f"a label of {stack!r} frames")
        splits = {}
        for name, corpus in file.metadata["corpus"].items():
            labels = Labels(str(corpus), file.tensors[f"{name}.frames"], file.tensors[f"{name}.states"])
            if (labels.frames.ndim, labels.frames.dtype, labels.states.ndim, labels.states.dtype) != (
                    1, np.int64, 1, np.int16) or (labels.frames < 0).any() or labels.frames.sum() != len(labels.states):
                raise ValueError(f"`{name}`: labels and lengths do not fit each other")
            if len(labels.states) and not NONE <= labels.states.min() <= labels.states.max() < inventory.count:
                raise ValueError(f"`{name}`: labels beyond the {inventory.count} states")
            splits[name] = labels
        return Alignments(inventory, stack, splits, file.metadata.get("made", {}))
    except ABSURD as error:
        raise CheckpointError(f"{path}: does not describe alignments: {' '.join(str(error).split())[:200]}") from None


# ---------------------------------------------------------------------------------------------------------- making them

Scores = Callable[[Sequence[NDArray]], Sequence[NDArray]]
"""Features of utterances, normalised [frames, bins] each -> scaled log-likelihoods [steps, states] of each."""


def hmms(split: Split, lexicon: Lexicon) -> list[Utterance]:
    """Of every text, each made once.  LexiconError names the words that have no pronunciation."""
    lexicon.check(split.texts)
    made = {text: utterance(text.split(), lexicon) for text in dict.fromkeys(split.texts)}
    return [made[text] for text in split.texts]


def flat(splits: Sequence[Split], lexicon: Lexicon, states: int, stack: int,
         advance: Callable[[int], None] | None = None, utterances: int = FLAT) -> Alignments:
    """From nothing: Gaussians on the first split's first ``utterances``, then every split aligned with them; states
    chosen on the first."""
    norm = splits[0].normalisation()
    graphs = [hmms(s, lexicon) for s in splits]
    features = [[gaussians.cepstra(norm.apply(f), stack) for f in s.features] for s in splits]
    model, curve = gaussians.flat_start(features[0][:utterances], graphs[0][:utterances], len(lexicon.phones),
                                        advance=advance)
    units = [_units(gaussians.align(model, f, g, advance), g, f) for f, g in zip(features, graphs, strict=True)]
    seen: Counter[Unit] = Counter()
    for each in units[0]:
        rows, counts = np.unique(each, axis=0, return_counts=True)
        seen.update({(p, left, half): n for (p, left, half), n in zip(rows.tolist(), counts.tolist(), strict=True)})
    inventory = chosen({u: n for u, n in seen.items() if u[0] != NONE}, lexicon, states)
    labels = {s.name: Labels.of(s, [_states(u, inventory) for u in each])
              for s, each in zip(splits, units, strict=True)}
    return Alignments(inventory, stack, labels, dict(by="gaussians", log_likelihood=[round(v, 4) for v in curve]))


def again(splits: Sequence[Split], inventory: Inventory, stack: int, scores: Scores, batch: int = 64,
          advance: Callable[[int], None] | None = None) -> Alignments:
    """Aligned by a network, whose outputs are the states of ``inventory``."""
    labels = {}
    for split in splits:
        graphs = hmms(split, inventory.lexicon)
        states = [inventory.states(g.units) for g in graphs]
        each: list[NDArray] = [np.zeros(0, np.int16)] * len(split)
        order = np.argsort([len(f) for f in split.features], kind="stable")
        for begin in range(0, len(order), batch):
            rows = [int(i) for i in order[begin:begin + batch]]
            seen = scores([split.features[i] for i in rows])
            # an utterance asks for few of the states: only those are gathered
            paths = best_paths([s[:, states[i]] for i, s in zip(rows, seen, strict=True)], [graphs[i] for i in rows])
            for i, path, s in zip(rows, paths, seen, strict=True):
                each[i] = states[i][path.nodes] if len(path.nodes) else np.full(len(s), NONE)
            if advance:
                advance(len(rows))
        labels[split.name] = Labels.of(split, each)
    return Alignments(inventory, stack, labels, dict(by="network"))


def moved(before: Alignments, after: Alignments, split: str = "train") -> float:
    """Share of the frames whose state differs."""
    return float((before.splits[split].states != after.splits[split].states).mean())


def _units(paths: Sequence[Path], graphs: Sequence[Utterance],
           features: Sequence[NDArray]) -> list[NDArray[np.int32]]:
    return [g.units[p.nodes] if len(p.nodes) else np.full((len(f), 3), NONE, np.int32)
            for p, g, f in zip(paths, graphs, features, strict=True)]


def _states(units: NDArray, inventory: Inventory) -> NDArray:
    return np.where(units[:, 0] == NONE, NONE, inventory.states(np.maximum(units, 0)))
