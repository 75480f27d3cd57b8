"""One run of a comparison heard with beam search and language models: word errors, cycles and latency of each search.

The weights of each fusion are found for the run itself, on the domain's development set, every fusion on one grid
(`nnac.decode.tuning`).  Every search is also run on the emulator, on some utterances: integers and n-best lists are
compared.  Each search leaves a file in the run's folder, and what is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, field, frozen
from numpy.typing import NDArray

from nnac.checked import checked, parse_json
from nnac.compare import compare
from nnac.decode import tuning
from nnac.decode.front_end import FrontEnd
from nnac.decode.fusion import LanguageModel
from nnac.decode.integer import stepping
from nnac.decode.scorers import scorer
from nnac.decode.search import ROUNDS
from nnac.decode.search.beam import Beam
from nnac.emulator.executor import Emulator
from nnac.executors import Subject, executor
from nnac.files import atomic, read
from nnac.latency.measure import costs_of
from nnac.latency.simulate import Costs, Scenario, simulate, steps_heard
from nnac.program import Program
from nnac.report.experiments import Searching
from nnac.report.outcomes import Heard, Searched
from nnac.speech.corpus import Split, load_split
from nnac.speech.wer import word_errors
from nnac.train.policy import Trained

BATCH = 128                    # utterances searched in lockstep: what the host does in a round is little for each


@frozen(eq=False)
class Ears:
    """What listens: a model as `Beam` asks it, its front end, and the language models that a fusion may take."""

    model: Any
    front: FrontEnd
    target: LanguageModel | str
    source: LanguageModel | str
    carry: Callable[[NDArray], Any] | None = None


@contextmanager
def trained_ears(subject: Subject) -> Iterator[Ears]:
    """A training module with its language models beside it: the integers that its program computes."""
    with stepping(executor("torch", subject)) as stepper:
        target, source = subject.languages
        yield Ears(stepper, subject.front, target, source)


@contextmanager
def float_ears(model: Any, front: FrontEnd, target: LanguageModel, source: LanguageModel) -> Iterator[Ears]:
    import torch

    yield Ears(scorer(model.eval()), front, target, source, torch.from_numpy)


@frozen(eq=False)
class Fused:
    """Every search of a run: ``Fused(searching, corpus, folder)(ears, trained, …)``.

    utterances  of each split; None: as the experiments say
    """

    searching: Searching
    corpus: Path
    splits: tuple[str, ...]
    folder: Path
    utterances: int | None = None
    scenario: Scenario = field(factory=Scenario)

    def __call__(self, ears: Ears, belongs: str, program: Program | None = None,
                 subject: Subject | None = None) -> tuple[Searched, ...]:
        """``belongs`` names the networks; program and subject: of a run that has them."""
        points = self.tuned(ears, belongs)
        made = {}
        for fusion in self.searching.fusions:
            for beam in self.searching.beams:
                path = self.folder / f"searched-{fusion}-{beam}.json"
                if path.is_file():
                    made[fusion, beam] = checked(Searched, parse_json(read(path)))
        missing = [(f, b) for f in self.searching.fusions for b in self.searching.beams if (f, b) not in made]
        heard = {s: self._listened(ears, s) for s in self.splits} if missing else {}
        for fusion, beam in missing:
            made[fusion, beam] = self._searched(ears, points[fusion], beam, heard, program, subject)
            with atomic(self.folder / f"searched-{fusion}-{beam}.json", "w") as out:
                json.dump(asdict(made[fusion, beam]), out)
        return tuple(made[f, b] for f in self.searching.fusions for b in self.searching.beams)

    def tuned(self, ears: Ears, belongs: str) -> Mapping[str, tuning.Point]:
        """The best point of each fusion on the development set."""
        dev, search = self._split(self.searching.dev), self.searching
        points = tuning.grid(search.fusions, search.weights, search.shares, search.bonuses)
        whose = tuning.identity(run=belongs, set=tuning.features_digest(dev.features), texts=dev.texts,
                                beam=search.tuned_at)
        path = self.folder / "tuned.jsonl"
        known = tuning.load(path, whose)
        encoded = None if set(points) <= set(known) else self._encoded(ears, dev)
        results = [known[p] for p in points] if encoded is None else list(tuning.tune(
            ears.model, encoded, dev.texts, ears.front.text, Beam(search.tuned_at), points, (ears.target, ears.source),
            path, whose))
        return {f: r.point for f, r in tuning.best(results).items()}

    def _split(self, name: str) -> Split:
        split = load_split(self.corpus, name)
        most = [n for n in (self.utterances, self.searching.heard(name)) if n is not None]
        return split.first(min(most)) if most else split

    def _encoded(self, ears: Ears, split: Split) -> tuning.Encoded:
        features = [ears.front.heard(np.asarray(f, np.float32)) for f in split.features]
        return tuning.Encoded.of(ears.model, features, BATCH, ears.carry)

    def _listened(self, ears: Ears, name: str) -> tuple[Split, tuning.Encoded]:
        split = self._split(name)
        return split, self._encoded(ears, split)

    def _searched(self, ears: Ears, point: tuning.Point, beam: int, heard: Mapping[str, tuple[Split, tuning.Encoded]],
                  program: Program | None, subject: Subject | None) -> Searched:
        search, domain = Beam(beam, fusion=point.build(ears.target, ears.source)), self.searching.domain
        found: dict[str, Heard] = {}
        rounds: list[NDArray] = []
        for name, (split, encoded) in heard.items():
            if name == domain or beam == self.searching.elsewhere:
                texts, asked = _texts(ears, encoded, search)
                found[name] = Heard.of(word_errors(split.texts, texts), split.voices)
                rounds = asked if name == domain else rounds
        if program is None or subject is None:
            return Searched(point.fusion, beam, point.options(), found)
        split, costs = heard[domain][0], costs_of(program, search)
        upl, engine = self._latencies(costs, split, rounds)
        steps = sum(len(f) // costs.vectors for f in split.features)
        done = compare(executor("torch", subject), Emulator(program), ears.front,
                       [ears.front.heard(np.asarray(f, np.float32))
                        for f in split.features[:self.searching.compared]],
                       search=Beam(beam, nbest=min(beam, 4), fusion=search.fusion))
        return Searched(point.fusion, beam, point.options(), found,
                        round(costs.cycles(steps, np.concatenate(rounds)) / max(1, steps), 1), upl, engine,
                        done.compared, done.different, done.different_nbest)

    def _latencies(self, costs: Costs, split: Split, rounds: list[NDArray]) -> tuple[str, str]:
        """User-perceived and engine latency of each utterance, in microseconds; "" in a corpus that does not say where
        its words end.  The search knows nothing of what comes later: up to the endpoint it has asked the same."""
        lines = []
        for end, asked in zip(split.speech_ends, rounds, strict=True):
            if end is None:
                return "", ""
            count = steps_heard(costs, end + self.scenario.hangover_s)
            lines.append(simulate(costs, self.scenario, end, asked[asked["frame"] < count]))
        return tuple(" ".join(str(round(1e6 * v)) for v in values)
                     for values in ([t.upl for t in lines], [t.engine for t in lines]))  # type: ignore[return-value]


def _texts(ears: Ears, encoded: tuning.Encoded, search: Beam) -> tuple[list[str], list[NDArray]]:
    """Of each utterance: what was heard, and what the search asked for."""
    texts, rounds = [""] * encoded.count, [np.zeros(0, ROUNDS)] * encoded.count
    for rows, found in encoded.over(ears.model, search):
        for row, (i, best) in enumerate(zip(rows, found.best, strict=True)):
            texts[i] = ears.front.text(best.tokens)
            rounds[i] = found.rounds[found.rounds["utterance"] == row]
    return texts, rounds


def sizes(program: Program, languages: Mapping[str, Trained]) -> tuple[tuple[int, int], dict[str, tuple[int, ...]]]:
    """(weights, bytes) of a program's recogniser, and of each language model in it."""
    def of(names: list[str]) -> tuple[int, int]:
        kernels = [program.report["layers"][n] for n in names]
        return sum(k["weights"] for k in kernels), sum(k["bytes"] for k in kernels)

    beside = {name: [n for n in program.report["layers"] if n.startswith(f"{name}.")] for name in languages}
    mine = [n for n in program.report["layers"] if not any(n in names for names in beside.values())]
    return of(mine), {name: of(names) for name, names in beside.items()}
