"""States that a model takes and returns: which vectors of which layers, and where they lie in the user's tensors.

Each element of a state has a number.  What the model does to its states before layers read them, and after, is done on
these numbers; an arrangement is then described by where each vector lies: `Place`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

GIVEN = "given"                    # the kind of what comes in
# ATen calls that change nothing, and those that move elements about
CASTS = ("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten._to_copy.default", "aten.to.other",
         "aten.float.default")
MOVES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "transpose", "permute", "t", "squeeze", "unsqueeze",
         "select", "slice", "stack", "cat", "split", "split_with_sizes", "chunk", "unbind", "contiguous", "clone",
         "alias", "detach", "movedim", "narrow", "swapaxes", "detach_", "lift_fresh_copy")


@frozen
class Vectors:
    """Elements [batch, width] with numbers from ``first`` on, or those of an argument.

    owner  path of the layer that makes them, or the argument's name      kind  ``hidden``, ``cell``, or GIVEN
    """

    owner: str
    kind: str
    first: int
    sizes: tuple[int, ...]

    @property
    def end(self) -> int:
        count = 1
        for n in self.sizes:
            count *= n
        return self.first + count


@frozen
class Place:
    """Where the vectors of a state lie in a tensor of the user's.

    path, kind  of the layer, and which of its states      tensor  number of the argument or result
    index  of each axis: a number, or None for ``batch`` and ``width``      start  of the features in that axis
    """

    path: str
    kind: str
    tensor: int
    index: tuple[int | None, ...]
    batch: int
    features: int
    start: int
    width: int

    def view(self, x: Tensor) -> Tensor:
        """The vectors [B, width], a view."""
        parts: list[Any] = [slice(None) if i is None else i for i in self.index]
        parts[self.features] = slice(self.start, self.start + self.width)
        y = x[tuple(parts)]
        return y if self.batch < self.features else y.t()


@frozen
class StateResult:
    """A result of the model that is made of states alone, [as ``sizes``], the batch along ``batch``."""

    places: tuple[Place, ...]
    sizes: tuple[int, ...]

    def filled(self, vectors: Mapping[tuple[str, str], Tensor]) -> Tensor:
        """The user's tensor of the states (path, kind) -> [B, width]."""
        first = next(iter(vectors.values()))
        sizes = list(self.sizes)
        sizes[self.places[0].batch] = len(first)
        out = first.new_zeros(sizes)
        for p in self.places:
            p.view(out).copy_(vectors[p.path, p.kind])
        return out


@define
class Numbering:
    """All numbers that were given out."""

    vectors: list[Vectors] = field(factory=list)

    def new(self, owner: str, kind: str, sizes: tuple[int, ...]) -> Tensor:
        first = self.vectors[-1].end if self.vectors else 0
        made = Vectors(owner, kind, first, sizes)
        self.vectors.append(made)
        return torch.arange(first, made.end).reshape(sizes)

    def of(self, number: int) -> Vectors:
        return next(v for v in self.vectors if v.first <= number < v.end)

    def result(self, tensor: int, numbers: Tensor) -> StateResult | None:
        """How a result of these numbers is made of whole states; None where it is not."""
        owners = self.owners(numbers)
        flat = numbers.flatten()
        at = torch.full((self.vectors[-1].end,), -1)
        at[flat] = torch.arange(len(flat))
        places = []
        for v in owners:
            whole = at[v.first: v.end].reshape(v.sizes)
            if v.kind == GIVEN or bool((whole < 0).any()):
                return None
            found = place(v.owner, v.kind, tensor, tuple(numbers.shape), whole)
            if found is None:
                return None
            places.append(found)
        if len({p.batch for p in places}) != 1 or sum(p.width for p in places) * owners[0].sizes[0] != len(flat):
            return None
        return StateResult(tuple(places), tuple(numbers.shape))

    def owners(self, numbers: Tensor) -> list[Vectors]:
        """Whose numbers are in a tensor, in order of their first."""
        return [v for v in self.vectors if bool(((numbers >= v.first) & (numbers < v.end)).any())]


def place(path: str, kind: str, tensor: int, shape: tuple[int, ...], at: Tensor) -> Place | None:
    """The place of vectors in a tensor of ``shape``; ``at`` int64 [batch, width]: the flat index of each element there.
    None: they do not lie along two axes."""
    batch, width = at.shape
    where = torch.stack(torch.unravel_index(at, shape), -1)                    # [batch, width, axes]
    first = where[0, 0]
    moved = [[int(i) for i in (where[n - 1, m - 1] != first).nonzero().flatten()]
             for n, m in ((batch, 1), (1, width))]
    ones = [i for i, n in enumerate(shape) if n == 1]
    features = moved[1][0] if moved[1] else max(ones, default=-1)
    along = moved[0][0] if moved[0] else next((i for i in reversed(ones) if i != features), -1)
    if max(map(len, moved)) > 1 or features < 0 or along < 0 or along == features or shape[along] != batch:
        return None
    index = tuple(None if i in (features, along) else int(first[i]) for i in range(len(shape)))
    made = Place(path, kind, tensor, index, along, features, int(first[features]), width)
    whole = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    return made if torch.equal(made.view(whole), at) else None
