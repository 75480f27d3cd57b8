"""Long audio as a stream: its features are read, encoded and searched block by block, and no hour of them is ever held.

A `Stream` stands where the features [T, bins] of an utterance would: it knows how many frames there are (it has read
the file once, and kept none) and reads them again when they are asked for.  `Frames` stands where the encoder's frames
would: a search comes to them one after the other, and they are made as it comes.  Whatever the blocks, the integers are
those of the whole: features are computed frame by frame (`nnac.speech.features`), and the encoder's state is handed
from block to block, as a device does it.
Needs an encoder that goes forward only, and a file that can be read twice: what comes through a pipe is held.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from nnac.decode.patches import Hearing
from nnac.decode.search import Search
from nnac.speech.audio import AudioError, audio_blocks
from nnac.speech.features import FeatureSpec, Normalisation, StreamingLogMel

LONG = 30_000                  # frames: five minutes, 5 MB of features; what is shorter is searched in batches
HELD = 400_000                 # frames of short files that are held until they are searched; others are read again
BLOCK = 3_000                  # frames that are encoded together
PIECE = 1 << 15                # samples whose features are computed together


def feature_blocks(path: str | os.PathLike[str], features: FeatureSpec, normalisation: Normalisation,
                   heard: list[int]) -> Iterator[NDArray]:
    """Normalised features [n, bins] of an audio file, block by block.  ``heard[0]`` counts its samples.  AudioError."""
    stream = StreamingLogMel(features)
    for block in audio_blocks(path, features.rate):
        heard[0] += len(block)
        for at in range(0, len(block), PIECE):                       # a transform takes 30 times its samples' room
            yield normalisation.apply(stream.feed(block[at:at + PIECE]))


@frozen(eq=False)
class Stream:
    """What a model hears of an audio file: vectors [``length``, width], its normalised features or patches of them.

    frames  of features that the utterance has; the file may have more      length  may be less than these make
    """

    path: str
    features: FeatureSpec
    normalisation: Normalisation
    hearing: Hearing
    frames: int
    length: int

    def __len__(self) -> int:
        return self.length

    @property
    def long(self) -> bool:
        """Whether it goes by itself, piece by piece; a short one is only read late."""
        return self.length * self.hearing.vector_width > LONG * self.features.bins

    def __getitem__(self, part: slice) -> Stream:
        """Its first vectors: ``stream[:n]``."""
        assert part.start in (None, 0) and part.step in (None, 1), "a stream begins at its beginning"
        return evolve(self, length=len(range(self.length)[part]))

    def blocks(self, size: int = BLOCK) -> Iterator[NDArray]:
        """The vectors of ``size`` frames each, float32, the last block shorter.  AudioError: the file is not what it
        was."""
        kept, count, left = [np.zeros((0, self.hearing.vector_width), np.float32)], 0, self.length
        size = max(1, size // self.hearing.hop) * self.hearing.vectors_of_step
        for block in self.hearing.pieces(self._frames()):
            kept.append(block[:left])
            count, left = count + len(kept[-1]), left - len(kept[-1])
            if count >= size:
                whole = np.concatenate(kept)
                ends = len(whole) // size * size
                yield from (whole[at:at + size] for at in range(0, ends, size))
                kept, count = [whole[ends:]], len(whole) - ends
            if not left:
                break
        if count:
            yield np.concatenate(kept)

    def _frames(self) -> Iterator[NDArray]:
        """The features of the utterance, block by block."""
        left = self.frames
        for block in feature_blocks(self.path, self.features, self.normalisation, [0]):
            yield block[:left]
            left -= min(left, len(block))
            if not left:
                return
        if left:
            raise AudioError(f"{self.path}: has become shorter while it was listened to")

    def whole(self) -> NDArray:
        """All of it, held."""
        return np.concatenate([np.zeros((0, self.hearing.vector_width), np.float32), *self.blocks()])


def listen(path: str | os.PathLike[str], features: FeatureSpec, normalisation: Normalisation,
           hearing: Hearing | None = None, longest: int | None = None,
           ends: int | None = None) -> tuple[NDArray | Stream, float]:
    """(what a model hears of an audio file, seconds): vectors, or a stream where they take more room than ``longest``
    frames of features.  AudioError.

    hearing  how frames become vectors; None: each is one      ends  after so many frames the utterance ends, though the
    file goes on
    """
    hearing, limit = hearing or Hearing(features.bins), LONG if longest is None else longest
    heard, parts, held, left = [0], [np.zeros((0, features.bins), np.float32)], 0, ends
    again = _regular(path)
    for block in feature_blocks(path, features, normalisation, heard):
        if left is not None:
            block = block[:left]
            left -= len(block)
        held += len(block)
        if held * hearing.growth > limit and again:
            parts.clear()                                            # from here on they are only counted
        else:
            parts.append(block)
    seconds = heard[0] / features.rate
    if held * hearing.growth > limit and again:
        return Stream(str(path), features, normalisation, hearing, held, hearing.vectors(held)), seconds
    return hearing.of(np.concatenate(parts)[:, None])[:, 0], seconds


def listen_all(paths: Sequence[str], features: FeatureSpec, normalisation: Normalisation,
               hearing: Hearing | None = None,
               ends: Sequence[int] | None = None) -> list[tuple[NDArray | Stream, float]]:
    """`listen` to every file.  Of many short ones some are held, the others are streams too, so that a corpus takes no
    more room than a batch of it."""
    out, left = [], HELD
    for path, end in zip(paths, [None] * len(paths) if ends is None else ends, strict=True):
        heard, seconds = listen(path, features, normalisation, hearing, min(LONG, left), end)
        left -= heard.size // features.bins if isinstance(heard, np.ndarray) else 0
        out.append((heard, seconds))
    return out


def _regular(path: str | os.PathLike[str]) -> bool:
    """Whether a file can be read twice."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


class Piecewise(Protocol):
    """A stepper whose encoder takes a stream."""

    def encode_pieces(self, blocks: Iterator[NDArray]) -> Iterator[Any] | None:
        """Blocks [n, 1, bins] -> frames [n', 1, …], ready for its joint; None: it needs the whole."""
        ...


class Frames:
    """The encoder's frames [``count``, 1, …] of one utterance, for a search that asks for them in order."""

    def __init__(self, pieces: Iterator[Any], count: int) -> None:
        self._pieces, self._count, self._first = pieces, count, 0
        self._piece: Any = ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, t: int) -> Any:
        assert t >= self._first, "a search goes forward"
        while t >= self._first + len(self._piece):
            self._first += len(self._piece)
            self._piece = next(self._pieces)
        return self._piece[t - self._first]


def streamed(stepper: Any, search: Search, stream: Stream) -> Any:
    """What ``search`` finds in a stream; held as a whole where stepper or search cannot do without."""
    pieces = None
    if search.goes_forward and hasattr(stepper, "encode_pieces"):
        pieces = stepper.encode_pieces(block[:, None] for block in stream.blocks())
    if pieces is None:
        return search(stepper, stream.whole()[:, None], np.array([len(stream)]))
    count = stepper.frames_of(len(stream))
    return search.over(stepper, Frames(pieces, count), np.array([count]))
