"""Tensors in, tensors out: what stands between the world and a model of a user's own, whose calls take and give arrays.

How the user's arrays lie is data: which of their axes are time, batch and features.  The same records arrange PyTorch
tensors in training and NumPy arrays on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from attrs import asdict, frozen
from numpy.typing import NDArray

from nnac import arith
from nnac.decode.patches import Hearing, Patches
from nnac.errors import UserError
from nnac.ir import Value

TIME, BATCH, FEATURES = "time", "batch", "features"
T = TypeVar("T")                   # numpy.ndarray or torch.Tensor


class TensorError(UserError):
    """Arrays that a model does not take: which argument, what it has, what it should have."""


def permuted(x: T, order: Sequence[int]) -> T:
    """Axes in another order, of either kind of array."""
    array: Any = x
    return array.transpose(order) if isinstance(x, np.ndarray) else array.permute(*order)


@frozen
class Argument:
    """An argument of the model that it reads.  roles: of each axis but the features, ``time`` or ``batch``.

    hears   of convolutions that begin the model, from the first on: a frame is given as often as they read it
    """

    name: str
    label: bool
    roles: tuple[str, ...]
    width: int
    hears: tuple[Patches, ...] = ()

    @classmethod
    def from_json(cls, a: Mapping[str, Any]) -> Argument:
        """What attrs' ``asdict`` makes of one.  KeyError, TypeError, ValueError if it is not one."""
        width = int(a["width"])
        hears = Hearing.from_json(width, a.get("hears", ())).levels
        return cls(str(a["name"]), bool(a["label"]), tuple(map(str, a["roles"])), width, hears)

    @property
    def hearing(self) -> Hearing:
        """How its frames become what the model hears."""
        return Hearing(self.width, self.hears)

    def sequence(self, x: T) -> T:
        """The user's array as the model hears it: [T, B, C], labels as [T, B, 1]."""
        y: Any = x
        y = y[..., None] if self.label else y
        if len(self.roles) == 1:
            return y[None] if self.roles == (BATCH,) else y[:, None]
        y = permuted(y, (1, 0, 2)) if self.roles[0] == BATCH else y
        return self.hearing.of(y)

    def check(self, x: NDArray) -> None:
        """TensorError unless the array is one of these."""
        wanted = [*self.roles, *([] if self.label else [str(self.width)])]
        fits = x.ndim == len(wanted) and (self.label or x.shape[-1] == self.width) and 0 not in x.shape
        if not fits:
            raise TensorError(f"`{self.name}` is [{', '.join(wanted)}], not {list(x.shape)}")
        if self.label and not np.issubdtype(x.dtype, np.integer):
            raise TensorError(f"`{self.name}` are labels: whole numbers, not {x.dtype}")
        if not self.label and not np.issubdtype(x.dtype, np.floating):
            raise TensorError(f"`{self.name}` are real numbers, not {x.dtype}")
        if not np.isfinite(x).all():
            raise TensorError(f"`{self.name}` holds values that are no numbers")
        if self.hears and not self.hearing.steps(frames := x.shape[self.roles.index(TIME)]):
            raise TensorError(f"`{self.name}` has {frames} frames: too few for one step of the model")


@frozen
class Result:
    """What the model returns: a value, and the axes of the user's array, each the product of ``time``, ``batch`` or
    features (none: size 1).  ``last``: of the last step in time alone."""

    name: str
    axes: tuple[tuple[str, ...], ...]
    last: bool = False

    def arranged(self, y: T) -> T:
        """[T, B, C] as the user's array."""
        array: Any = y
        array = array[-1:] if self.last else array
        at = {TIME: 0, BATCH: 1, FEATURES: 2}
        order = [at[a] for axis in self.axes for a in axis]
        missing = [i for i in range(3) if i not in order]
        array = permuted(array, [*missing, *order])
        sizes = iter(array.shape[len(missing):])
        return array.reshape([math.prod(next(sizes) for _ in axis) for axis in self.axes])


@frozen
class TensorEnd:
    """The arguments in order (None: one that is not read) and the results.  Travels in checkpoints and programs as
    JSON."""

    arguments: tuple[Argument | None, ...]
    results: tuple[Result, ...]
    several: bool

    def to_json(self) -> dict[str, Any]:
        return dict(arguments=[a and asdict(a) for a in self.arguments], results=[asdict(r) for r in self.results],
                    several=self.several)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorEnd:
        """What ``to_json`` described.  KeyError, TypeError, ValueError if it is not one."""
        arguments = tuple(a and Argument.from_json(a) for a in data["arguments"])
        results = tuple(Result(str(r["name"]), tuple(tuple(map(str, axis)) for axis in r["axes"]), bool(r["last"]))
                        for r in data["results"])
        words = {a for r in results for axis in r.axes for a in axis} | {x for a in arguments if a for x in a.roles}
        if not results or not words <= {TIME, BATCH, FEATURES}:
            raise ValueError("axes are time, batch and features")
        return cls(arguments, results, bool(data["several"]))

    @property
    def read(self) -> tuple[Argument, ...]:
        """The arguments that the model reads."""
        return tuple(a for a in self.arguments if a is not None)

    def integers(self, arrays: Mapping[str, NDArray], values: Mapping[str, Value]) -> dict[str, NDArray]:
        """The model's arguments by name, as the integers [T, B, width] that its entry takes.  TensorError."""
        named = {a.name: a for a in self.read}
        if lacking := [n for n in named if n not in arrays]:
            raise TensorError(f"{', '.join(f'`{n}`' for n in lacking)} {'is' if len(lacking) == 1 else 'are'} not "
                              f"given "
                              f"(given: {', '.join(arrays) or 'nothing'})")
        out = {}
        for name, a in named.items():
            a.check(arrays[name])
            x, v = a.sequence(arrays[name]), values[name]
            if a.label:
                out[name] = x.astype(np.int64)
            else:
                assert v.scale is not None
                out[name] = arith.quantise(x.astype(np.float32), v.scale, v.zero_point, v.bits).astype(np.int64)
        if len({x.shape[:2] for x in out.values()}) > 1:
            shapes = ", ".join(f"`{n}` {x.shape[0]} steps of {x.shape[1]}" for n, x in out.items())
            raise TensorError(f"the arguments have other times or batches: {shapes}")
        return out

    def real(self, made: Mapping[str, NDArray], values: Mapping[str, Value]) -> list[NDArray]:
        """The results, real, from the integers [T, B, width] of an entry's outputs."""
        out = []
        for r in self.results:
            v = values[r.name]
            assert v.scale is not None
            out.append(r.arranged(((made[r.name] - v.zero_point) * np.float32(v.scale)).astype(np.float32)))
        return out


@frozen
class LabelEnd:
    """Features in, labels out: what stands between the world and a transducer of a user's own that hears no audio.

    argument  how features lie      blank  the user's number of it, of ``vocabulary`` labels; ours is 0
    """

    argument: Argument
    blank: int
    vocabulary: int

    def to_json(self) -> dict[str, Any]:
        return dict(argument=asdict(self.argument), blank=self.blank, vocabulary=self.vocabulary)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelEnd:
        """What ``to_json`` described.  KeyError, TypeError, ValueError if it is not one."""
        made = cls(Argument.from_json(data["argument"]), int(data["blank"]), int(data["vocabulary"]))
        if not 0 <= made.blank < made.vocabulary or sorted(made.argument.roles) != [BATCH, TIME]:
            raise ValueError("features have time and batch, and the blank is one of the labels")
        return made

    @property
    def read(self) -> tuple[Argument, ...]:
        return (self.argument,)

    def labels(self, ids: Iterable[int]) -> list[int]:
        """Our numbers of labels, the blank first, as the user's."""
        return [self.blank if i == 0 else i - 1 if i <= self.blank else i for i in map(int, ids)]

    def text(self, ids: Iterable[int]) -> str:
        """The user's numbers, blanks left out."""
        return " ".join(map(str, self.labels(i for i in ids if i)))

    def features(self, arrays: Mapping[str, NDArray]) -> NDArray:
        """The model's argument as [T, B, width], real.  TensorError."""
        if self.argument.name not in arrays:
            raise TensorError(f"`{self.argument.name}` is not given (given: {', '.join(arrays) or 'nothing'})")
        self.argument.check(arrays[self.argument.name])
        return np.asarray(self.argument.sequence(arrays[self.argument.name]), np.float32)
