"""From posteriors to likelihoods: ``log p(x|s) = log p(s|x) - log p(s)``, up to what no path can change.

The network's outputs are integers, log-probabilities Q4.11, whoever computed them.  Priors are the shares of the states
in the alignment that the network learned from.  Both scales are a decoder's options.  Source: Bourlard and Morgan 1994.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.checked import checked
from nnac.formats import LOG
from nnac.hybrid.states import Inventory
from nnac.speech.tokens import SPACE, Tokens

PRIOR = 0.8                    # how much of the prior is taken off (chosen on dev)


def _whole(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


@frozen(slots=False)
class Hmm:
    """What a network's outputs stand for.  ``counts``: frames of every state in the alignment it learned from."""

    inventory: Inventory
    counts: tuple[int, ...] = field(converter=_whole)

    def __attrs_post_init__(self) -> None:
        if len(self.counts) != self.inventory.count or min(self.counts) < 0:
            raise ValueError(f"{len(self.counts)} counts of {self.inventory.count} states")

    @property
    def log_prior(self) -> NDArray[np.float32]:
        """Of every state, one frame added to each: what was never seen is rare, not impossible."""
        counts = np.array(self.counts, np.float64) + 1
        return np.log(counts / counts.sum()).astype(np.float32)

    @property
    def tokens(self) -> Tokens:
        """The words as tokens: id k is the k-th word of the lexicon."""
        words = list(self.inventory.lexicon.words)
        return Tokens([SPACE + w for w in words], [0.0] * len(words))

    def to_json(self) -> dict[str, Any]:
        return dict(inventory=self.inventory.to_json(), counts=list(self.counts))

    @classmethod
    def from_json(cls, data: Any) -> Hmm:
        """ValueError: what is wrong with it."""
        if not isinstance(data, Mapping) or set(data) != {"inventory", "counts"}:
            raise ValueError("hmm: `inventory` and `counts` are expected")
        return cls(Inventory.from_json(data["inventory"]), tuple(checked(list[int], data["counts"], "counts")))


def likelihoods(integers: NDArray, hmm: Hmm, acoustic: float = 1.0, prior: float = PRIOR) -> NDArray[np.float32]:
    """Log-probabilities [steps, states] Q4.11 -> ``acoustic * (log p(s|x) - prior * log p(s))``, contiguous."""
    real = np.asarray(integers, np.float32) * np.float32(LOG.scale)
    return np.ascontiguousarray((real - np.float32(prior) * hmm.log_prior) * np.float32(acoustic), np.float32)


def best_states(integers: NDArray) -> NDArray[np.int64]:
    """The greedy state sequence [steps]: each step's likeliest state; of equals the lowest."""
    return np.asarray(integers).argmax(-1)
