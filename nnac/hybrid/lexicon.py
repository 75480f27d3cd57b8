"""The lexicon: how words are pronounced, in phones.

One pronunciation a line, ``WORD PHONE PHONE …``; a word may have several; lines that begin with ``;;;`` say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import field, frozen

from nnac.checked import checked
from nnac.diagnostics import did_you_mean
from nnac.errors import UserError
from nnac.files import read_text

SILENCE = "SIL"
OWN = Path(__file__).parent / "cmudict.txt"      # the demo corpus's words
Pronunciation = tuple[str, ...]


class LexiconError(UserError, ValueError):
    """A lexicon that cannot be read, or a word that it lacks; one line."""


@frozen(slots=False)
class Lexicon:
    """words  in order, each with its pronunciations, at least one of at least one phone."""

    words: Mapping[str, tuple[Pronunciation, ...]] = field(hash=False)

    def __attrs_post_init__(self) -> None:
        for word, said in self.words.items():
            if len(word.split()) != 1 or not said or not all(said):
                raise LexiconError(f"the lexicon's word {word!a} has no pronunciation, or is not one word")
            if odd := [p for s in said for p in s if p == SILENCE or len(p.split()) != 1]:
                raise LexiconError(f"the lexicon's word {word!a} is said with {odd[0]!a}, which is no phone")

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """Silence, then every phone in the order of the alphabet: a phone's number is its place here."""
        return (SILENCE, *sorted({p for said in self.words.values() for s in said for p in s}))

    @cached_property
    def number(self) -> dict[str, int]:
        """Phone -> its number."""
        return {p: i for i, p in enumerate(self.phones)}

    def said(self, word: str) -> tuple[tuple[int, ...], ...]:
        """A word's pronunciations in phone numbers.  LexiconError: it has none."""
        if word not in self.words:
            raise LexiconError(f"`{word}` has no pronunciation in the lexicon of {len(self.words)} words; "
                               f"{did_you_mean(word, self.words)}; add a line `{word} PHONE PHONE …` (--lexicon FILE)")
        return tuple(tuple(self.number[p] for p in s) for s in self.words[word])

    def check(self, texts: Iterable[str]) -> None:
        """LexiconError names the words of ``texts`` that have no pronunciation."""
        lacking = sorted({w for text in texts for w in text.split()} - set(self.words))
        if len(lacking) == 1:
            self.said(lacking[0])
        if lacking:
            raise LexiconError(f"{len(lacking)} words have no pronunciation in the lexicon of {len(self.words)} words: "
                               f"{', '.join(f'`{w}`' for w in lacking[:8])}{' …' if len(lacking) > 8 else ''}; "
                               f"add a line for each (--lexicon FILE)")

    def to_json(self) -> dict[str, Any]:
        return {word: [" ".join(s) for s in said] for word, said in self.words.items()}

    @classmethod
    def from_json(cls, data: Any) -> Lexicon:
        """ValueError: what is wrong with it."""
        return cls({word: tuple(tuple(s.split()) for s in said)
                    for word, said in checked(dict[str, list[str]], data, "lexicon").items()})


def read_lexicon(path: str | os.PathLike[str] = OWN) -> Lexicon:
    """Of a file.  FileError: unreadable; LexiconError names file and line."""
    found: dict[str, list[Pronunciation]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith(";;;"):
            continue
        word, *phones = line.split()
        if not phones or SILENCE in phones:
            raise LexiconError(f"{path}:{number}: expected `WORD PHONE PHONE …`, found `{line.strip()[:60]}`")
        if (said := tuple(phones)) not in found.setdefault(word, []):
            found[word].append(said)
    if not found:
        raise LexiconError(f"{path}: no pronunciations: one a line, `WORD PHONE PHONE …`")
    return Lexicon({word: tuple(found[word]) for word in sorted(found)})
