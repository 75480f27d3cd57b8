"""One run of a comparison on real speech: a policy trained, compiled, and heard.

It may be killed at any moment and goes on where it was: training resumes from its own state, and a finished module is
not trained again.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve, field, frozen

from nnac import checkpoint, compiler
from nnac.compare import Comparison, compare
from nnac.decode import acoustic
from nnac.decode.front_end import FrontEnd, hypotheses
from nnac.decode.recogniser import load_recogniser
from nnac.decode.search import Search
from nnac.decode.search.graph import GraphSearch
from nnac.decode.search.greedy import Greedy
from nnac.emulator.executor import Emulator
from nnac.executors import Subject
from nnac.fused import Fused, float_ears, sizes, trained_ears
from nnac.hybrid import graph
from nnac.model.hybrid_torch import HybridNetwork
from nnac.plan import Plan
from nnac.program import Program
from nnac.report.experiments import Experiments, Row, Searching
from nnac.report.outcomes import Heard, Outcome, Searched
from nnac.report.runs import Identity, RunError, commit
from nnac.speech.audio import read_manifest
from nnac.speech.corpus import Split, load_split, manifest_path, utterances
from nnac.speech.wer import WordErrors, word_errors
from nnac.train import hybrid, journal, language
from nnac.train import policy as training
from nnac.train.evaluate import evaluate, losses
from nnac.train.pace import Run
from nnac.train.policy import Trained
from nnac.train.weight_only import WeightOnlyTask


def _matrices(model: torch.nn.Module) -> int:
    """Weights of a float network, without biases and gains."""
    return sum(p.numel() for p in model.parameters() if p.ndim == 2)


@frozen(eq=False)
class Way:
    """A search in place of the usual one.

    of      front end -> the search         shown  its options, as `nnac run` takes them
    beam    hypotheses that programs are compiled for; None: what their policies say
    asked   the options again, files by what is in them: what tells one way from another
    """

    of: Callable[[FrontEnd], Search]
    shown: str
    beam: int | None
    asked: list[list[Any]]


@frozen
class Transducers:
    """How RNN-Ts are trained and heard: greedily, or another ``way``."""

    way: Way | None = field(default=None, kw_only=True)

    def train(self, plan: Plan, start: Path, corpus: Path, out: Path, config: training.PolicyConfig,
              processes: int | None, quiet: bool, run: Run, weight_only: bool = False) -> None:
        kind = WeightOnlyTask if weight_only else training.PolicyTask
        training.train(plan, start, corpus, out, config, processes, quiet, run, kind)

    def network(self, start: Path) -> tuple[Any, FrontEnd]:
        """A float network in evaluation mode, and its front end."""
        r = load_recogniser(start)
        return r.model.eval(), FrontEnd(r.features, r.normalisation, r.tokens)

    def search(self, front: FrontEnd) -> Search:
        return Greedy() if self.way is None else self.way.of(front)

    def hear(self, model: Any, front: FrontEnd, split: Split, measured: bool) -> tuple[WordErrors, list[float]]:
        """(word errors, the loss of each utterance; [] where it is not ``measured``, or there is none without an
        alignment)."""
        errors, _ = evaluate(model, split, front.normalisation, front.tokens, self.search(front))
        return errors, losses(model, split, front.normalisation, front.tokens) if measured else []


@frozen
class Hybrids(Transducers):
    """How hybrids are trained, on what `nnac align` wrote, and heard, on what `nnac graph` wrote."""

    alignments: Path
    graph: Path
    device: str = "cpu"            # where networks are heard: the same integers anywhere

    def train(self, plan: Plan, start: Path, corpus: Path, out: Path, config: training.PolicyConfig,
              processes: int | None, quiet: bool, run: Run, weight_only: bool = False) -> None:
        if weight_only:
            raise RunError(f"policy {plan.name} is of a hybrid: `weight_only` trains RNN-Ts alone")
        task = hybrid.policy_task(plan, start, corpus, self.alignments, out, config)
        hybrid.train(task, f"training {plan.name}", processes, quiet, run)

    def network(self, start: Path) -> tuple[Any, FrontEnd]:
        a = acoustic.load(start)
        return a.model, a.front

    def search(self, front: FrontEnd) -> Search:
        if self.way is not None:
            return self.way.of(front)
        assert front.hmm is not None
        found = graph.load(self.graph)
        found.check(front.hmm.inventory, str(self.graph))
        return GraphSearch(found, front.hmm)

    def hear(self, model: Any, front: FrontEnd, split: Split, measured: bool) -> tuple[WordErrors, list[float]]:
        features = [front.heard(f) for f in split.features]
        model = model.to(self.device)
        network = acoustic.RealHearing(model) if isinstance(model, HybridNetwork) else model
        found = hypotheses(network, features, 96, lambda x: torch.from_numpy(x).to(self.device),
                           search=self.search(front))
        return word_errors(split.texts, [front.text(nbest[0].tokens) for nbest in found]), []


def _noted(way: Way | None) -> dict[str, str]:
    return {} if way is None else {"search": way.shown}


@frozen
class Recognise:
    """Runs of rows on a speech corpus: ``Recognise(corpus, floats)(experiments, row, seed, folder)``.

    floats      name -> checkpoints of float networks ("" are the ones that rows use when they name none).  Seed s
                starts from the s-th, counted round: several say what another training of the network would change
    utterances  of each split, for the word errors; None: all      steps  of training, instead of the rows' own
    checked     WAV files on which every integer is compared with the emulator
    hybrids     how hybrids are trained and heard, where a float network is one
    ways        a front end, and what carries it -> how its runs are heard, where that is another than the usual way
    """

    corpus: Path
    floats: Mapping[str, Sequence[Path]]
    utterances: int | None = None
    steps: int | None = None
    checked: int = 8
    processes: int | None = 1
    quiet: bool = True
    hybrids: Hybrids | None = None
    ways: Callable[[FrontEnd, str], Way | None] | None = None

    def _family(self, row: Row, start: Path) -> Transducers:
        """Who trains and hears what starts from this float network.  RunError: a hybrid without its files."""
        family: Transducers | None = self.hybrids
        if checkpoint.load(start).metadata.get("kind") != acoustic.KIND:
            family = Transducers()
        if family is None:
            raise RunError(f"row `{row.name}` is of a hybrid: give --alignments FILE and --graph FILE")
        return family if self.ways is None else evolve(family, way=self.ways(family.network(start)[1], str(start)))

    def __call__(self, experiments: Experiments, row: Row, seed: int, folder: Path) -> Outcome:
        begun = time.monotonic()
        if (start := self._start(row.float, seed)) is None:
            raise RunError(f"row `{row.name}` starts from the float network `{row.float}`: give --float "
                           f"{row.float}=FILE")
        plan, family = self._plan(experiments, row), self._family(row, start)
        if plan is None:
            return self._float(experiments, row, seed, start, folder, begun)
        config = self._config(row, plan, seed)
        module_path, program_path = folder / "module.nnc", folder / "program.nnp"
        # on dev at the end only: nobody watches
        often = Run(every=50, dev_every=max(1, config.steps))
        family.train(plan, start, self.corpus, module_path, config, self.processes, self.quiet, often,
                     row.weight_only)
        # the hours of earlier sittings count
        begun = time.monotonic() - journal.seconds(module_path)
        trained = compiler.trained(module_path)
        languages = self._languages(experiments, row, seed, folder)
        begun -= sum(journal.seconds(folder / f"{name}.nnc") for name in languages)
        way = family.way
        program = compiler.program(trained, languages, None if way is None else way.beam)
        program.save(program_path)
        # the bytes of the file, not what made them
        program = Program.load(program_path)
        compared, cycles = self._listen(trained, program, family)
        kernels = program.report["layers"]
        (weights, size), beside = sizes(program, languages)
        identity = self._identity(experiments, row, seed, start, plan)
        searched: tuple[Searched, ...] = ()
        if experiments.search is not None:
            subject = Subject(trained, compiled=program, languages=languages)
            with trained_ears(subject) as ears:
                searched = self._fused(experiments, folder)(ears, f"{identity.short}-{seed}", program, subject)
        return Outcome(
            row.name, seed, identity.digest, commit(), self._heard(experiments, family, trained.module, trained.front),
            weights, size, program_path.stat().st_size,
            cycles, plan.graph.frame_ms, program.target.clock,
            {p: round(k["bits"], 3) for p, k in kernels.items()}, {p: k["codec"] for p, k in kernels.items()},
            compared.compared + sum(s.checked for s in searched),
            compared.different + sum(s.different for s in searched), config.steps, identity.start, plan.target.name,
            round(time.monotonic() - begun, 1), searched, beside,
            {"policy": str(row.policy), "policy_name": plan.name, "define": {k: str(v) for k, v in row.define.items()},
             "learning_rate": config.learning_rate, "different_nbest": compared.different_nbest,
             "first_difference": str(compared.first) if compared.first else None} | _noted(way))

    def _start(self, name: str, seed: int) -> Path | None:
        """The float network of a seed; None: none of that name was given."""
        given = self.floats.get(name, ())
        return given[seed % len(given)] if given else None

    def identity(self, experiments: Experiments, row: Row, seed: int) -> Identity | None:
        """What this would run for ``row`` now; None when its float network was not given."""
        if (start := self._start(row.float, seed)) is None:
            return None
        return self._identity(experiments, row, seed, start, self._plan(experiments, row))

    def identities(self, experiments: Experiments) -> Callable[[Row, int], Identity | None]:
        """`identity` of this comparison's rows as their policies are now: each is resolved once, not once a seed."""
        rounds = math.lcm(*(len(paths) for paths in self.floats.values()))
        known = cache(lambda row, seed: self.identity(experiments, row, seed))
        return lambda row, seed: known(row, seed % rounds)

    def _identity(self, experiments: Experiments, row: Row, seed: int, start: Path, plan: Plan | None) -> Identity:
        heard = {s: min(self._most(experiments, s), utterances(self.corpus, s)) for s in experiments.splits}
        digest, steps = (plan.digest, self._config(row, plan, 0).steps) if plan else ("", 0)
        if row.weight_only:
            digest = hashlib.sha256(f"{digest} weight-only".encode()).hexdigest()
        starts = [checkpoint.digest_of(start)]
        if experiments.search is not None:               # the language models and the searches are part of the run
            starts += [checkpoint.digest_of(path) for path in self._language_floats(experiments.search, seed).values()]
            beside = self._language_plan(experiments, row)
            whole = [digest, beside.digest if beside else "", sorted(asdict(experiments.search).items())]
            digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
        if (way := self._family(row, start).way) is not None:
            digest = hashlib.sha256(json.dumps([digest, way.asked]).encode()).hexdigest()
        began = starts[0] if len(starts) == 1 else hashlib.sha256(" ".join(starts).encode()).hexdigest()
        return Identity(digest, began, steps, heard)

    def _fused(self, experiments: Experiments, folder: Path) -> Fused:
        assert experiments.search is not None
        return Fused(experiments.search, self.corpus, experiments.splits, folder, self.utterances)

    def _language_floats(self, search: Searching, seed: int) -> dict[str, Path]:
        """Language model beside the recogniser -> its float network.  RunError: not given."""
        found = {}
        for beside, name in search.languages.items():
            if (start := self._start(name, seed)) is None:
                raise RunError(f"the language model of `{name}` has no float network: give --float {name}=FILE "
                               f"(`nnac baseline --text`)")
            found[beside] = start
        return found

    def _language_plan(self, experiments: Experiments, row: Row) -> Plan | None:
        policy = experiments.language_path(row)
        return compiler.resolve(policy, row.language_name) if policy else None

    def _languages(self, experiments: Experiments, row: Row, seed: int, folder: Path) -> dict[str, Trained]:
        """The language models of a run, trained under their policy; none without `[search]`."""
        plan, search = self._language_plan(experiments, row), experiments.search
        if plan is None or search is None:
            return {}
        config, made = language.LmPolicyConfig.of(plan, steps=self.steps, seed=seed), {}
        config = evolve(config, warmup=min(config.warmup, max(1, config.steps // 8)))
        for name, start in self._language_floats(search, seed).items():
            text, out = self.corpus / f"{search.languages[name]}.txt", folder / f"{name}.nnc"
            task = language.policy_task(plan, start, text, out, config)
            language.train(task, f"training {plan.name}", self.processes, self.quiet,
                           Run(every=50, dev_every=max(1, config.steps)))
            made[name] = compiler.trained(out)
        return made

    def _plan(self, experiments: Experiments, row: Row) -> Plan | None:
        policy = experiments.policy_path(row)
        return compiler.resolve(policy, row.policy_name, **{k: str(v)
                                                            for k, v in row.define.items()}) if policy else None

    def _config(self, row: Row, plan: Plan, seed: int) -> training.PolicyConfig:
        config = training.PolicyConfig.of(plan, steps=row.steps if self.steps is None else self.steps, seed=seed)
        return evolve(config, warmup=min(config.warmup, max(1, config.steps // 8)))

    def _float(self, experiments: Experiments, row: Row, seed: int, start: Path, folder: Path,
               begun: float) -> Outcome:
        family, identity = self._family(row, start), self._identity(experiments, row, seed, start, None)
        model, front = family.network(start)
        heard = self._heard(experiments, family, model, front)
        searched: tuple[Searched, ...] = ()
        beside: dict[str, tuple[int, ...]] = {}
        if experiments.search is not None:
            found = self._language_floats(experiments.search, seed)
            networks = {n: language.load_float(p) for n, p in found.items()}
            beside = {name: (w := _matrices(n.model), 4 * w) for name, n in networks.items()}
            with float_ears(model, front, *networks.values()) as ears:
                searched = self._fused(experiments, folder)(ears, f"{identity.short}-{seed}")
        weights = _matrices(model)
        return Outcome(row.name, seed, identity.digest, commit(), heard, weights, 4 * weights, start=identity.start,
                       wall_s=round(time.monotonic() - begun, 1), searched=searched, languages=beside,
                       notes=_noted(family.way))

    def _most(self, experiments: Experiments, split: str) -> int:
        """Of the utterances of a split, how many are heard at most."""
        asked = None if experiments.search is None else experiments.search.heard(split)
        return min(n for n in (self.utterances, asked, sys.maxsize) if n is not None)

    def _heard(self, experiments: Experiments, family: Transducers, model: Any, front: FrontEnd) -> dict[str, Heard]:
        out = {}
        for name in experiments.splits:
            split = load_split(self.corpus, name)
            split = split.first(min(len(split), self._most(experiments, name)))
            errors, lost = family.hear(model, front, split, not experiments.search)
            out[name] = Heard.of(errors, split.voices, lost)
        return out

    def _listen(self, trained: training.Trained, program: Program,
                family: Transducers) -> tuple[Comparison, float]:
        """(comparison of every integer on a few WAV files, cycles per encoder step on them)."""
        files = [u.audio for u in read_manifest(manifest_path(self.corpus, "voice"))][: self.checked]
        emulator = Emulator(program)
        features = [trained.front.hear(f)[0] for f in files]
        search = family.search(trained.front)
        done = compare(trained.module, emulator, trained.front, features, search=search)
        cycles = done.steps["encoder"] * emulator.cycles("encoder") + sum(search.cycles(emulator, r)
                                                                          for r in done.rounds)
        return done, round(cycles / max(1, done.steps["encoder"]), 1)
