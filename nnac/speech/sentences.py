"""Sentences of a voice assistant: sixteen shapes, 166 words, near pairs on purpose (fifteen/fifty, ann/anna/hannah).

A sentence is held out when a hash of its text says so (one in eight), so that no test sentence can ever be in training,
whatever the seeds.  Two shapes are bare lists of words: there the sound has to be believed against the grammar.
"""
from __future__ import annotations

import hashlib

from numpy.random import Generator

ONES = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NAMES = ("mary gary harry larry dan ann sam pam tom tim jim kim ben jen ken anna hannah emma oliver "
         "sofia lucas marcus peter rita nina mina david daisy robert albert").split()
ROOMS = "kitchen bedroom bathroom hallway garage garden office attic basement".split()
DEVICES = "light lamp heater fan radio speaker camera blind oven alarm screen door".split()
ITEMS = ("milk bread butter batter apples grapes cheese peas beans rice ice tea coffee salt sugar pepper paper "
         "soap".split())
MUSIC = "jazz rock folk soul blues piano guitar classical country".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday today tomorrow".split()
UNITS = "seconds minutes hours".split()
VERBS = "buy find clean close open bring call move paint wash".split()
COLOURS = "red green blue white yellow purple orange".split()
THINGS = ITEMS + COLOURS + DEVICES + MUSIC


def held_out(text: str) -> bool:
    """True for the one sentence in eight that training never sees."""
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 0


def allowed(r: Generator, train: bool) -> str:
    """The next sentence that may be said in training, or outside it."""
    while True:
        text = sentence(r)
        if held_out(text) != train:
            return text


def number(r: Generator, low: int = 1, high: int = 99) -> str:
    """A number from ``low`` to ``high`` in words."""
    n = int(r.integers(low, high + 1))
    if n < 10:
        return ONES[n]
    if n < 20:
        return TEENS[n - 10]
    return TENS[n // 10 - 2] + ("" if n % 10 == 0 else " " + ONES[n % 10])


def sentence(r: Generator) -> str:
    """One sentence, lower case, words separated by single spaces."""
    def a(words: list[str]) -> str:
        return words[int(r.integers(len(words)))]

    def some(words: list[str], low: int, high: int) -> str:
        return " ".join(a(words) for _ in range(int(r.integers(low, high + 1))))

    match int(r.integers(16)):
        case 0: return f"turn {a(['on', 'off'])} the {a(ROOMS)} {a(DEVICES)}"
        case 1: return f"set the {a(ROOMS)} {a(DEVICES)} to {number(r)} {a(['percent', 'degrees'])}"
        case 2: return f"call {a(NAMES)} and {a(NAMES)}"
        case 3: return f"send {a(NAMES)} a message {a(VERBS)} the {a(ITEMS)} {a(DAYS)}"
        case 4: return f"set a timer for {number(r)} {a(UNITS)}"
        case 5: return f"wake {a(NAMES)} at {number(r, 1, 12)} {number(r, 10, 59)} on {a(DAYS)}"
        case 6: return f"play {a(MUSIC)} {a(['from', 'by', 'for'])} {a(NAMES)} in the {a(ROOMS)}"
        case 7: return f"remind {a(NAMES)} to {a(VERBS)} {a(ITEMS)} at {number(r, 1, 12)}"
        case 8: return f"what is {number(r)} {a(['plus', 'minus', 'times'])} {number(r)}"
        case 9: return f"dial {some(ONES, 4, 7)}"
        case 10: return f"add {a(ITEMS)} {a(ITEMS)} and {a(ITEMS)} to the list"
        case 11: return f"make the {a(DEVICES)} in the {a(ROOMS)} {a(COLOURS)}"
        case 12: return f"is the {a(ROOMS)} {a(DEVICES)} {a(['on', 'off', 'open', 'closed'])}"
        case 13: return f"{a(VERBS)} the {a(COLOURS)} {a(DEVICES)} for {a(NAMES)} {a(DAYS)}"
        case 14: return some(NAMES, 2, 4)
        case _: return some(THINGS, 3, 5)
