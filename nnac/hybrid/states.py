"""The inventory: which HMM states there are, and which one a half of a phone after a given neighbour is.

A half of a phone after a neighbour (a `Unit` of `nnac.hybrid.topology`) has a state of its own where the alignment saw
it often, else it shares the state of that half of the phone, whatever comes before.  Chosen by counts, the most
frequent first: with 166 words there are too few contexts for a tree's questions to find what counting does not (our
choice; trees: Young, Odell, Woodland 1994).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac.checked import checked
from nnac.errors import UserError
from nnac.hybrid.lexicon import Lexicon
from nnac.hybrid.topology import HALVES, Unit

LEAST = 50                     # frames that a state of its own wants (our choice)


class InventoryError(UserError, ValueError):
    """There are not as many states as were asked for; one line."""


def _units(values: Iterable[Iterable[int]]) -> tuple[Unit, ...]:
    made = tuple(tuple(v) for v in values)
    if any(len(u) != 3 for u in made):
        raise ValueError("a unit is a phone, its neighbour and a half")
    return made        # type: ignore[return-value]


@frozen(slots=False)
class Inventory:
    """States of a lexicon's phones.  ``own[k]``: the unit whose state is k; after these two states a phone."""

    lexicon: Lexicon
    own: tuple[Unit, ...] = field(default=(), converter=_units)

    def __attrs_post_init__(self) -> None:
        phones = len(self.lexicon.phones)
        if len(set(self.own)) != len(self.own) or any(
                not (0 < p < phones and 0 <= left < phones and 0 <= half < HALVES) for p, left, half in self.own):
            raise ValueError("states of units that are not units of the lexicon's phones, or twice the same")

    @property
    def count(self) -> int:
        return len(self.own) + HALVES * len(self.lexicon.phones)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """[phones, phones, 2]: the state of (phone, left neighbour, half)."""
        phones = len(self.lexicon.phones)
        made = np.empty((phones, phones, HALVES), np.int32)
        made[:] = len(self.own) + (HALVES * np.arange(phones)[:, None] + np.arange(HALVES))[:, None, :]
        for state, unit in enumerate(self.own):
            made[unit] = state
        return made

    def states(self, units: NDArray) -> NDArray[np.int32]:
        """[n, 3] units -> [n] states."""
        return self.table[units[:, 0], units[:, 1], units[:, 2]]

    def names(self) -> list[str]:
        """Of every state: ``AH.1`` for half 1 of a phone, ``DH-AH.1`` for it after DH."""
        phones = self.lexicon.phones
        return ([f"{phones[left]}-{phones[p]}.{half}" for p, left, half in self.own]
                + [f"{p}.{half}" for p in phones for half in range(HALVES)])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it: states of one digest mean the same."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return dict(lexicon=self.lexicon.to_json(), own=[list(u) for u in self.own])

    @classmethod
    def from_json(cls, data: Any) -> Inventory:
        """ValueError: what is wrong with it."""
        if not isinstance(data, Mapping) or set(data) != {"lexicon", "own"}:
            raise ValueError("states: `lexicon` and `own` are expected")
        return cls(Lexicon.from_json(data["lexicon"]), checked(list[list[int]], data["own"], "own"))

    def __str__(self) -> str:
        return (f"{self.count} states: {len(self.own)} of a phone after a given one, {HALVES} of each of "
                f"{len(self.lexicon.phones)} phones")


def chosen(seen: Mapping[Unit, int], lexicon: Lexicon, count: int) -> Inventory:
    """The inventory of ``count`` states: own states for the units with the most frames in ``seen``; ties by number.

    InventoryError: fewer units than that have `LEAST` frames, or ``count`` is below two states a phone.
    """
    shared = HALVES * len(lexicon.phones)
    able = sorted((-frames, unit) for unit, frames in seen.items() if unit[0] and frames >= LEAST)
    if not shared <= count <= shared + len(able):
        raise InventoryError(f"{count} states were asked for: {len(lexicon.phones)} phones have {shared} to begin "
                             f"with, and {len(able)} contexts have the {LEAST} frames that a state of its own wants: "
                             f"at most {shared + len(able)} states")
    return Inventory(lexicon, [unit for _, unit in able[:count - shared]])
