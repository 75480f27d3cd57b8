"""One run of a comparison on real speech: a policy trained, compiled, and heard.

It may be killed at any moment and goes on where it was: training resumes from its own state, and a finished module is
not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from nnac import checkpoint, compiler
from nnac.compare import Comparison, compare
from nnac.decode.front_end import FrontEnd
from nnac.decode.recogniser import load_recogniser
from nnac.emulator.executor import Emulator
from nnac.plan import Plan
from nnac.program import Program
from nnac.report.experiments import Experiments, Row
from nnac.report.outcomes import Heard, Outcome
from nnac.report.runs import Identity, RunError, commit
from nnac.speech.audio import read_manifest
from nnac.speech.corpus import load_split, manifest_path, utterances
from nnac.train import journal
from nnac.train import policy as training
from nnac.train.evaluate import evaluate, losses
from nnac.train.pace import Run


@frozen
class Recognise:
    """Runs of rows on a speech corpus: ``Recognise(corpus, floats)(experiments, row, seed, folder)``.

    floats      name -> checkpoint of a float network ("" is the one that rows use when they name none)
    utterances  of each split, for the word errors; None: all      steps  of training, instead of the rows' own
    checked     WAV files on which every integer is compared with the emulator
    """

    corpus: Path
    floats: Mapping[str, Path]
    utterances: int | None = None
    steps: int | None = None
    checked: int = 8
    processes: int | None = 1
    quiet: bool = True

    def __call__(self, experiments: Experiments, row: Row, seed: int, folder: Path) -> Outcome:
        begun = time.monotonic()
        if row.float not in self.floats:
            raise RunError(f"row `{row.name}` starts from the float network `{row.float}`: give --float "
                           f"{row.float}=FILE")
        start = self.floats[row.float]
        plan = self._plan(experiments, row)
        if plan is None:
            return self._float(experiments, row, seed, start, begun)
        config = self._config(row, plan, seed)
        module_path, program_path = folder / "module.nnc", folder / "program.nnp"
        # on dev at the end only: nobody watches
        often = Run(every=50, dev_every=max(1, config.steps))
        training.train(plan, start, self.corpus, module_path, config, self.processes, self.quiet, often)
        # the hours of earlier sittings count
        begun = time.monotonic() - journal.seconds(module_path)
        trained = compiler.trained(module_path)
        program = compiler.program(trained)
        program.save(program_path)
        # the bytes of the file, not what made them
        program = Program.load(program_path)
        compared, cycles = self._listen(trained, program)
        kernels = program.report["layers"]
        return Outcome(
            row.name, seed, plan.digest, commit(), self._heard(experiments, trained.module, trained.front),
            sum(k["weights"] for k in kernels.values()), sum(k["bytes"] for k in kernels.values()),
                       program_path.stat().st_size,
            cycles, plan.graph.frame_ms, program.target.clock,
            {p: round(k["bits"], 3) for p, k in kernels.items()}, {p: k["codec"] for p, k in kernels.items()},
            compared.compared, compared.different, config.steps, checkpoint.digest_of(start), plan.target.name,
                       round(time.monotonic() - begun, 1),
            {"policy": str(row.policy), "define": {k: str(v) for k, v in row.define.items()},
             "learning_rate": config.learning_rate,
             "first_difference": str(compared.first) if compared.first else None})

    def identity(self, experiments: Experiments, row: Row) -> Identity | None:
        """What this would run for ``row`` now; None when its float network was not given."""
        if row.float not in self.floats:
            return None
        plan = self._plan(experiments, row)
        heard = {s: utterances(self.corpus, s) for s in experiments.splits}
        if self.utterances is not None:
            heard = {s: min(n, self.utterances) for s, n in heard.items()}
        digest, steps = (plan.digest, self._config(row, plan, 0).steps) if plan else ("", 0)
        return Identity(digest, checkpoint.digest_of(self.floats[row.float]), steps, heard)

    def _plan(self, experiments: Experiments, row: Row) -> Plan | None:
        policy = experiments.policy_path(row)
        return compiler.resolve(policy, row.policy_name, **{k: str(v)
                                                            for k, v in row.define.items()}) if policy else None

    def _config(self, row: Row, plan: Plan, seed: int) -> training.PolicyConfig:
        config = training.PolicyConfig.of(plan, steps=row.steps if self.steps is None else self.steps, seed=seed)
        return evolve(config, warmup=min(config.warmup, max(1, config.steps // 8)))

    def _float(self, experiments: Experiments, row: Row, seed: int, start: Path, begun: float) -> Outcome:
        r = load_recogniser(start)
        weights = sum(p.numel() for p in r.model.parameters() if p.ndim == 2)
        heard = self._heard(experiments, r.model.eval(), FrontEnd(r.features, r.normalisation, r.tokens))
        return Outcome(row.name, seed, "", commit(), heard, weights, 4 * weights, start=checkpoint.digest_of(start),
                       wall_s=round(time.monotonic() - begun, 1))

    def _heard(self, experiments: Experiments, model: Any, front: FrontEnd) -> dict[str, Heard]:
        out = {}
        for name in experiments.splits:
            split = load_split(self.corpus, name)
            split = split if self.utterances is None else split.first(self.utterances)
            errors, _ = evaluate(model, split, front.normalisation, front.tokens)
            out[name] = Heard.of(errors, split.voices, losses(model, split, front.normalisation, front.tokens))
        return out

    def _listen(self, trained: training.Trained, program: Program) -> tuple[Comparison, float]:
        """(comparison of every integer on a few WAV files, cycles per encoder step on them)."""
        files = [u.audio for u in read_manifest(manifest_path(self.corpus, "voice"))][: self.checked]
        emulator = Emulator(program)
        features = [trained.front.hear(f)[0] for f in files]
        done = compare(trained.module, emulator, trained.front, features)
        cycles = sum(n * emulator.cycles(e) for e, n in done.steps.items())
        return done, round(cycles / max(1, done.steps["encoder"]), 1)
