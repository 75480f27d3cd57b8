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
    """Normalised features [``length``, bins] of an audio file; ``length`` may be less than the file has."""

    path: str
    features: FeatureSpec
    normalisation: Normalisation
    length: int

    def __len__(self) -> int:
        return self.length

    @property
    def long(self) -> bool:
        """Whether it goes by itself, piece by piece; a short one is only read late."""
        return self.length > LONG

    def __getitem__(self, part: slice) -> Stream:
        """Its first frames: ``stream[:n]``."""
        assert part.start in (None, 0) and part.step in (None, 1), "a stream begins at its beginning"
        return evolve(self, length=len(range(self.length)[part]))

    def blocks(self, size: int = BLOCK) -> Iterator[NDArray]:
        """[``size``, bins] float32, the last one shorter.  AudioError: the file is not what it was."""
        kept, count, left = [np.zeros((0, self.features.bins), np.float32)], 0, self.length
        for block in feature_blocks(self.path, self.features, self.normalisation, [0]):
            kept.append(block[:left])
            count, left = count + len(kept[-1]), left - len(kept[-1])
            if count >= size:
                whole = np.concatenate(kept)
                ends = len(whole) // size * size
                yield from (whole[at:at + size] for at in range(0, ends, size))
                kept, count = [whole[ends:]], len(whole) - ends
            if not left:
                break
        if left:
            raise AudioError(f"{self.path}: has become shorter while it was listened to")
        if count:
            yield np.concatenate(kept)

    def whole(self) -> NDArray:
        """All of it, held."""
        return np.concatenate([np.zeros((0, self.features.bins), np.float32), *self.blocks()])


def listen(path: str | os.PathLike[str], features: FeatureSpec, normalisation: Normalisation,
           longest: int | None = None) -> tuple[NDArray | Stream, float]:
    """(normalised features [T, bins], or a stream of more than ``longest`` of them, seconds) of an audio file.
    AudioError."""
    limit = LONG if longest is None else longest
    heard, parts, held = [0], [np.zeros((0, features.bins), np.float32)], 0
    again = _regular(path)
    for block in feature_blocks(path, features, normalisation, heard):
        held += len(block)
        if held > limit and again:
            parts.clear()                                            # from here on they are only counted
        else:
            parts.append(block)
    seconds = heard[0] / features.rate
    if held > limit and again:
        return Stream(str(path), features, normalisation, held), seconds
    return np.concatenate(parts), seconds


def listen_all(paths: Sequence[str], features: FeatureSpec,
               normalisation: Normalisation) -> list[tuple[NDArray | Stream, float]]:
    """`listen` to every file.  Of many short ones some are held, the others are streams too, so that a corpus takes no
    more room than a batch of it."""
    out, left = [], HELD
    for path in paths:
        heard, seconds = listen(path, features, normalisation, min(LONG, left))
        left -= len(heard) if isinstance(heard, np.ndarray) else 0
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
