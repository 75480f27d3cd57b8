"""N-gram language models over tokens: counted, discounted, read and written as ARPA, and stepped through as a dense
automaton.

`train` interpolates absolute discounting, ``p(w|h) = (c(hw) - d) / c(h) + d t(h) / c(h) p(w|h')``: for words never
seen after h that is back-off with the weight ``d t(h) / c(h)``, so an ARPA file holds the very model (Ney, Essen,
Kneser 1994; raw counts, not Kneser-Ney's).  `automaton` makes one state of every context: a row of log-probabilities
(int16 Q4.11, floor -16) and a row of successors.  A step is two gathers, whatever the order.

Ids are the transducer's tokens.  Id 0, its blank, stands for the sentence's end as a word and for its start in a
context.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

import numpy as np
from attrs import field, frozen
from attrs.validators import ge
from numpy.typing import NDArray

from nnac import arith
from nnac.checked import counted
from nnac.decode.fusion import LOG_UNIT, FusionError
from nnac.diagnostics import did_you_mean
from nnac.files import atomic, read_text
from nnac.speech.tokens import SPACE, Tokens

ORDER, DISCOUNT = 6, 0.75
MOST_BYTES = 1 << 30           # of an automaton
Context = tuple[int, ...]
_START, _END, _UNKNOWN = "<s>", "</s>", "<unk>"
_NEVER = -99.0                 # log10, as ARPA files write a probability of nothing


class LanguageModelError(FusionError):
    """A language model that cannot be made or read; one line that begins with the file's name, where there is one."""


@frozen(eq=False)
class NGram:
    """Back-off probabilities, natural logarithms.

    contexts  context -> ({word: log p}, log back-off weight); every context's suffixes are contexts too, the empty
              one among them
    """

    vocabulary: int = field(validator=ge(2))
    order: int = field(validator=ge(1))
    contexts: Mapping[Context, tuple[Mapping[int, float], float]] = field(factory=dict)

    def log_probability(self, context: Context, word: int) -> float:
        """log p(word | context), by the definition of back-off; minus infinity for a word of probability nothing."""
        context = context[max(0, len(context) - self.order + 1):]
        weight = 0.0
        while True:
            words, backoff = self.contexts.get(context, ({}, 0.0))
            if word in words:
                return weight + words[word]
            if not context:
                return -math.inf
            weight, context = weight + backoff, context[1:]

    def nats(self, sentences: Iterable[Sequence[int]]) -> float:
        """Nats a sentence, ends included."""
        total, count = 0.0, 0
        for sentence in sentences:
            words = [0, *sentence, 0]
            total -= sum(self.log_probability(tuple(words[:i]), words[i]) for i in range(1, len(words)))
            count += 1
        return total / max(1, count)


def train(sentences: Iterable[Sequence[int]], vocabulary: int, order: int = ORDER, discount: float = DISCOUNT) -> NGram:
    """Count and discount.  sentences  token ids, without start and end; ids from 1 to ``vocabulary`` - 1."""
    if not 0 < discount < 1:
        raise LanguageModelError(f"a discount lies between 0 and 1, not at {discount:g}")
    counts: list[dict[Context, Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
    empty = True
    for sentence in sentences:
        empty = False
        words = (0, *(int(k) for k in sentence), 0)
        if any(not 0 < k < vocabulary for k in words[1:-1]):
            raise LanguageModelError(f"a sentence has token ids outside 1 … {vocabulary - 1}: {words[1:-1]}")
        for i in range(1, len(words)):
            for n in range(min(order, i + 1)):
                counts[n][words[i - n:i]][words[i]] += 1
    if empty:
        raise LanguageModelError("a language model needs at least one sentence")
    everywhere = {w: 1.0 / vocabulary for w in range(vocabulary)}
    whole: dict[Context, dict[int, float]] = {}            # probabilities of the words seen after a context
    contexts: dict[Context, tuple[Mapping[int, float], float]] = {}

    def lower(context: Context, word: int) -> float:
        """p(word | the context without its first word)."""
        weight = 1.0
        while context:
            context = context[1:]
            if word in whole[context]:
                return weight * whole[context][word]
            weight *= math.exp(contexts[context][1])
        return weight * everywhere[word]

    for level in counts:
        for context, seen in level.items():
            total, left = sum(seen.values()), discount * len(seen) / sum(seen.values())
            found = {w: (c - discount) / total + left * lower(context, w) for w, c in seen.items()}
            if not context:                                # nothing to back off to: every word has its share
                found = {w: found.get(w, left / vocabulary) for w in range(vocabulary)}
            whole[context] = found
            contexts[context] = ({w: math.log(p) for w, p in found.items()}, math.log(left) if context else 0.0)
    return NGram(vocabulary, order, contexts)


# -------------------------------------------------------------------------------------------------------- the automaton

@frozen(eq=False)
class Automaton:
    """Keeps the protocol of `nnac.decode.fusion.LanguageModel`.

    rows  int16 [states, vocabulary] Q4.11      successors  int32 [states, vocabulary]      first  the state at a
          sentence's start
    """

    rows: NDArray
    successors: NDArray
    first: int

    @property
    def digest(self) -> str:
        """SHA-256 of all that matters: two models with the same one say the same."""
        return sha256(self.rows.tobytes() + self.successors.tobytes() + str(self.first).encode()).hexdigest()

    def start(self) -> tuple[NDArray, tuple[NDArray, ...]]:
        at = np.array([self.first], np.int64)
        return self.rows[at].astype(np.int64), (at,)

    def step(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        at = self.successors[state[0], tokens].astype(np.int64)
        return self.rows[at].astype(np.int64), (at,)


def automaton(model: NGram) -> Automaton:
    """The model with every state's row written out.  LanguageModelError: too large."""
    contexts = sorted((c for c in model.contexts if len(c) < model.order), key=lambda c: (len(c), c))
    if (size := 6 * len(contexts) * model.vocabulary) > MOST_BYTES:
        raise LanguageModelError(f"{len(contexts):,} contexts of {model.vocabulary} tokens take "
                                 f"{size >> 20:,} MiB as rows (at most {MOST_BYTES >> 20:,}): "
                                 f"use a lower order, or less text")
    ids = {c: i for i, c in enumerate(contexts)}
    logs = np.empty((len(contexts), model.vocabulary))
    successors = np.zeros((len(contexts), model.vocabulary), np.int32)
    for i, context in enumerate(contexts):                 # the shorter first: each begins as what it backs off to
        words, backoff = model.contexts[context]
        if context:
            logs[i] = logs[ids[context[1:]]] + backoff
            successors[i] = successors[ids[context[1:]]]
        else:
            logs[i] = -np.inf
        for word, log in words.items():
            logs[i, word] = log
        for word in words:
            if word and (after := ids.get((*context, word))) is not None:
                successors[i, word] = after
    first = ids.get((0,), 0)
    successors[:, 0] = first                               # after an end comes a start
    floor = -(1 << 15) / LOG_UNIT
    rows = np.floor(np.maximum(logs, floor) * LOG_UNIT + 0.5).astype(np.int64)
    return Automaton(arith.saturate(rows, 16).astype(np.int16), successors, first)


# ----------------------------------------------------------------------------------------------------------------- ARPA

def spellings(tokens: Tokens) -> list[str]:
    """How each id is written in an ARPA file: the piece, spaces as ``▁``; whole words as words.  Index 0 is the end."""
    whole = all(p.startswith(SPACE) and SPACE not in p[1:] for p in tokens.pieces)
    out = [_END, *(p.removeprefix(SPACE) if whole else p.replace(" ", SPACE) for p in tokens.pieces)]
    if len(set(out)) != len(out) or any(len(p.split()) != 1 for p in out) or {_START, _UNKNOWN} & set(out):
        raise LanguageModelError("these tokens cannot be the words of an ARPA file: two would be spelled alike")
    return out


def write_arpa(path: str | os.PathLike, model: NGram, tokens: Tokens) -> None:
    """The model as ARPA text; probabilities in decimal logarithms, with 9 digits."""
    names = spellings(tokens)

    def spelled(context: Context, word: int | None = None) -> str:
        said = [names[k] if k else _START for k in context]
        return " ".join(said if word is None else [*said, names[word]])

    lines: list[list[str]] = [[] for _ in range(model.order)]
    for context in sorted(model.contexts, key=lambda c: (len(c), c)):
        for word, log in sorted(model.contexts[context][0].items()):
            whole = (*context, word)
            weight = f"\t{_decimal(model.contexts[whole][1])}" if word and whole in model.contexts else ""
            lines[len(context)].append(f"{_decimal(log)}\t{spelled(context, word)}{weight}")
    if (0,) in model.contexts:
        lines[0].append(f"{_NEVER:g}\t{_START}\t{_decimal(model.contexts[(0,)][1])}")
    with atomic(path, "w") as out:
        out.write("\\data\\\n" + "".join(f"ngram {n}={len(rows)}\n" for n, rows in enumerate(lines, 1)) + "\n")
        for n, rows in enumerate(lines, 1):
            out.write(f"\\{n}-grams:\n" + "".join(f"{row}\n" for row in rows) + "\n")
        out.write("\\end\\\n")


def _decimal(natural: float) -> str:
    return f"{natural / math.log(10):.9g}"


def read_arpa(path: str | os.PathLike, tokens: Tokens) -> NGram:
    """A model whose words are ``tokens``.  FileError; LanguageModelError names file and line: a word that is no
    token, a number that is none …"""
    names = spellings(tokens)
    ids = {name: k for k, name in enumerate(names)}
    promised: dict[int, int] = {}
    counted: Counter[int] = Counter()
    words: dict[Context, dict[int, float]] = {(): {}}
    weights: dict[Context, float] = {}
    unknown: float | None = None
    order, section, ended = 0, 0, False
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if line.startswith("\\"):
            section = _section(line, where)
            ended = section < 0
            if section > 0 and section not in promised:
                raise LanguageModelError(f"{where}: {section}-grams, which the head of the file does not announce")
            order = max(order, section)
        elif section == 0:
            n, count = _promise(line, where)
            promised[n] = count
        else:
            log, said, weight = _entry(line, section, where)
            counted[section] += 1
            if said == (_UNKNOWN,):
                unknown = log
                continue
            context = tuple(_context(w, i, ids, where) for i, w in enumerate(said[:-1]))
            last = said[-1]
            if last != _START:
                if last not in ids:
                    raise LanguageModelError(f"{where}: `{last}` is none of the {tokens.count - 1} tokens of the "
                                             "model; " + did_you_mean(last, names[1:]))
                words.setdefault(context, {})[ids[last]] = log
            if weight is not None and last != _END:
                weights[(*context, 0 if last == _START else ids[last])] = weight
    if not ended:
        raise LanguageModelError(f"{path}: cut short: no \\end\\")
    if not order:
        raise LanguageModelError(f"{path}: no n-grams between \\data\\ and \\end\\")
    for n, count in promised.items():
        if counted[n] != count:
            raise LanguageModelError(f"{path}: {counted[n]} {n}-grams where the head of the file announces {count}")
    for k in range(tokens.count):
        if k not in words[()] and unknown is not None:
            words[()][k] = unknown
    contexts = {c for c in (*words, *weights) if len(c) < order}
    closed = {c[i:] for c in contexts for i in range(len(c) + 1)}
    return NGram(tokens.count, order, {c: (words.get(c, {}), weights.get(c, 0.0)) for c in closed})


def _lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    text = read_text(path, MOST_BYTES)
    numbered = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    at = next((i for i, (_, line) in enumerate(numbered) if line == "\\data\\"), None)
    if at is None:
        raise LanguageModelError(f"{path}: no \\data\\ line: not an ARPA file")
    end = next((i for i, (_, line) in enumerate(numbered) if line == "\\end\\"), len(numbered) - 1)
    yield from numbered[at + 1:end + 1]


def _section(line: str, where: str) -> int:
    """The order of ``\\3-grams:``; -1 for the end."""
    if line == "\\end\\":
        return -1
    order = counted(line.removeprefix("\\").removesuffix("-grams:"))
    if not order:
        raise LanguageModelError(f"{where}: `{line[:60]}` is no section of an ARPA file")
    return order


def _promise(line: str, where: str) -> tuple[int, int]:
    order, count = (counted(text.strip()) for text in line.removeprefix("ngram ").partition("=")[::2])
    if not line.startswith("ngram ") or order is None or count is None:
        raise LanguageModelError(f"{where}: expected `ngram ORDER=COUNT`, found `{line[:60]}`")
    return order, count


def _entry(line: str, order: int, where: str) -> tuple[float, tuple[str, ...], float | None]:
    """(natural log p, words, natural log of the back-off weight or None)."""
    parts = line.split()
    try:
        if len(parts) not in (order + 1, order + 2):
            raise ValueError
        numbers = [float(parts[0]), *(float(v) for v in parts[order + 1:])]
        if not all(math.isfinite(v) for v in numbers) or numbers[0] > 1e-6:
            raise ValueError
    except ValueError:
        raise LanguageModelError(f"{where}: expected a logarithm, {order} words and perhaps a back-off weight, "
                                 f"found `{line[:60]}`") from None
    natural = [min(v, 0.0) * math.log(10) if i == 0 else v * math.log(10) for i, v in enumerate(numbers)]
    return natural[0], tuple(parts[1:order + 1]), natural[1] if len(natural) > 1 else None


def _context(word: str, place: int, ids: Mapping[str, int], where: str) -> int:
    if word == _START and place == 0:
        return 0
    if word not in ids or word == _END:
        raise LanguageModelError(f"{where}: `{word}` cannot stand there: it is no token of the model")
    return ids[word]
