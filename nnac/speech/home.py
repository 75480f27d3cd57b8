"""A household's sentences: the shapes of training in other proportions, their slots filled from few words, unevenly.

Seventy-two in a hundred are bare lists, of names, things or digits; the names are fourteen of the training's, the
things twenty, the items nine, and each slot's words are drawn by Zipf's law in an order of the household's own.  So a
language model of this home's text knows much that the transducer does not: a domain on which fusion has work to do.
Its size is our choice (`nnac.decode.fusion` for the methods): what fusion gains here is a property of this domain.

Three streams of distinct sentences, each a function of (seed, stream) with the n-th sentence the same however many
are asked for:
``home`` (test) and ``home_dev`` are held out from training, and from each other by another byte of the same hash;
``text`` is for the language model and holds neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice

import numpy as np
from attrs import frozen
from numpy.random import Generator
from numpy.typing import NDArray

from nnac.speech.sentences import (
    COLOURS,
    DAYS,
    DEVICES,
    ITEMS,
    MUSIC,
    NAMES,
    ONES,
    ROOMS,
    THINGS,
    UNITS,
    VERBS,
    held_out,
    number,
)

STREAMS = {"home_dev": 0, "home": 1, "text": 2}
_HOUSEHOLD = 78                # the seed of the household's words and their order: another seed, another home
_STREAM_SEED = 6


@frozen(eq=False)
class Slot:
    """Words, the likeliest first, with probabilities 1, 1/2, 1/3 … of their sum."""

    words: tuple[str, ...]
    probabilities: NDArray

    @classmethod
    def of(cls, words: list[str], r: Generator, count: int | None = None) -> Slot:
        chosen = tuple(str(w) for w in r.permutation(words))[:count]
        weights = 1 / np.arange(1, len(chosen) + 1)
        return cls(chosen, weights / weights.sum())

    def __call__(self, r: Generator) -> str:
        return self.words[int(r.choice(len(self.words), p=self.probabilities))]


@frozen(eq=False)
class Household:
    """The slots of one home."""

    names: Slot
    items: Slot
    rooms: Slot
    devices: Slot
    colours: Slot
    digits: Slot
    days: Slot
    things: Slot
    music: Slot
    verbs: Slot

    @classmethod
    def of(cls, seed: int = _HOUSEHOLD) -> Household:
        r = np.random.default_rng(seed)
        names, items = Slot.of(NAMES, r, 14), Slot.of(ITEMS, r, 9)
        rooms, devices, colours, digits, days = (Slot.of(words, r) for words in (ROOMS, DEVICES, COLOURS, ONES, DAYS))
        things = Slot.of(THINGS, r, 20)
        r.permutation(UNITS)               # the study that this domain comes from drew it here, and never said it
        music, verbs = Slot.of(MUSIC, r), Slot.of(VERBS, r)
        return cls(names, items, rooms, devices, colours, digits, days, things, music, verbs)

    def sentence(self, r: Generator) -> str:
        """One sentence, lower case, words separated by single spaces."""
        def some(slot: Slot, low: int, high: int) -> str:
            return " ".join(slot(r) for _ in range(int(r.integers(low, high))))

        u = r.random()
        if u < 0.35:
            return some(self.names, 2, 5)
        if u < 0.60:
            return some(self.things, 3, 6)
        if u < 0.72:
            return f"dial {some(self.digits, 4, 8)}"
        n, i = self.names, self.items
        match int(r.integers(6)):
            case 0: return f"call {n(r)} and {n(r)}"
            case 1: return f"add {i(r)} {i(r)} and {i(r)} to the list"
            case 2: return f"send {n(r)} a message {self.verbs(r)} the {i(r)} {self.days(r)}"
            case 3:
                link = ("from", "by", "for")[int(r.integers(3))]
                return f"play {self.music(r)} {link} {n(r)} in the {self.rooms(r)}"
            case 4: return f"{self.verbs(r)} the {self.colours(r)} {self.devices(r)} for {n(r)} {self.days(r)}"
            case _: return f"remind {n(r)} to {self.verbs(r)} {i(r)} at {number(r, 1, 12)}"


def belongs(text: str, stream: str) -> bool:
    """Whether a sentence may be in a stream: no sentence may be in two."""
    if stream == "text":
        return not held_out(text)
    return held_out(text) and (hashlib.sha256(text.encode()).digest()[1] % 4 == 0) == (stream == "home_dev")


def stream(name: str, seed: int) -> Iterator[str]:
    """The sentences of a stream, without end.  ``home`` and ``home_dev`` repeat none; ``text`` does, as people do."""
    household, r, said = Household.of(), np.random.default_rng([seed, _STREAM_SEED, STREAMS[name]]), set[str]()
    while True:
        text = household.sentence(r)
        if belongs(text, name) and (name == "text" or text not in said):
            said.add(text)
            yield text


def sentences(name: str, seed: int, count: int) -> list[str]:
    """The first ``count`` of a stream."""
    return list(islice(stream(name, seed), count))
