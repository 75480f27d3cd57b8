"""A picture of one aligned utterance: its features, with words, phones and halves where the alignment has them."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from nnac.errors import UserError
from nnac.files import atomic
from nnac.hybrid.alignments import NONE, AlignmentError, Alignments, hmms
from nnac.hybrid.viterbi import best_paths
from nnac.speech.corpus import Split


class PictureError(UserError):
    """The picture's library is not there; one line."""


def spans(names: list[str]) -> list[tuple[int, int, str]]:
    """Runs of equal names: (first, after the last, name)."""
    edges = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    return [(a, b, names[a]) for a, b in pairwise(edges) if b > a]


def draw(path: str | os.PathLike[str], split: Split, number: int, made: Alignments) -> None:
    """SVG of utterance ``number``.  AlignmentError: it has no alignment; PictureError: matplotlib is absent."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise PictureError(f"pictures are drawn by matplotlib, which is not installed ({error}): "
                           f"pip install 'nnac[plot]'") from None
    states, stack, phones = made.of(split)[number], made.stack, made.inventory.lexicon.phones
    if not len(states) or (states == NONE).any():
        raise AlignmentError(f"utterance {number} of `{split.name}` is too short for its words: it has no alignment")
    hmm, = hmms(split.first(number + 1), made.inventory.lexicon)[number:]
    # the nodes that these states are, so that a phone is told from the next of the same name
    seen = np.where(made.inventory.states(hmm.units)[None, :] == states[:, None], 0.0, -1e3).astype(np.float32)
    units = hmm.units[best_paths([seen], [hmm])[0].nodes]
    seconds = stack / 100
    figure, axes = pyplot.subplots(2, 1, figsize=(11, 4.2), sharex=True, height_ratios=(3, 1), layout="constrained")
    axes[0].imshow(np.asarray(split.features[number], np.float32).T, origin="lower", aspect="auto", cmap="Greys",
                   extent=(0, len(split.features[number]) / 100, 0, split.features[number].shape[1]))
    axes[0].set_ylabel("mel bin")
    axes[0].set_title(f"{split.texts[number]}   ({split.voices[number]})", fontsize=9)
    # a new phone wherever a first half begins
    begun = np.cumsum(units[:, 2] == 0)
    for a, b, _ in spans([str(k) for k in begun]):
        phone = int(units[a, 0])
        colour = "#dddddd" if phone == 0 else "#4477aa"
        axes[1].axvspan(a * seconds, (a + 1) * seconds, 0.0, 0.45, color=colour, alpha=0.9)
        axes[1].axvspan((a + 1) * seconds, b * seconds, 0.0, 0.45, color=colour, alpha=0.45)
        axes[1].text((a + b) / 2 * seconds, 0.72, phones[phone].lower(), ha="center", va="center", fontsize=7)
        for axis in axes:
            axis.axvline(a * seconds, color="#cc3311", linewidth=0.5)
    axes[1].set_yticks([])
    axes[1].set_xlabel("seconds; dark: the first half of a phone, light: the second")
    with atomic(path) as out:
        figure.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(figure)
