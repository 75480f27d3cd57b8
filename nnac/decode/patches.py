"""Frames as a model hears them that begins with convolutions: a step of it reads patches of them, which overlap.

In:  the frames of an utterance, whole or block by block.   Out: vectors, step after step, each a patch that the first
convolution reads; zeros where the convolution has zeros around the frames.
A frame that several patches hold is given as often: what the model does with a patch is then a matrix, and needs no
memory.  How patches lie is data, the same for PyTorch tensors in training and for NumPy arrays on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
from attrs import asdict, evolve, frozen
from numpy.typing import NDArray

MOST = 1 << 16                     # of anything that a patch is described by, in a file
MOST_ELEMENTS = 1 << 26            # of the patches of one step, in a file
T = TypeVar("T")                   # numpy.ndarray or torch.Tensor


@frozen
class Patches:
    """What a convolution over time, or over time and frequency, reads for each of its outputs: ``taps`` frames, each
    ``apart`` behind the one before, every ``hop`` frames, and of each so many ``bands`` alike; zeros around them."""

    taps: int
    hop: int
    apart: int
    before: int
    behind: int
    bands: int
    band_hop: int
    band_apart: int
    band_before: int
    band_behind: int

    def taken(self, grid: NDArray) -> NDArray:
        """A grid [T, F, …] as [T', F', taps, bands, …]; -1 where there are zeros."""
        around = ((self.before, self.behind), (self.band_before, self.band_behind))
        grid = np.pad(grid, (*around, *[(0, 0)] * (grid.ndim - 2)), constant_values=-1)
        t, f = (_places(n, *of) for n, of in zip(grid.shape, (
            (self.taps, self.hop, self.apart), (self.bands, self.band_hop, self.band_apart)), strict=False))
        return grid[t[:, None, :, None], f[None, :, None, :]]

    def bands_of(self, width: int) -> int:
        """How many bands it makes of so many."""
        left = width + self.band_before + self.band_behind - (self.bands - 1) * self.band_apart
        return max(0, -(-left // self.band_hop))


def _places(size: int, count: int, hop: int, apart: int) -> NDArray:
    """[outputs, count]: which of ``size`` places each reads."""
    starts = np.arange(0, max(0, size - (count - 1) * apart), hop)
    return starts[:, None] + apart * np.arange(count)


@frozen(slots=False)
class Hearing:
    """How a model hears frames of ``width`` elements: as they are, or by the patches of the convolutions that begin it,
    from the first one on.

    A *step* is one of the last convolution's.  Zeros stand around the frames themselves alone, and in time are those
    of the first convolution.
    """

    width: int
    levels: tuple[Patches, ...] = ()

    @classmethod
    def from_json(cls, width: int, levels: Iterable[Mapping[str, Any]]) -> Hearing:
        """What `to_json` made of the levels.  KeyError, TypeError, ValueError if they are no patches."""
        made = cls(width, tuple(Patches(**{str(k): int(v) for k, v in p.items()}) for p in levels))
        for i, p in enumerate(made.levels):
            if min(p.taps, p.hop, p.apart, p.bands, p.band_hop, p.band_apart) < 1 or min(
                    p.before, p.behind, p.band_before, p.band_behind) < 0 or max(asdict(p).values()) > MOST:
                raise ValueError("patches have taps, and are apart")
            if i and (p.before or p.behind or p.band_before or p.band_behind):
                raise ValueError("zeros stand around frames, not around patches of them")
        if made.vectors_of_step < 1:
            raise ValueError(f"patches of {width} bands hold none of them")
        if max(made.reach * width, made.vectors_of_step * made.vector_width) > MOST_ELEMENTS:
            raise ValueError("patches hold more than any model reads")
        return made

    def to_json(self) -> list[dict[str, int]]:
        return [asdict(p) for p in self.levels]

    @property
    def before(self) -> int:
        """Frames of zeros before the first one."""
        return self.levels[0].before if self.levels else 0

    @property
    def behind(self) -> int:
        """Frames of zeros behind the last one."""
        return self.levels[0].behind if self.levels else 0

    @property
    def hop(self) -> int:
        """Frames from one step to the next."""
        return math.prod(p.hop for p in self.levels)

    @property
    def reach(self) -> int:
        """Frames that a step reads, from the first to the last."""
        hops = accumulate((p.hop for p in self.levels), int.__mul__, initial=1)
        return 1 + sum((p.taps - 1) * p.apart * hop for p, hop in zip(self.levels, hops, strict=False))

    @property
    def vector_width(self) -> int:
        """Elements of a vector."""
        return self.levels[0].taps * self.levels[0].bands if self.levels else self.width

    @property
    def vectors_of_step(self) -> int:
        bands = self.width
        for p in self.levels:
            bands = p.bands_of(bands)
        return bands * math.prod(p.taps * p.bands for p in self.levels[1:]) if self.levels else 1

    @property
    def growth(self) -> float:
        """Elements of vectors over those of the frames that they are of."""
        return self.vectors_of_step * self.vector_width / (self.hop * self.width)

    def steps(self, frames: int) -> int:
        """How many steps an utterance of so many frames has.  One of none has none."""
        return max(0, (frames + self.before + self.behind - self.reach) // self.hop + 1) if frames > 0 else 0

    def vectors(self, frames: int) -> int:
        """How many vectors the model hears of so many frames."""
        return self.steps(frames) * self.vectors_of_step

    def frames(self, vectors: int) -> int:
        """Frames from one step of a model to the next, where it takes so many vectors."""
        return vectors // self.vectors_of_step * self.hop

    def read(self, vectors: int) -> int:
        """Frames, zeros among them, that so many vectors are made of."""
        return (vectors // self.vectors_of_step - 1) * self.hop + self.reach

    def places(self, frames: int) -> NDArray:
        """[vectors, elements]: which element of so many frames, end to end, zeros around them among them, is where; -1
        for a zero beyond the bands."""
        grid = np.arange(frames * self.width).reshape(frames, self.width)
        if not self.levels:
            return grid
        for patches in (evolve(self.levels[0], before=0, behind=0), *self.levels[1:]):
            grid = patches.taken(grid)
        return grid.reshape(-1, self.vector_width)

    @cached_property
    def _step(self) -> NDArray:
        """`places` of one step."""
        return self.places(self.reach)

    def of(self, x: T) -> T:
        """Frames [T, B, width] of whole utterances as the model hears them: vectors [T', B, vector_width]."""
        return x if not self.levels else self._taken(_between_zeros(x, self.before, self.behind))

    def _taken(self, frames: Any) -> Any:
        """The vectors of all steps that are whole: frames [T, B, width], zeros among them -> [T', B, vector_width]."""
        total, batch, _ = frames.shape
        size, hop, at = self.reach * self.width, self.hop * self.width, self._step
        held = isinstance(frames, np.ndarray)
        if total < self.reach:
            shape = (0, batch, self.vector_width)
            return np.zeros(shape, frames.dtype) if held else frames.new_zeros(shape)
        if held:
            flat = np.ascontiguousarray(frames.transpose(1, 0, 2)).reshape(batch, -1)
            steps = np.lib.stride_tricks.sliding_window_view(flat, size, 1)[:, ::hop]
            taken = np.where(at >= 0, steps[:, :, at], np.zeros((), frames.dtype))
            return np.ascontiguousarray(taken.reshape(batch, -1, self.vector_width).transpose(1, 0, 2))
        import torch

        index = torch.from_numpy(at).to(frames.device)
        steps = frames.permute(1, 0, 2).reshape(batch, -1).unfold(1, size, hop)
        taken = steps[:, :, index.clamp_min(0)] * (index >= 0)
        return taken.reshape(batch, -1, self.vector_width).permute(1, 0, 2).to(frames.dtype)

    def pieces(self, blocks: Iterable[NDArray]) -> Iterator[NDArray]:
        """Blocks of frames [n, width] of an utterance, one after the other -> the vectors [n', vector_width] that each
        makes whole, and behind the last one those that the zeros there do: joined, what `of` makes of the whole."""
        if not self.levels:
            yield from blocks
            return
        kept, skip, heard = np.zeros((self.before, self.width), np.float32), 0, False
        for block in blocks:
            heard = heard or len(block) > 0
            if not heard:                                   # nothing stays nothing, whatever zeros would make
                yield np.zeros((0, self.vector_width), np.float32)
                continue
            kept, skip, made = self._more(kept, skip, block)
            yield made
        if heard:
            yield self._more(kept, skip, np.zeros((self.behind, self.width), np.float32))[2]

    def _more(self, kept: NDArray, skip: int, block: NDArray) -> tuple[NDArray, int, NDArray]:
        """(frames that later steps read, how many to come that none reads, the vectors of the steps that are whole)."""
        kept = np.concatenate([kept, block])
        drop = min(skip, len(kept))                         # steps may lie further apart than each reaches
        kept, skip = kept[drop:], skip - drop
        made = self._taken(kept[:, None])[:, 0]
        used = len(made) // self.vectors_of_step * self.hop
        return kept[used:], skip + max(0, used - len(kept)), made


def _between_zeros(frames: Any, before: int, behind: int) -> Any:
    """[T, B, width] with zeros around; nothing stays nothing."""
    if not len(frames):
        return frames
    if isinstance(frames, np.ndarray):
        return np.pad(frames, ((before, behind), (0, 0), (0, 0)))
    from torch.nn import functional

    return functional.pad(frames, (0, 0, 0, 0, before, behind))
