"""Entry points: the ways into a model.  A model declares its own; nothing else knows their names.

Calling an entry once is one *step* of it.  What a model does in a second follows from what its entries declare: an
encoder runs once a frame, a prediction network or a language model once a label of each hypothesis, a joint once a
frame and once a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from attrs import asdict, field, fields, frozen
from attrs.validators import and_, deep_iterable, ge, instance_of

LABELS_PER_SECOND = 12.0       # word pieces of fluent speech (our choice)
FRAME_MS = 30.0                # of a step that hears frames, where a model does not say (our choice)
# what a beam asks for more than greedy search does (measured: beam 8, the shipped network, `make bench-search`): rounds
# with new prefixes for each label found, and how many are new; rounds for each frame and label, and hypotheses in each
BEAM_LABEL_ROUNDS, BEAM_PREFIXES = 1.8, 2.4
BEAM_FRAME_ROUNDS, BEAM_HYPOTHESES = 1.6, 4.1

_count = and_(instance_of(int), ge(0))
_names = deep_iterable(instance_of(str), instance_of(tuple))


def _tuple(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{names!r} is one name, not several")
    return tuple(names)


@frozen
class EntryPoint:
    """One way into a model.

    name             ``encoder``: what its layers call their entry
    per_frame        steps for each frame heard (a frame is what one step of the model's first entry covers)
    per_label        steps for each label found
    each_hypothesis  every hypothesis of a search runs its own steps
    frames           several steps that follow each other may be computed together (frame batching)
    inputs, outputs  the values it takes and returns
    keeps  paths of the layers with a state that outlives its steps
    """

    name: str = field(validator=instance_of(str))
    per_frame: int = field(default=1, validator=_count)
    per_label: int = field(default=0, validator=_count)
    each_hypothesis: bool = field(default=False, validator=instance_of(bool))
    frames: bool = field(default=False, validator=instance_of(bool))
    inputs: tuple[str, ...] = field(default=(), converter=_tuple, validator=_names)
    outputs: tuple[str, ...] = field(default=(), converter=_tuple, validator=_names)
    keeps: tuple[str, ...] = field(default=(), converter=_tuple, validator=_names)

    def steps_per_second(self, frames: float, labels: float, hypotheses: int = 1) -> float:
        """Steps in a second of speech with so many frames, and so many labels of each of ``hypotheses``."""
        return (self.per_frame * frames + self.per_label * labels) * (hypotheses if self.each_hypothesis else 1)

    def calls_per_second(self, frames: float, labels: float, hypotheses: int = 1) -> tuple[float, float]:
        """(calls in a second of speech, hypotheses of each) that a search asks for which holds so many."""
        steps = self.per_frame * frames + self.per_label * labels
        if not self.each_hypothesis or hypotheses == 1:
            return steps, 1.0
        rounds, each = (BEAM_FRAME_ROUNDS, BEAM_HYPOTHESES) if self.per_frame else (BEAM_LABEL_ROUNDS, BEAM_PREFIXES)
        return steps * rounds, min(each, hypotheses)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self, value_serializer=lambda _, __, v: list(v) if isinstance(v, tuple) else v)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EntryPoint:
        """What ``to_json`` described.  ValueError if it is not that."""
        if not isinstance(data, Mapping) or (unknown := set(data) -
                                             {a.name for a in fields(cls)}) or "name" not in data:
            raise ValueError(f"not an entry point: {sorted(unknown) if isinstance(data, Mapping) else data!r}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"not an entry point: {error}") from None


@frozen(slots=False)
class Calls:
    """One entry point as the host may call it: ``sizes`` ((steps or hypotheses of a call, cycles of the call), ...),
    one of them of one."""

    sizes: tuple[tuple[int, int], ...] = field()

    @sizes.validator
    def _check(self, _: object, value: tuple[tuple[int, int], ...]) -> None:
        if not any(size == 1 for size, _ in value):
            raise ValueError("an entry can be called for one step")

    @property
    def one(self) -> int:
        return min(c for size, c in self.sizes if size == 1)

    @property
    def largest(self) -> tuple[int, int]:
        return max(self.sizes)

    def several(self, count: int) -> list[int]:
        """Cycles of the calls that together cover ``count`` hypotheses, and cost the least; fewer calls where that
        costs the same."""
        while len(self._cheapest) <= count:
            n = len(self._cheapest)
            ways = ([*self._cheapest[max(0, n - size)], cycles] for size, cycles in self.sizes)
            self._cheapest.append(min(ways, key=lambda way: (sum(way), len(way))))
        return self._cheapest[count]

    @cached_property
    def _cheapest(self) -> list[list[int]]:
        return [[]]


def steps_per_second(entries: Iterable[EntryPoint], frame_ms: float | None, labels: float = LABELS_PER_SECOND,
                     hypotheses: int = 1) -> dict[str, float]:
    """Entry -> its steps in a second of real time.  ``frame_ms``: of one step of the first entry; ``labels``: a second,
    of one hypothesis."""
    return {e.name: e.steps_per_second(1000 / (frame_ms or FRAME_MS), labels, hypotheses) for e in entries}
