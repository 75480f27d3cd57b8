"""Decoding: the best paths of scores through a graph, by the library `kaldi-decoder` (extra ``hybrid``).

Source: the token-passing beam search of Kaldi (Povey et al. 2011).  What the library cannot do is done here: it gives
no times of words and no list of distinct sentences, and its lattices repeat a sentence once for each of its alignments.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from attrs import field, frozen
from attrs.validators import ge, gt
from numpy.typing import NDArray

from nnac.errors import UserError
from nnac.hybrid.graph import Graph

BEAM, ACTIVE = 12.0, 3000      # nats, and tokens a frame (chosen on dev: wider ones find the same words)
ALIGNMENTS = 12                # paths of a lattice looked at for each sentence wanted


class DecoderError(UserError):
    """The decoder's library is not there; one line."""


@frozen
class Sentence:
    """words  numbers of the graph's words      steps  at which each begins      cost  nats, graph and scores together
    """

    words: tuple[int, ...]
    steps: tuple[int, ...]
    cost: float


@frozen(slots=False)
class Decoder:
    """beam  nats behind the best, beyond which a path is given up      active  paths kept at a step, at most"""

    graph: Graph
    beam: float = field(default=BEAM, validator=gt(0.0))
    active: int = field(default=ACTIVE, validator=ge(1))

    @cached_property
    def _fst(self) -> Any:
        try:
            import kaldifst
        except ImportError as error:
            raise DecoderError(f"graphs are searched by kaldi-decoder, which is not installed ({error}): "
                               f"pip install 'nnac[hybrid]'") from None
        fst = kaldifst.StdVectorFst()
        for _ in range(self.graph.states):
            fst.add_state()
        fst.start = 0
        add, arc = fst.add_arc, kaldifst.StdArc
        for (source, target, state, word), cost in zip(self.graph.arcs.tolist(), self.graph.costs.tolist(),
                                                       strict=True):
            add(source, arc(state, word, cost, target))
        for state, cost in zip(self.graph.finals.tolist(), self.graph.ends.tolist(), strict=True):
            fst.set_final(state, cost)
        kaldifst.arcsort(fst, "ilabel")
        return fst

    def __call__(self, scores: NDArray[np.float32], count: int = 1) -> list[Sentence]:
        """scores [steps, states] float32, larger is better -> up to ``count`` distinct sentences, best first.

        Where no path ends (an utterance too short for any word) there is one empty sentence of infinite cost.
        """
        nothing = [Sentence((), (), float("inf"))]
        fst = self._fst                                 # first: so that what is missing is said
        import kaldi_decoder

        if not len(scores):
            return nothing
        # the library keeps a view of the matrix: it must outlive the decoding, and be contiguous
        matrix = np.ascontiguousarray(scores, np.float32)
        readable = kaldi_decoder.DecodableCtc(matrix)
        if count == 1:
            options = kaldi_decoder.FasterDecoderOptions(beam=self.beam, max_active=self.active)
            one = kaldi_decoder.FasterDecoder(fst, options)
            one.decode(readable)
            if not one.reached_final():
                return nothing
            found, best = one.get_best_path()
            return [_sentence(best)] if found else nothing
        config = kaldi_decoder.LatticeSimpleDecoderConfig(beam=self.beam, lattice_beam=min(self.beam, 10.0))
        many = kaldi_decoder.LatticeSimpleDecoder(fst, config)
        if not many.decode(readable):
            return nothing
        found, lattice = many.get_raw_lattice()
        return _distinct(lattice, count) if found else nothing


def _sentence(path: Any) -> Sentence:
    """A linear lattice as words, steps and cost: every arc that reads a state is a step.

    The library walks no lattice from Python; its text has an arc a line: from, to, state, word and perhaps weights.
    """
    import kaldifst

    _, _, _, weight = kaldifst.get_linear_symbol_sequence(path)
    rows = [line.split() for line in path.to_str().splitlines()]
    arcs = {int(r[0]): (int(r[1]), int(r[2]), int(r[3])) for r in rows if len(r) >= 4}
    at, step = path.start, 0
    words: list[int] = []
    steps: list[int] = []
    while at in arcs:
        at, state, word = arcs[at]
        if word:
            words.append(word)
            steps.append(step)
        step += state != 0
    return Sentence(tuple(words), tuple(steps), weight.value1 + weight.value2)


def _distinct(lattice: Any, count: int) -> list[Sentence]:
    """The best sentences of a lattice, each once, with its best alignment."""
    import kaldifst

    found: dict[tuple[int, ...], Sentence] = {}
    for path in kaldifst.lattice_to_nbest(lattice, n=ALIGNMENTS * count):
        sentence = _sentence(path)
        found.setdefault(sentence.words, sentence)
    return sorted(found.values(), key=lambda s: (s.cost, s.words))[:count]
