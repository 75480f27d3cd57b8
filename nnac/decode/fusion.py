"""Language models beside the transducer: what each label of a prefix is worth more or less, in integers.

One formula for every fusion.  With the log-probabilities ``lp_i`` of n models (int16 Q4.11, rows of a prefix) and
weights ``w_i`` (Q12):

    step(label) = lp(label) + ((sum_i w_i lp_i(label) + 2^11) >> 12) + bonus          one rounding; the sum fits int32

shallow fusion        one term: the target's language model, weight > 0
density ratio         two: the target's, weight > 0, and the source's, weight < 0      (McDermott, Sak, Variani 2019,
                      arXiv 2002.11268)
internal-LM estimate  the target's, and the transducer's own, weight < 0: the joint with the encoder's part at zero,
                      its labels alone (Variani et al. 2020, arXiv 2003.07705; Meng et al. 2021, arXiv 2011.01991)

The floor of Q4.11, -16 nats, is part of the definition: what a model finds less likely than that counts as -16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac import arith
from nnac.errors import UserError

WEIGHT_FRACTION = 12           # Q12
MOST_WEIGHT = 4.0              # three terms of 2^14 x 2^15 stay below 2^31
MOST_TERMS = 3
MOST_BONUS = 16.0              # nats a label: the range of Q4.11
LOG_UNIT = 1 << arith.LOG_FRACTION


class FusionError(UserError):
    """Weights or language models that cannot be fused; one line."""


class LanguageModel(Protocol):
    """Log-probabilities of the next label, prefix by prefix.  Rows are int64 [n, vocabulary] in int16 Q4.11; id 0
    stands for the end."""

    def start(self) -> tuple[NDArray, tuple[NDArray, ...]]:
        """(row [1, vocabulary] of the empty prefix, state): arrays whose first axis is the row."""
        ...

    def step(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        """Tokens [n] said after the prefixes with ``state`` -> (rows [n, vocabulary], new state)."""
        ...


def fixed(value: float, fraction: int) -> int:
    """A real number with ``fraction`` fraction bits, rounded to nearest, ties up."""
    return int(np.floor(value * (1 << fraction) + 0.5))


@frozen(eq=False)
class Fusion:
    """Language models with their signed weights, and the weight of the transducer's own (`internal`, subtracted: so <
    0); a bonus a label, in nats.

    A model that is a text is an entry of what is searched: ``lm`` or ``source_lm`` beside the recogniser.
    """

    models: tuple[LanguageModel | str, ...] = ()
    weights: tuple[float, ...] = ()
    internal: float = 0.0
    bonus: float = 0.0

    def __attrs_post_init__(self) -> None:
        if len(self.models) != len(self.weights):
            raise FusionError(f"{len(self.models)} language models with {len(self.weights)} weights")
        if (terms := len(self.models) + bool(self.internal)) > MOST_TERMS:
            raise FusionError(f"{terms} language models: the sum of at most {MOST_TERMS} fits 32 bits")
        for w in (*self.weights, self.internal):
            if not abs(w) <= MOST_WEIGHT:
                raise FusionError(f"a language model's weight is at most {MOST_WEIGHT:g} in magnitude, not {w:g}")
        if not abs(self.bonus) <= MOST_BONUS:
            raise FusionError(f"a bonus of {self.bonus:g} nats a label: at most {MOST_BONUS:g}")

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries that are asked, beside the recogniser's own."""
        return tuple(m for m in self.models if isinstance(m, str))

    def __bool__(self) -> bool:
        return bool(self.models or self.internal or self.bonus)

    def worth(self, rows: Sequence[NDArray]) -> NDArray:
        """What fusion adds to each label: rows [n, vocabulary] of ``models`` in order, then of the internal LM if it
        has a weight.

        returns  int64 [n, vocabulary], units of 2^-11 nat; column 0 (the blank) is 0: fusion never pays for silence
        """
        weights = [fixed(w, WEIGHT_FRACTION) for w in (*self.weights, *((self.internal,) if self.internal else ()))]
        total = np.zeros_like(rows[0])
        for w, row in zip(weights, rows, strict=True):
            total += w * row
        out = arith.round_shift(total, WEIGHT_FRACTION) + fixed(self.bonus, arith.LOG_FRACTION)
        out[:, 0] = 0
        return out


def real_rows(logits: NDArray) -> NDArray:
    """Real logits [..., V] -> log-probabilities in int16 Q4.11, floor -16: what a float network says, as beam search
    wants it."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return arith.saturate(np.floor(x * LOG_UNIT + 0.5).astype(np.int64), 16)


@frozen(eq=False)
class IntegerRows:
    """Integer logits [..., V] of one scale -> log-probabilities in int16 Q4.11, by `arith.log_softmax`."""

    exp: NDArray
    log: NDArray
    multiplier: int
    shift: int

    @classmethod
    def of(cls, scale: float) -> IntegerRows:
        from nnac.bind import log_softmax

        c = {k: np.asarray(v, np.int64) for k, v in log_softmax(scale).items()}
        return cls(c["exp"], c["log"], int(c["multiplier"]), int(c["shift"]))

    def __call__(self, logits: NDArray) -> NDArray:
        return arith.log_softmax(np.asarray(logits, np.int64), self.exp, self.log, self.multiplier, self.shift)


def labels_alone(logits: NDArray, rows: IntegerRows | None = None) -> NDArray:
    """The internal language model's rows, of logits [n, V]: the distribution over labels without the blank; column 0
    is 0."""
    out = np.zeros(logits.shape, np.int64)
    out[:, 1:] = (rows or real_rows)(logits[:, 1:])
    return out
