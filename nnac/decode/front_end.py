"""Audio to text with any model that a search can ask: float network, training module, emulator.

One definition of features, normalisation and words for all of them: what differs is only the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from nnac.decode.patches import Hearing, Patches
from nnac.decode.scorers import scorer
from nnac.decode.search import Found, Hypothesis, Search
from nnac.decode.search.greedy import Greedy
from nnac.decode.streams import Stream, feature_blocks, listen, listen_all, streamed
from nnac.decode.tensors import LabelEnd, TensorEnd
from nnac.hybrid.scores import Hmm
from nnac.speech.features import FeatureSpec, Normalisation, log_mel
from nnac.speech.tokens import Tokens

if TYPE_CHECKING:
    from nnac.program import Program


SAVED_DEAF = "give --tensors, or save a transducer with its front end: `module.save(path, front)`"


@frozen(eq=False)
class FrontEnd:
    """What stands between audio and the model, and between the model and text.  Travels in checkpoints and programs
    as JSON."""

    features: FeatureSpec
    normalisation: Normalisation
    tokens: Tokens
    hmm: Hmm | None = None         # of a hybrid: what its outputs stand for; ``tokens`` are then its lexicon's words
    hears: tuple[Patches, ...] = ()   # of convolutions that begin the model, from the first on

    @classmethod
    def of_hybrid(cls, features: FeatureSpec, normalisation: Normalisation, hmm: Hmm) -> FrontEnd:
        return cls(features, normalisation, hmm.tokens, hmm)

    @property
    def outputs(self) -> int:
        """Width of what the model chooses from: tokens, or the states of a hybrid."""
        return self.tokens.count if self.hmm is None else self.hmm.inventory.count

    def to_json(self) -> dict[str, Any]:
        said = dict(features=self.features.to_json(), normalisation=self.normalisation.to_json())
        said |= dict(tokens=self.tokens.to_json()) if self.hmm is None else dict(hmm=self.hmm.to_json())
        return said | (dict(hears=self.hearing.to_json()) if self.hears else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FrontEnd:
        features, norm = FeatureSpec.from_json(data["features"]), Normalisation.from_json(data["normalisation"])
        made = (cls.of_hybrid(features, norm, Hmm.from_json(data["hmm"])) if "hmm" in data
                else cls(features, norm, Tokens.from_json(data["tokens"])))
        if len(made.normalisation.mean) != made.features.bins:
            raise ValueError(f"normalisation of {len(made.normalisation.mean)} bins for features of "
                             f"{made.features.bins}")
        return evolve(made, hears=Hearing.from_json(made.features.bins, data.get("hears", ())).levels)

    @property
    def hearing(self) -> Hearing:
        """How normalised features become what the model hears: themselves, or patches of them."""
        return Hearing(self.features.bins, self.hears)

    def heard(self, features: NDArray) -> NDArray:
        """Features [T, bins] of a whole utterance, as a corpus holds them -> what the model hears: normalised, and for
        one that begins with convolutions the vectors of its patches."""
        return self.hearing.of(self.normalisation.apply(features)[:, None])[:, 0]

    def prepare(self, samples: NDArray) -> NDArray:
        """Samples of a whole utterance at ``features.rate`` -> what the model hears of them."""
        return self.heard(log_mel(samples, self.features))

    def hear(self, path: str | os.PathLike[str]) -> tuple[NDArray, float]:
        """(what the model hears [T, width], seconds) of an audio file; only the features are ever there as a whole.
        AudioError."""
        heard = [0]
        parts = self.hearing.pieces(feature_blocks(path, self.features, self.normalisation, heard))
        whole = np.concatenate([np.zeros((0, self.hearing.vector_width), np.float32), *parts])
        return whole, heard[0] / self.features.rate

    def listen(self, path: str | os.PathLike[str]) -> tuple[NDArray | Stream, float]:
        """As `hear`; of a long file a stream, of which only a block is ever there."""
        return listen(path, self.features, self.normalisation, self.hearing)

    def listen_all(self, paths: Sequence[str],
                   ends: Sequence[int] | None = None) -> list[tuple[NDArray | Stream, float]]:
        """As `listen`, for many files: memory does not grow with their number.  ``ends``: after how many frames of
        features each utterance ends, though its file goes on."""
        return listen_all(paths, self.features, self.normalisation, self.hearing, ends)

    def unwritable(self, references: Iterable[str]) -> str:
        """The characters of references that no token has, and so no transcript; "" where there are none."""
        known = {c for piece in self.tokens.pieces for c in piece} | set(" \t\n")
        odd = sorted({c for text in references for c in text} - known)
        shown = ", ".join(f"{c!a}" if not c.isprintable() else f"`{c}`" for c in odd[:8])
        return shown + (f" and {len(odd) - 8} more" if len(odd) > 8 else "")

    def text(self, ids: Iterable[int]) -> str:
        return self.tokens.decode(ids)


def front_end_of(program: Program) -> FrontEnd:
    """The front end a program carries.  ProgramError if it carries none (a program of random weights, say)."""
    from nnac.program import ProgramError

    said = program.metadata.get("front_end")
    if isinstance(said, dict) and {"argument", "arguments"} & set(said):
        raise ProgramError(f"the program takes tensors: it hears no audio; {SAVED_DEAF}")
    try:
        front = FrontEnd.from_json(program.metadata["front_end"])
        ports = {e.model_entry: e for e in program.entries.values() if e.inputs and e.outputs
                 and e.steps == e.hypotheses == 1}
        taken = next((p for e in program.entries.values() if e.model_entry == "encoder" for p in e.inputs[:1]), None)
        hearing = front.hearing
        heard = hearing.vector_width if taken is None else taken.width
        # a transducer chooses by its joint, a hybrid by what its encoder ends with
        last = "joint" if front.hmm is None else "encoder"
        chosen = ports[last].outputs[-1].width if last in ports else front.outputs
        if (heard, chosen) != (hearing.vector_width, front.outputs):
            raise ValueError(f"its model hears {heard} features and chooses from {chosen} outputs, its front end has "
                             f"{hearing.vector_width} "
                             f"and {front.outputs}")
        if taken is not None and taken.vectors % hearing.vectors_of_step:
            raise ValueError(f"its model hears {taken.vectors} vectors a step, its front end makes "
                             f"{hearing.vectors_of_step}")
        return front
    except (KeyError, TypeError, ValueError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ProgramError(f"the program carries no usable front end (features, normalisation, tokens): "
                           f"{what}") from None


@frozen(eq=False)
class TextEnd:
    """What stands between text and a model that hears nothing.  Travels as a front end does."""

    tokens: Tokens

    def to_json(self) -> dict[str, Any]:
        return dict(tokens=self.tokens.to_json())

    def text(self, ids: Iterable[int]) -> str:
        return self.tokens.decode(ids)


def end_from_json(data: dict[str, Any]) -> FrontEnd | TextEnd | TensorEnd | LabelEnd:
    """Whichever ``to_json`` described."""
    if "arguments" in data:
        return TensorEnd.from_json(data)
    if "argument" in data:
        return LabelEnd.from_json(data)
    return FrontEnd.from_json(data) if "features" in data else TextEnd(Tokens.from_json(data["tokens"]))


def pad(sequences: Sequence[NDArray]) -> tuple[NDArray, NDArray]:
    """[T_i, bins] each -> ([T, B, bins] with zeros at the end, lengths [B])."""
    lengths = np.array([len(s) for s in sequences])
    out = np.zeros((int(lengths.max(initial=0)), len(sequences), sequences[0].shape[1]), np.float32)
    for b, s in enumerate(sequences):
        out[: len(s), b] = s
    return out, lengths


MOST_FRAMES = 400_000          # of a padded batch: an hour and some of one utterance, or four minutes of each of 16


def by_length(lengths: Sequence[int], batch: int, most: int = MOST_FRAMES) -> list[list[int]]:
    """Indices in batches of similar length, longest batch first (so that memory troubles show at once), of no more than
    ``most`` frames.

    A batch is as long as its longest for every row: hours beside seconds would take the memory of hours for each.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    out, at = [], 0
    while at < len(order):
        count = max(1, min(batch, most // max(1, lengths[order[at]])))
        out.append(order[at:at + count])
        at += count
    return out


def recognise(model: Any, text: Callable[[Iterable[int]], str], features: Sequence[NDArray], batch: int = 32,
              carry: Callable[[NDArray], Any] | None = None, advance: Callable[[int], None] | None = None,
              search: Search | None = None) -> list[str]:
    """Texts of many utterances, each normalised features [T, bins].  ``text`` of token ids (`FrontEnd.text`);
    ``carry`` turns an array into what the model wants (torch); ``advance`` hears how many are done; ``search`` None:
    greedy.
    """
    return [text(nbest[0].tokens) for nbest in hypotheses(model, features, batch, carry, advance, search)]


def in_batches(features: Sequence[NDArray | Stream], batch: int, most: int = MOST_FRAMES) -> Iterator[list[int]]:
    """Indices as `by_length`; a long stream goes by itself."""
    for rows in by_length([len(f) for f in features], batch, most):
        long = [i for i in rows if is_long(features[i])]
        yield from ([i] for i in long)
        if len(long) < len(rows):
            yield [i for i in rows if i not in long]


def is_long(features: NDArray | Stream) -> bool:
    """Whether they are a stream that is heard in pieces."""
    return isinstance(features, Stream) and features.long


def held(features: NDArray | Stream) -> NDArray:
    """[T, bins], whether they were held or are read now."""
    return features.whole() if isinstance(features, Stream) else features


def _found(asked: Any, search: Search, features: list[NDArray | Stream],
           carry: Callable[[NDArray], Any] | None) -> Found:
    """What a search finds in a batch, or in a stream."""
    if isinstance(features[0], Stream) and features[0].long:
        return streamed(asked, search, features[0])
    x, lengths = pad([held(f) for f in features])
    return search(asked, carry(x) if carry else x, lengths)


def hypotheses(model: Any, features: Sequence[NDArray | Stream], batch: int = 32,
               carry: Callable[[NDArray], Any] | None = None, advance: Callable[[int], None] | None = None,
               search: Search | None = None,
               rounds: Callable[[list[int], NDArray], None] | None = None) -> list[list[Hypothesis]]:
    """The n best of many utterances, as `recognise`.  ``rounds`` hears which utterances a batch held and what was
    asked for them (`nnac.decode.search.Found.rounds`, whose ``utterance`` counts within the batch)."""
    search, asked = search or Greedy(), scorer(model)
    out: list[list[Hypothesis]] = [[] for _ in features]
    for indices in in_batches(features, batch):
        found = _found(asked, search, [features[i] for i in indices], carry)
        for i, nbest in zip(indices, found.nbest, strict=True):
            out[i] = nbest
        if rounds:
            rounds(indices, found.rounds)
        if advance:
            advance(len(indices))
    return out
