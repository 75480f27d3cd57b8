"""One utterance in real time: audio arrives, the accelerator and its host work in turn, and at some moment the text
is there.

    user-perceived latency   UPL = (the final text is on the host) - (last sample of the last word)
    engine latency           the same from the endpoint, when the audio is closed

Time runs from the moment at which the engine is woken.  The first `Scenario.waiting_s` seconds of the audio are there
by then (a keyword was spotted in them); the rest arrives as it is spoken.  An encoder step can begin when the last
sample of its last window is there.  A program that computes k steps in one call waits for k of them, until the
endpoint, `Scenario.hangover_s` after the last word, closes the audio; what is left then goes in single steps.  After
each call the search takes its frames in turn: every round asks the prediction network and the language models for the
prefixes that are new, then the joint for the hypotheses, each a call to the accelerator, and lets the host choose.
When the last frame is done the host finishes the text.

Calls cost the program's cycles, which depend on no data; how many rounds each frame takes, of how many hypotheses, is
what the search really asked (`nnac.decode.search.ROUNDS`).  Nothing overlaps: host and accelerator take turns, so the
figures are those of the simplest driver.

Source: "Dissecting User-Perceived Latency" (arXiv 2104.02207, abstract) for what is measured; the model and its
constants are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import field, frozen
from attrs.validators import ge, gt
from numpy.typing import NDArray

from nnac.entry import Calls

UNITS = ("host", "encoder", "prediction", "language", "joint")


@frozen
class Scenario:
    """How a device is used, and what its host takes.  Seconds; all of it our choice, and named so that it can be
    changed.

    hangover_s  silence after the last word until the endpoint      waiting_s   audio that is there when the engine is
                woken
    load_s      from then until it can work, beside what the program's `init` takes: weights from flash, say
    feature_s   of the host, for one feature vector      launch_s   of the host, to start a call and see it end
    choose_s    of the host, for one hypothesis in one round of search      more_s   for each further hypothesis
    finish_s    of the host, from the last round to the text
    """

    hangover_s: float = field(default=0.2, validator=ge(0.0))
    waiting_s: float = field(default=0.0, validator=ge(0.0))
    load_s: float = field(default=0.0, validator=ge(0.0))
    feature_s: float = field(default=20e-6, validator=ge(0.0))
    launch_s: float = field(default=5e-6, validator=ge(0.0))
    choose_s: float = field(default=15e-6, validator=ge(0.0))
    more_s: float = field(default=3.75e-6, validator=ge(0.0))
    finish_s: float = field(default=100e-6, validator=ge(0.0))


@frozen
class Costs:
    """A program, as far as time is concerned.

    step_s, first_s   audio that an encoder step adds, and what the first one needs beyond that (the window's overhang,
                      the frames of the next step that a convolution hears)
    last_s            audio that may be lacking at the endpoint: zeros of a convolution stand there
    vectors           feature vectors of a step      clock   Hz      init   cycles before anything else
    encoder           a call of several *steps*; the others, of several *hypotheses*      languages   one a language
                      model in the program
    internal          whether every new prefix costs a call of the joint besides (the internal language model)
    """

    clock: float = field(validator=gt(0.0))
    step_s: float = field(validator=gt(0.0))
    first_s: float
    vectors: int
    encoder: Calls
    prediction: Calls
    joint: Calls
    languages: tuple[Calls, ...] = ()
    internal: bool = False
    init: int = 0
    last_s: float = 0.0

    def round(self, predicted: int, joined: int) -> list[tuple[str, int]]:
        """The calls of one round of the search, (unit, cycles) each, in their order."""
        asked = [("prediction", self.prediction, predicted), *(("language", m, predicted) for m in self.languages),
                 ("joint", self.joint, predicted if self.internal else 0), ("joint", self.joint, joined)]
        return [(unit, cycles) for unit, calls, count in asked for cycles in calls.several(count)]

    def cycles(self, steps: int, rounds: NDArray) -> int:
        """Of the accelerator, for so many encoder steps (one a call) and ``rounds`` (`ROUNDS`)."""
        pairs, times = np.unique(np.stack([rounds["prediction"], rounds["joint"]]), axis=1, return_counts=True)
        searched = sum(int(n) * sum(c for _, c in self.round(int(p), int(j)))
                       for (p, j), n in zip(pairs.T, times, strict=True))
        return steps * self.encoder.one + searched


@frozen
class Span:
    """Something that took time.  Seconds from the engine's waking."""

    unit: str
    start: float
    end: float


@frozen(eq=False)
class Timeline:
    """What happened.  ``speech_end``, ``closed``, ``done``: the last word's end, the endpoint, the text; ``ready``:
    when each step's audio was there; ``heard``: when the search had done with each step; ``busy``: seconds of work,
    host's and accelerator's."""

    speech_end: float
    closed: float
    done: float
    begun: float
    ready: tuple[float, ...]
    heard: tuple[float, ...]
    busy: float
    spans: tuple[Span, ...] = ()

    @property
    def upl(self) -> float:
        return self.done - self.speech_end

    @property
    def engine(self) -> float:
        return self.done - self.closed

    @property
    def backlog(self) -> float:
        """How long the last step's audio waited until the engine came to it: 0 for one that keeps up."""
        return max(0.0, self.begun - self.ready[-1]) if self.ready else 0.0


def steps_heard(costs: Costs, seconds: float) -> int:
    """Encoder steps of an utterance of so much audio."""
    return max(0, int((seconds + costs.last_s - costs.first_s) / costs.step_s + 1e-9))


def simulate(costs: Costs, scenario: Scenario, speech_end: float, rounds: NDArray, keep: bool = False) -> Timeline:
    """Run one utterance.

    speech_end  seconds from the first sample to the end of the last word
    rounds      of this utterance (`ROUNDS`); a step that it says nothing of takes one round with one hypothesis, a
                blank
    keep        note every span, for a picture
    """
    close = speech_end + scenario.hangover_s
    count = steps_heard(costs, close)
    asked = _by_step(rounds, count)
    wait = scenario.waiting_s
    ready = [max(0.0, min((i + 1) * costs.step_s + costs.first_s, close) - wait) for i in range(count)]
    closed = max(0.0, close - wait)
    clock = _Clock(costs.clock, scenario, scenario.load_s + costs.init / costs.clock, keep)
    group, grouped = costs.encoder.largest
    heard: list[float] = []
    begun = clock.now
    at = 0
    while at < count:
        whole = group > 1 and count - at >= group
        take = group if whole else 1
        clock.until(ready[at + take - 1] if whole or group == 1 else max(ready[at], closed))
        begun = clock.now
        clock.host(scenario.feature_s * costs.vectors * take)
        clock.call("encoder", grouped if whole else costs.encoder.one)
        for i in range(at, at + take):
            for predicted, joined in asked[i]:
                for unit, cycles in costs.round(predicted, joined):
                    clock.call(unit, cycles)
                if joined:
                    clock.host(scenario.choose_s + scenario.more_s * (joined - 1))
            heard.append(clock.now)
        at += take
    clock.until(closed)                                   # nobody knows before the endpoint that this was all
    clock.host(scenario.finish_s)
    return Timeline(speech_end - wait, closed, clock.now, begun, tuple(ready), tuple(heard), clock.busy,
                    tuple(clock.spans))


def _by_step(rounds: NDArray, count: int) -> list[list[tuple[int, int]]]:
    """(new prefixes, hypotheses) of every round of each step."""
    out: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for frame, predicted, joined in rounds[["frame", "prediction", "joint"]].tolist():
        if frame >= count:
            raise ValueError(f"the search heard step {frame} of an utterance that has {count}")
        out[frame].append((predicted, joined))
    return [asked or [(0, 1)] for asked in out]


class _Clock:
    """One thread of work: the host, and the accelerator while the host waits for it."""

    def __init__(self, clock: float, scenario: Scenario, start: float, keep: bool) -> None:
        self.now, self.busy, self.spans, self._clock, self._keep = start, 0.0, list[Span](), clock, keep
        self._launch = scenario.launch_s

    def until(self, moment: float) -> None:
        self.now = max(self.now, moment)

    def host(self, seconds: float) -> None:
        self._work("host", seconds)

    def call(self, unit: str, cycles: int) -> None:
        self._work("host", self._launch)
        self._work(unit, cycles / self._clock)

    def _work(self, unit: str, seconds: float) -> None:
        if self._keep and seconds:
            self.spans.append(Span(unit, self.now, self.now + seconds))
        self.now += seconds
        self.busy += seconds


# --------------------------------------------------------------------------------------------------------- many of them

@frozen
class Quantiles:
    """P50 and P90 in seconds, each with the ends of its 95 % interval (bootstrap over utterances)."""

    p50: float
    p90: float
    p50_interval: tuple[float, float]
    p90_interval: tuple[float, float]


def _draws(count: int, samples: int, seed: int) -> NDArray:
    return np.random.default_rng(seed).integers(0, count, (samples, count))


def quantiles(values: Sequence[float], samples: int = 2000, seed: int = 0) -> Quantiles:
    """Of at least one value."""
    x = np.asarray(values, np.float64)
    p50, p90 = np.quantile(x[_draws(len(x), samples, seed)], [0.5, 0.9], axis=1)
    return Quantiles(float(np.quantile(x, 0.5)), float(np.quantile(x, 0.9)), _interval(p50), _interval(p90))


def change(a: Sequence[float], b: Sequence[float], quantile: float = 0.9, samples: int = 2000,
           seed: int = 0) -> tuple[float, tuple[float, float]]:
    """How much less or more a quantile of b is than of a, as a share of a's, with its 95 % interval; paired: a and b
    are of the same utterances, drawn together."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise ValueError("a paired comparison needs the same utterances in the same order")
    draws = _draws(len(x), samples, seed)
    shares = np.quantile(y[draws], quantile, axis=1) / np.quantile(x[draws], quantile, axis=1) - 1
    return float(np.quantile(y, quantile) / np.quantile(x, quantile) - 1), _interval(shares)


def _interval(values: NDArray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
