"""What a tensor of the user's model is, as far as its integers are concerned.

A `Sequence` is a value of the model graph ([T, B, C] there) together with the layout that the user's tensor has: a list
of axes, each the product of none (size 1), one or several of the user's own: an input ``x`` of three axes has the axes
``x.0``, ``x.1`` and FEATURES.  Transposing, viewing and squeezing change the list and nothing else.  Which of the
user's axes is time is found out by what reads it: recurrent layers and convolutions go along it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

FEATURES = "features"
TIME, BATCH, CHANNEL, BAND = "time", "batch", "channel", "band"            # axes of an `Image`
Axis = tuple[str, ...]


@frozen
class Sequence:
    """A value of the graph in the user's layout.

    name   layer path or input name      axes   of the user's tensor      sizes  of these axes, in the example
    keeps  probability with which dropout keeps an element, on its way from the value to this use
    last   only the last step in time is meant
    before, behind  of the frames: zeros before the first one, and frames after the last one that are to be cut off
    """

    name: str
    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]
    keeps: float = 1.0
    last: bool = False
    before: int = 0
    behind: int = 0

    def arranged(self, axes: Iterable[Axis], sizes: Iterable[int]) -> Sequence:
        return evolve(self, axes=tuple(axes), sizes=tuple(sizes))

    @property
    def features_last(self) -> bool:
        return bool(self.axes) and self.axes[-1] == (FEATURES,)

    @property
    def width(self) -> int:
        """Features of a vector."""
        return self.sizes[self.axes.index((FEATURES,))]

    @property
    def outer(self) -> tuple[str, ...]:
        """The user's axes but for the features, in order, those of size 1 left out."""
        return tuple(a for axis in self.axes for a in axis if a != FEATURES)


@frozen(eq=False)
class Weights:
    """Parameters, or what the forward computes from parameters alone: its value, and the names of the parameters in it.

    name   of the parameter if it is one, else ""
    index  where it is not the whole, or lies otherwise: which element of that each of its own is, -1 for one that is
           zero
    """

    value: Tensor
    sources: tuple[str, ...]
    name: str = ""
    index: Tensor | None = None

    @property
    def numbers(self) -> Tensor:
        """Which element of the whole each of its own is: int64 of its shape."""
        return torch.arange(self.value.numel()).reshape(self.value.shape) if self.index is None else self.index

    @property
    def turned(self) -> Weights:
        """A matrix with rows as columns."""
        return evolve(self, value=self.value.t(), index=self.numbers.t())

    def __getitem__(self, at: Any) -> Weights:
        """Some of its elements, in any order, as a tensor is indexed."""
        return evolve(self, value=self.value[at], index=self.numbers[at])


@frozen
class Zeros:
    """A tensor of zeros of any shape: the state that a sequence starts from."""


@frozen
class Parts:
    """What a call with several results makes: ``layer[i]`` by number."""

    values: tuple[object, ...]


@frozen
class Joined:
    """Values side by side, in order, in one vector: what reads it may read them one by one."""

    parts: tuple[Sequence, ...]


@frozen(eq=False)
class StateIds:
    """A tensor of states: of recurrent layers after the last step, or given for the first.  Moving, cutting and joining
    is done on numbers that stand for its elements, so that any arrangement is found again.

    numbers   int64, of the user's shape: those of `nnac.capture.states.Vectors`
    """

    numbers: Tensor


@frozen
class Unread:
    """A result that no operator can give: reading it is refused, not making it."""

    what: str
    instead: str


@frozen(eq=False)
class Image:
    """Planes of channels over time and bands of frequency, as a convolution over both makes them: a value of the graph
    that has a vector of channels for each band, one after the other, and then those of the next frame.

    flat   the vectors, [T, B, C] without the bands      labels  of the user's axes: TIME, BATCH, CHANNEL, BAND
    """

    flat: Sequence
    labels: tuple[str, ...]
    bands: int

    def size(self, label: str) -> int:
        time, batch, channels = self.flat.sizes
        return {TIME: time, BATCH: batch, CHANNEL: channels, BAND: self.bands}[label]


@frozen(eq=False)
class Ordered:
    """A value whose elements stand in another order than the user's: his element i is ours ``order[i]``."""

    source: Sequence
    order: Tensor


@frozen
class Lost:
    """Stands for a value that could not be made, so that what reads it is not reported as well."""


@define
class Axes:
    """Which of the user's axes are the same one (added values have the same axes), and which is time or batch."""

    parents: dict[str, str] = field(factory=dict)
    roles: dict[str, str] = field(factory=dict)
    sizes: dict[str, int] = field(factory=dict)            # in the example, of those that the model makes of time

    def shorter(self, axis: str, size: int) -> str:
        """A new axis of time, of so many steps."""
        self.mark(axis, TIME)
        self.sizes[axis] = size
        return axis

    def root(self, axis: str) -> str:
        while (up := self.parents.get(axis, axis)) != axis:
            axis = up
        return axis

    def same(self, a: str, b: str) -> bool:
        """Take two axes for one.  False if one is time and the other batch."""
        a, b = self.root(a), self.root(b)
        if a == b:
            return True
        roles = {self.roles.get(x) for x in (a, b)} - {None}
        if len(roles) > 1:
            return False
        self.parents[b] = a
        if roles:
            self.roles[a] = roles.pop()  # type: ignore[assignment]
        return True

    def mark(self, axis: str, role: str) -> bool:
        """Say that an axis is ``time`` or ``batch``.  False if it is the other."""
        axis = self.root(axis)
        return self.roles.setdefault(axis, role) == role

    def role(self, axis: str) -> str | None:
        return self.roles.get(self.root(axis))
