"""The words of a hybrid: the best path of its likelihoods through a decoding graph (`nnac.hybrid`).

What is searched gives log-probabilities of HMM states, integers Q4.11 [T, B, states], from ``encode``; they become
likelihoods and are read by `nnac.hybrid.decoder`.  The same integers give the same sentences and scores, whoever
computed them.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from attrs import field, frozen
from attrs.validators import ge, gt
from numpy.typing import NDArray

from nnac.decode.search import Found, Hypothesis, Search
from nnac.decode.search import numpy as _numpy
from nnac.hybrid.decoder import ACTIVE, BEAM, Decoder
from nnac.hybrid.graph import Graph
from nnac.hybrid.scores import PRIOR, Hmm, likelihoods

ACOUSTIC = 0.5                 # neighbouring frames are not independent (chosen on dev)
UNIT = 1 << 11                 # of a score: 2^-11 nat


@frozen(slots=False)
class GraphSearch(Search):
    """See the module.  ``beam`` nats, ``active`` paths a step, ``nbest`` sentences; ``acoustic`` and ``prior``: scales
    of the likelihoods and of the priors that are taken off them."""

    kind = "graph"
    graph: Graph
    hmm: Hmm
    acoustic: float = field(default=ACOUSTIC, validator=gt(0.0))
    prior: float = field(default=PRIOR, validator=ge(0.0))
    beam: float = field(default=BEAM, validator=gt(0.0))
    active: int = field(default=ACTIVE, validator=ge(1))
    nbest: int = field(default=1, validator=ge(1))

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.graph, self.beam, self.active)

    def over(self, model: Any, frames: Any, lengths: NDArray) -> Found:
        scores = _numpy(frames)
        return Found([self.sentences(scores[:int(n), b]) for b, n in enumerate(lengths)])

    def sentences(self, integers: NDArray) -> list[Hypothesis]:
        """Log-probabilities [steps, states] Q4.11 of one utterance -> its hypotheses, best first."""
        found = self.decoder(likelihoods(integers, self.hmm, self.acoustic, self.prior), self.nbest)
        return [Hypothesis(s.words, s.steps, None if math.isinf(s.cost) else -int(np.floor(s.cost * UNIT + 0.5)))
                for s in found]

    def asked(self, rounds: NDArray) -> dict[str, NDArray]:
        """The graph is the host's: no entry of the machine is asked for a step."""
        return {}
