"""Utterances of a manifest on a program: what was heard, how much the search asked for, and when the text was there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from numpy.typing import NDArray

from nnac.decode.front_end import FrontEnd, front_end_of
from nnac.decode.search import Search
from nnac.decode.streams import Stream
from nnac.entry import Calls
from nnac.errors import UserError
from nnac.executors import Subject
from nnac.latency.simulate import (
    Costs,
    Quantiles,
    Scenario,
    Timeline,
    change,
    quantiles,
    simulate,
    steps_heard,
)
from nnac.program import INIT, Program
from nnac.runtime import recognise
from nnac.speech.audio import Utterance
from nnac.speech.wer import WordErrors

if TYPE_CHECKING:
    from nnac.train.policy import Trained


class LatencyError(UserError):
    """What stands in the way of a latency: one line."""


@frozen(eq=False)
class Heard:
    """An utterance up to its endpoint: what the model hears, and the seconds of audio that it is of."""

    name: str
    text: str
    features: NDArray | Stream
    seconds: float
    speech_end: float


@frozen(eq=False)
class Latencies:
    """Of all utterances, in order; ``rounds``: what the search asked for each."""

    timelines: list[Timeline]
    rounds: list[NDArray]
    errors: WordErrors
    texts: list[str]
    costs: Costs
    scenario: Scenario

    @property
    def upl(self) -> list[float]:
        return [t.upl for t in self.timelines]

    @property
    def engine(self) -> list[float]:
        return [t.engine for t in self.timelines]

    @property
    def rtf(self) -> float:
        """Work, host's and accelerator's, over audio."""
        audio = sum(t.closed + self.scenario.waiting_s for t in self.timelines)
        return sum(t.busy for t in self.timelines) / audio

    def quantiles(self) -> dict[str, Quantiles]:
        return dict(upl=quantiles(self.upl), engine=quantiles(self.engine))

    def plain(self) -> dict[str, Any]:
        """Milliseconds, for JSON."""
        count = len(self.timelines)
        out: dict[str, Any] = dict(utterances=count, wer=round(self.errors.rate, 3), rtf=round(self.rtf, 6))
        for name, q in self.quantiles().items():
            for p, value, interval in (("p50", q.p50, q.p50_interval), ("p90", q.p90, q.p90_interval)):
                out[f"{name}_{p}_ms"] = round(1e3 * value, 4)
                out[f"{name}_{p}_interval_ms"] = [round(1e3 * v, 4) for v in interval]
        return out


def costs_of(program: Program, search: Search) -> Costs:
    """A program's cycles.  LatencyError: it has no streaming encoder, or is no recogniser."""
    front = front_end_of(program)
    fusion = getattr(search, "fusion", None)
    encoder = _calls(program, "encoder")
    prediction, joint = (_calls(program, name, search.moves) for name in ("prediction", "joint"))
    port = next((p for e in program.entries.values() if e.name == "encoder.step" for p in e.inputs), None)
    assert port is not None, "an encoder hears features"
    f, hearing = front.features, front.hearing
    frames = hearing.frames(port.vectors)
    first_s = ((hearing.reach - hearing.before - hearing.hop) * f.hop + f.window - f.hop) / f.rate
    init = program.entries[INIT].cycles if INIT in program.entries else 0
    languages = tuple(_calls(program, name, search.moves) for name in (fusion.entries if fusion else ()))
    return Costs(program.target.clock, frames * f.hop / f.rate, first_s, frames, encoder, prediction, joint, languages,
                 internal=bool(fusion and fusion.internal), init=init, last_s=hearing.behind * f.hop / f.rate)


def _calls(program: Program, name: str, moved: bool = False) -> Calls:
    """The calls of an entry: ``encoder.step``, and ``encoder.steps`` if there is one; ``joint.step``, and those of
    several hypotheses."""
    entries = [e for n, e in program.entries.items() if n != INIT and e.model_entry == name]
    if f"{name}.step" not in program.entries:
        why = "hears an utterance from its end as well, so it answers after the endpoint" if entries else "is absent"
        raise LatencyError(f"no latency of a stream: `{name}` of this program {why}")
    together = tuple(sorted((e.steps, e.cycles) for e in entries if e.steps > 1))
    return Calls((*program.calls(name, moved).sizes, *together))


def listen(front: FrontEnd, utterances: Sequence[Utterance], hangover_s: float) -> list[Heard]:
    """Audio as far as the engine hears it: up to the endpoint.  LatencyError: a line without `speech_end`, or one
    that lies elsewhere."""
    silent = next((u for u in utterances if u.speech_end is None), None)
    if silent is not None:
        raise LatencyError(f"{silent.audio}: the manifest does not say where its last word ends (`speech_end`, in "
                           "seconds; `nnac corpus` writes it)")
    f, out = front.features, []
    closes = [(u.speech_end or 0.0) + hangover_s for u in utterances]
    ends = [max(0, int((close * f.rate - f.window) / f.hop + 1e-6) + 1) if close * f.rate >= f.window else 0
            for close in closes]
    everything = front.listen_all([u.audio for u in utterances], ends)
    for u, close, (features, seconds) in zip(utterances, closes, everything, strict=True):
        assert u.speech_end is not None
        if u.speech_end > seconds + 1e-3:
            raise LatencyError(f"{u.audio}: `speech_end` is {u.speech_end:g} s, the file holds {seconds:g} s")
        out.append(Heard(u.audio, u.text, features, min(seconds, close), u.speech_end))
    return out


def measure(program: Program, heard: Sequence[Heard], scenario: Scenario, search: Search, *, batch: int = 16,
            quiet: bool = False, keep: bool = False, trained: Trained | None = None) -> Latencies:
    """Recognise on the emulator (``trained``: on the module that the program was compiled from, whose integers are the
    same and come sooner), then run each utterance in time.  A file that ends before its endpoint is followed by
    silence, of which every step is taken to be one blank."""
    seconds, references = sum(h.seconds for h in heard), [h.text for h in heard]
    done = recognise(Subject(trained, compiled=program), [h.features for h in heard], seconds, references, batch=batch,
                     quiet=quiet, search=search, engine="torch" if trained else "emulator")
    costs = costs_of(program, search)
    assert done.errors is not None
    timelines = [simulate(costs, scenario, h.speech_end, r, keep) for h, r in zip(heard, done.rounds, strict=True)]
    return Latencies(timelines, done.rounds, done.errors, done.texts, costs, scenario)


def borrowed(done: Latencies, costs: Costs, keep: bool = False) -> Latencies:
    """As if a program of these costs had said the same labels at the same times: what was heard stays, and what it
    takes is the other's.  A label of a step is said in that of the other's steps which ends with it.

    LatencyError: the steps do not divide.
    """
    ratio = done.costs.step_s / costs.step_s
    if abs(ratio - round(ratio)) > 1e-6 or round(ratio) < 1:
        raise LatencyError(f"label times of steps of {1e3 * done.costs.step_s:g} ms say nothing of steps of "
                           f"{1e3 * costs.step_s:g} ms")
    timelines, rounds = [], []
    for line, asked in zip(done.timelines, done.rounds, strict=True):
        end, later = line.speech_end + done.scenario.waiting_s, asked.copy()
        later["frame"] = (asked["frame"] + 1) * round(ratio) - 1
        rounds.append(later[later["frame"] < steps_heard(costs, end + done.scenario.hangover_s)])
        timelines.append(simulate(costs, done.scenario, end, rounds[-1], keep))
    return evolve(done, timelines=timelines, rounds=rounds, costs=costs)


def over_budget(program: Program, done: Latencies) -> list[str]:
    """One sentence for every budget of the policy, of UPL or engine latency, that these utterances exceed."""
    q = done.quantiles()
    have = {f"{name}({p})": getattr(q[name], p) for name in q for p in ("p50", "p90")}
    return [f"budget `{b['text']}` is exceeded: {1e3 * have[b['quantity']]:.1f} ms on {len(done.timelines)} utterances"
            for b in program.plan.get("budgets", ()) if b["quantity"] in have and have[b["quantity"]] > b["limit"]]


def compared(a: Latencies, b: Latencies) -> dict[str, tuple[float, tuple[float, float]]]:
    """The change from a to b of each quantile, as a share, with its paired 95 % interval."""
    pairs = dict(upl=(a.upl, b.upl), engine=(a.engine, b.engine))
    return {f"{name}_p{round(100 * q)}": change(*values, q) for name, values in pairs.items() for q in (0.5, 0.9)}
