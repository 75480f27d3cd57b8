"""What may be concluded from several runs: intervals, verdicts on claims, and how many runs would decide.

Word errors are kept for every utterance, so that two rows are compared on the same utterances; seed s means the same
order of the training data in every row, so that rows are compared seed by seed as well (`paired`).  Intervals are
bootstraps over seeds and utterances. Utterances of one speaker are not independent: where the speakers are known, the
interval over whole speakers stands beside the one over utterances, and the wider of the two decides.

A claim with a bound *holds* when the bound lies beyond the one-sided 95 % limit.  A claim that something helps has a
margin of indifference d instead: the row is *better*, *worse*, or shows *no difference beyond d*, each at one-sided 95
% (two one-sided tests; source: Schuirmann 1987, background).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac.report.outcomes import Outcome, unpacked

SAMPLES = 2000
DECIDES = 0.05                 # one-sided level of a verdict (our choice)
# utterances, seeds: what the power table shows
DESIGNS = ((3000, 3), (3000, 6), (3000, 12), (12000, 6), (12000, 12))


@frozen(eq=False)
class Sample:
    """Word errors of one row: errors [seeds, utterances], words [utterances], speakers [utterances] (numbers; None: not
    known), seeds."""

    errors: NDArray
    words: NDArray
    speakers: NDArray | None
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Sample:
        """All splits of some runs of a row, in the splits' order.  ValueError if they did not hear the same
        utterances."""
        heard = [[h for _, h in sorted(o.heard.items())] for o in outcomes]
        lengths = {tuple(h.lengths for h in splits) for splits in heard}
        if len(lengths) != 1:
            raise ValueError("the runs did not hear the same utterances")
        speakers = None
        known = next((splits for splits in heard if all(h.speakers for h in splits)), None)
        if known is not None:                                     # speakers of two splits are two people
            names = [f"{i}.{s}" for i, h in enumerate(known) for s in h.speaker_names]
            speakers = np.unique(names, return_inverse=True)[1]
        return cls(np.array([unpacked("".join(h.errors for h in splits)) for splits in heard], np.float64),
                   np.array(unpacked("".join(next(iter(lengths)))), np.float64), speakers,
                   tuple(o.seed for o in outcomes))

    def by_speaker(self) -> Sample:
        """The same with one column a speaker: sums of errors and words."""
        assert self.speakers is not None
        count = int(self.speakers.max()) + 1
        total = lambda x: np.bincount(self.speakers, x, count)  # noqa: E731
        return Sample(np.stack([total(e) for e in self.errors]), total(self.words), None, self.seeds)


@frozen
class Interval:
    """A value with its bootstrap: ``low`` … ``high`` two-sided 95 %; ``least`` and ``most`` one-sided 95 % each."""

    value: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, value: float, drawn: NDArray) -> Interval:
        low, least, most, high = np.quantile(drawn, [0.025, DECIDES, 1 - DECIDES, 0.975])
        return cls(float(value), float(low), float(high), float(least), float(most))

    @classmethod
    def between(cls, value: float, low: float, high: float) -> Interval:
        """A value whose limits are not chance: the smallest and the largest that was seen."""
        return cls(value, low, high, low, high)

    @property
    def width(self) -> float:
        return self.high - self.low

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} … {self.high:.2f})"


@frozen
class Estimate:
    """A value with both intervals; ``speakers`` None where the speakers are not known."""

    utterances: Interval
    speakers: Interval | None = None

    @property
    def value(self) -> float:
        return self.utterances.value

    @property
    def deciding(self) -> Interval:
        """The wider of the two."""
        return max((i for i in (self.utterances, self.speakers) if i is not None), key=lambda i: i.width)


@lru_cache(maxsize=4)
def _drawn(n: int, samples: int) -> NDArray:
    """How often each of n utterances (or speakers) is in each sample: the same for every row, so that rows are paired.
    [samples, n]"""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)


def _seeds(count: int, stream: int, samples: int) -> NDArray:
    """The share of each seed in each sample.  [samples, count]"""
    drawn = np.random.default_rng([1, stream]).multinomial(count, np.full(count, 1 / count),
                                                           size=samples).astype(np.float64)
    return drawn / drawn.sum(1, keepdims=True)


def _errors(sample: Sample, shares: NDArray, drawn: NDArray) -> NDArray:
    """Errors of each bootstrap sample.  [samples]"""
    return np.einsum("bs,su,bu->b", shares, sample.errors, drawn, optimize=True)


def rate(outcomes: Sequence[Outcome]) -> Estimate:
    """Word error rate in per cent, the mean over seeds."""
    whole = Sample.of(outcomes)
    centre = 100 * whole.errors.mean(0).sum() / max(1.0, whole.words.sum())

    def interval(s: Sample) -> Interval:
        drawn = _drawn(s.words.size, SAMPLES)
        return Interval.of(centre, 100 * _errors(s, _seeds(len(s.errors), 0, SAMPLES), drawn) / np.maximum(1,
            drawn @ s.words))

    return Estimate(interval(whole), interval(whole.by_speaker()) if whole.speakers is not None else None)


def paired(a: Sample, b: Sample) -> bool:
    """Whether the seeds of two rows are the same ones: then one draw of seeds serves both."""
    return a.seeds == b.seeds


def difference(a: Sequence[Outcome], b: Sequence[Outcome], relative: bool = False) -> Estimate:
    """b against a: points of word error rate, or per cent of a's errors; paired over utterances, and over seeds where
    both have the same.

    ValueError if they did not hear the same utterances.
    """
    ours, theirs = Sample.of(b), Sample.of(a)
    if not np.array_equal(ours.words, theirs.words):
        raise ValueError("the rows did not hear the same utterances")
    mean_b, mean_a = ours.errors.mean(0).sum(), theirs.errors.mean(0).sum()
    centre = 100 * (mean_b - mean_a) / max(1e-9, mean_a if relative else ours.words.sum())

    def interval(x: Sample, y: Sample) -> Interval:
        drawn = _drawn(x.words.size, SAMPLES)
        shares = _seeds(len(x.errors), 0, SAMPLES)
        errors_x = _errors(x, shares, drawn)
        errors_y = _errors(y, shares if paired(x, y) else _seeds(len(y.errors), 1, SAMPLES), drawn)
        scale = np.maximum(1e-9, errors_y) if relative else np.maximum(1, drawn @ x.words)
        return Interval.of(centre, 100 * (errors_x - errors_y) / scale)

    speakers = None
    if ours.speakers is not None and theirs.speakers is not None:
        speakers = interval(ours.by_speaker(), theirs.by_speaker())
    return Estimate(interval(ours, theirs), speakers)


def kept(plain_a: Sequence[Outcome], better_a: Sequence[Outcome], plain_b: Sequence[Outcome],
         better_b: Sequence[Outcome]) -> Estimate:
    """What b gains by something, in per cent of what a gains by it; better and plain are the same runs, so their seeds
    are drawn together; all four are paired over utterances.  ValueError if they did not hear the same utterances.

    Where a gains nothing in a sample of the bootstrap, the sample says nothing of a share: it counts as 0.
    """
    samples = [Sample.of(group) for group in (plain_a, better_a, plain_b, better_b)]
    if not all(np.array_equal(s.words, samples[0].words) for s in samples):
        raise ValueError("the rows did not hear the same utterances")
    gains = [plain.errors.mean(0).sum() - better.errors.mean(0).sum()
             for plain, better in (samples[:2], samples[2:])]
    centre = 100 * gains[1] / gains[0] if gains[0] > 0 else 0.0

    def interval(four: Sequence[Sample]) -> Interval:
        drawn = _drawn(four[0].words.size, SAMPLES)
        shares = [_seeds(len(s.errors), stream, SAMPLES) for s, stream in zip(four, (0, 0, 1, 1), strict=True)]
        errors = [_errors(s, share, drawn) for s, share in zip(four, shares, strict=True)]
        gained, gains = errors[2] - errors[3], errors[0] - errors[1]
        return Interval.of(centre, np.where(gains > 0, 100 * gained / np.maximum(1e-9, gains), 0.0))

    known = all(s.speakers is not None for s in samples)
    return Estimate(interval(samples), interval([s.by_speaker() for s in samples]) if known else None)


# ------------------------------------------------------------------------------------------------------------- verdicts

def verdict(estimate: Estimate | None, at_most: float | None, at_least: float | None,
            margin: float | None = None) -> str:
    """What a claim comes to, at one-sided 95 %.

    without a margin   ``holds`` | ``does not hold`` | ``undecided``
    with one           ``better`` | ``worse`` | ``no difference beyond D`` | ``undecided``: smaller is better
    """
    if estimate is None:
        return "not run"
    i = estimate.deciding
    if margin is not None:
        inside = -margin < i.least and i.most < margin
        if i.most < 0:
            return f"better (by less than {margin:g})" if inside else "better"
        if i.least > 0:
            return f"worse (by less than {margin:g})" if inside else "worse"
        return f"no difference beyond {margin:g}" if inside else "undecided"
    top = np.inf if at_most is None else at_most
    bottom = -np.inf if at_least is None else at_least
    if bottom <= i.least and i.most <= top:
        return "holds"
    return "does not hold" if i.least > top or i.most < bottom else "undecided"


# ---------------------------------------------------------------------------------------------------------------- power

@frozen
class Spread:
    """Where the noise of a paired difference comes from, as standard deviations in its own unit (points, or per cent).

    utterance   of one utterance's difference that stays from seed to seed        interaction  of one that does not
    seed        of a whole run's difference beyond what its utterances explain     per_seed
    the difference of each seed
    """

    value: float
    utterance: float
    interaction: float
    seed: float
    per_seed: tuple[float, ...]

    def error(self, utterances: int, seeds: int) -> float:
        """Standard error of the mean difference in another design."""
        return float(np.sqrt(self.utterance**2 / utterances + self.interaction**2 / (seeds * utterances) +
                             self.seed**2 / seeds))

    def detectable(self, utterances: int, seeds: int, power: float = 0.8) -> float:
        """The smallest true difference that a one-sided test finds with this power."""
        z = NormalDist()
        return (z.inv_cdf(1 - DECIDES) + z.inv_cdf(power)) * self.error(utterances, seeds)

    def decides(self, bound: float, utterances: int, seeds: int) -> float:
        """Power against ``bound`` if the true difference is the measured one."""
        z = NormalDist()
        return z.cdf(abs(self.value - bound) / self.error(utterances, seeds) - z.inv_cdf(1 - DECIDES))

    def equivalence(self, margin: float, utterances: int, seeds: int) -> float:
        """Power to show that nothing is there beyond ``margin``, if nothing is."""
        z = NormalDist()
        return max(0.0, 2 * z.cdf(margin / self.error(utterances, seeds) - z.inv_cdf(1 - DECIDES)) - 1)


def spread(a: Sequence[Outcome], b: Sequence[Outcome], relative: bool = False) -> Spread | None:
    """Components of b's difference from a.  None where fewer than two seeds are paired: then they cannot be told
    apart."""
    ours, theirs = Sample.of(b), Sample.of(a)
    common = [s for s in ours.seeds if s in theirs.seeds]
    if len(common) < 2 or not np.array_equal(ours.words, theirs.words):
        return None
    x = ours.errors[[ours.seeds.index(s) for s in common]]
    y = theirs.errors[[theirs.seeds.index(s) for s in common]]
    d, words = x - y, ours.words
    seeds, utterances = d.shape
    unit = 100 / (y.mean(0).mean() if relative else words.mean())
    per_seed = unit * d.mean(1)
    rest = d - d.mean(0) - (d.mean(1) - d.mean())[:, None]
    interaction = float((rest**2).sum() / ((seeds - 1) * (utterances - 1)))
    persistent = max(0.0, float((d.mean(0) - d.mean() * words / words.mean()).var(ddof=1)) - interaction / seeds)
    seed = max(0.0, float(per_seed.var(ddof=1)) - unit**2 * interaction / utterances)
    return Spread(float(unit * d.mean()), float(unit * np.sqrt(persistent)), float(unit * np.sqrt(interaction)),
                  float(np.sqrt(seed)),
                  tuple(float(v) for v in per_seed))
