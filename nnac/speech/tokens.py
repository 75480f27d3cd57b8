"""Tokens: what the joint network chooses from.  Plain data (pieces and scores), so that checkpoints and programs can
carry it.

Id 0 is the blank, ids 1 … are the pieces.  Word pieces are learned by sentencepiece (unigram); encoding and decoding
are ours and need nothing: the Viterbi path over piece scores, the same that sentencepiece takes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property

from attrs import field, frozen

from nnac.checked import checked
from nnac.errors import UserError

BLANK = 0
SPACE = "▁"  # sentencepiece's mark of a word's beginning


class TokenError(UserError, ValueError):
    """A text or an id that the tokens do not cover; the message is one clear line."""


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


@frozen(slots=False)
class Tokens:
    """``pieces[k]`` is id k+1; ``scores`` are log-probabilities (word pieces) or empty (letters: each piece is one
    character)."""

    pieces: tuple[str, ...] = field(converter=_texts)
    scores: tuple[float, ...] = field(default=(), converter=_numbers)

    def __attrs_post_init__(self) -> None:
        for piece in self.pieces:
            # they would command the terminal that shows a text
            if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in piece):
                raise TokenError(f"the piece {piece!a} has characters that do not print")
        if not self.pieces or len(set(self.pieces)) != len(self.pieces) or not all(self.pieces):
            raise TokenError("pieces must be distinct texts, at least one, none empty")
        if self.scores and len(self.scores) != len(self.pieces):
            raise TokenError(f"{len(self.scores)} scores for {len(self.pieces)} pieces")

    @property
    def count(self) -> int:
        """Number of ids, the blank among them: the width of the joint network's output."""
        return len(self.pieces) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {p: k for k, p in enumerate(self.pieces, 1)}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.pieces))

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` (words separated by spaces).  TokenError names characters that no piece has."""
        if not self.scores:
            unknown = sorted(set(text) - set(self.pieces))
            if unknown:
                raise TokenError(f"{text!r}: no token for {', '.join(map(repr, unknown))}")
            return [self._ids[c] for c in text]
        return [k for word in text.split() for k in self._word(SPACE + word)]

    def _word(self, word: str) -> list[int]:
        """Viterbi: the split of ``word`` with the greatest sum of scores.  No piece spans words, so words are
        independent."""
        best: list[tuple[float, int, int]] = [(0.0, 0, 0)] + [(float("-inf"), 0, 0)] * len(word)  # score, start, id
        for end in range(1, len(word) + 1):
            for start in range(max(0, end - self._longest), end):
                k = self._ids.get(word[start:end])
                if k is not None and best[start][0] + self.scores[k - 1] > best[end][0]:
                    best[end] = (best[start][0] + self.scores[k - 1], start, k)
        if best[-1][0] == float("-inf"):
            raise TokenError(f"{word.lstrip(SPACE)!r}: the word pieces cannot spell this word")
        out, end = [], len(word)
        while end:
            _, start, k = best[end]
            out.append(k)
            end = start
        return out[::-1]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; blanks are skipped.  TokenError: an id out of range."""
        kept = [int(k) for k in ids if int(k) != BLANK]
        if any(not 0 < k < self.count for k in kept):
            raise TokenError(f"token ids must be below {self.count}: {kept}")
        return " ".join("".join(self.pieces[k - 1] for k in kept).replace(SPACE, " ").split())

    def to_json(self) -> dict:
        return {"pieces": list(self.pieces), "scores": list(self.scores)}

    @classmethod
    def from_json(cls, data: dict) -> Tokens:
        """TokenError, ValueError: what is wrong with it."""
        lists = checked(_Lists, data, "tokens")
        return cls(lists.pieces, lists.scores)


@frozen
class _Lists:
    pieces: tuple[str, ...]
    scores: tuple[float, ...]


LETTERS = Tokens(" abcdefghijklmnopqrstuvwxyz'")


def word_pieces(texts: Sequence[str], count: int = 64) -> Tokens:
    """Learn ``count`` tokens (blank included).  Deterministic for a version of sentencepiece: 0.2.2 and 0.2.3 learn
    other pieces from the same texts.  TokenError: it is absent, or the texts too few."""
    try:
        import sentencepiece
    except ImportError:
        raise TokenError("word pieces need `sentencepiece`: pip install 'nnac[speech]'") from None
    import io

    model = io.BytesIO()
    try:
        # the unknown piece takes id 0 there; it is dropped here, and the blank takes its number
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=count,
            model_type="unigram",
            bos_id=-1,
            eos_id=-1,
            unk_id=0,
            character_coverage=1.0,
            normalization_rule_name="identity",
            minloglevel=2,
            num_threads=1,
        )
    except RuntimeError as error:
        raise TokenError(f"cannot learn {count} word pieces from {len(texts)} texts: "
                         f"{str(error).splitlines()[-1]}") from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(1, processor.get_piece_size())
    return Tokens([processor.id_to_piece(k) for k in ids], [processor.get_score(k) for k in ids])
