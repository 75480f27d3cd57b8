"""Doing the runs of a comparison: one after the other or side by side, each in its folder, none done twice.

A run is a function ``(experiments, row, seed, folder) -> Outcome``; `recognise` is the real one: train, compile, listen.  It may be killed at any
moment and goes on where it was (training resumes from its own state, finished stages are not repeated); its result file appears last.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from nnac.errors import UserError
from nnac.progress import progress
from nnac.report.experiments import Experiments, Row
from nnac.report.outcomes import Heard, Outcome, path_of

Run = Callable[[Experiments, Row, int, Path], Outcome]
Command = Callable[[Row, int], Sequence[str]]


class RunError(UserError):
    """A run failed; the line says which, and where its log is."""


def missing(experiments: Experiments, results: Path, quick: bool = False, only: Sequence[str] = ()) -> list[tuple[Row, int]]:
    """Runs without a result file: first seeds first, so that every row has a figure early.  RunError for a name that is no row's."""
    rows = [r for r in experiments.rows if not quick or r.quick]
    if unknown := set(only) - {r.name for r in experiments.rows}:
        raise RunError(f"no row is called `{min(unknown)}` in {experiments.path}")
    if only:
        rows = [r for r in experiments.rows if r.name in only]
    found = [(r, s) for r in rows for s in range(1 if quick else r.seeds) if not path_of(results, r.name, s).is_file()]
    return sorted(found, key=lambda t: t[1])


def work(jobs: Sequence[tuple[Row, int]], command: Command, logs: Path, at_once: int = 1, quiet: bool = False) -> list[str]:
    """Run ``command`` for each job as a process of its own, ``at_once`` at a time; names of those that failed.

    Output goes to ``logs/ROW-sSEED.log``.  When this process is interrupted its children are ended too; they resume next time.
    """
    waiting, running, failed = list(jobs), {}, []
    # spinning OpenMP threads of one run would stall the others
    environment = os.environ | ({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} if at_once > 1 else {})
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with progress("runs", len(jobs), quiet) as advance:
            while waiting or running:
                while waiting and len(running) < at_once:
                    row, seed = waiting.pop(0)
                    name = f"{row.name}-s{seed}"
                    with open(logs / f"{name}.log", "ab") as log:
                        running[name] = subprocess.Popen(command(row, seed), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
                time.sleep(0.2)
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        if process.returncode:
                            failed.append(name)
                        advance(1, f"{name}{' FAILED' if process.returncode else ''}")
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failed


def commit() -> str:
    """The commit of the code that runs, with + if the working tree differs; "unknown" outside a repository."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@frozen
class Recognise:
    """The real run on a speech corpus.

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
            raise RunError(f"row `{row.name}` starts from the float network `{row.float}`: give --float {row.float}=FILE")
        start = self.floats[row.float]
        policy = experiments.policy_path(row)
        if policy is None:
            return self._float(experiments, row, seed, start, begun)
        from attrs import evolve

        from nnac import compiler
        from nnac.program import Program
        from nnac.train import policy as training

        plan = compiler.resolve(policy, row.policy_name, **{k: str(v) for k, v in row.define.items()})
        config = training.PolicyConfig.of(plan, steps=row.steps if self.steps is None else self.steps, seed=seed)
        config = evolve(config, warmup=min(config.warmup, max(1, config.steps // 8)))
        module_path, program_path = folder / "module.nnc", folder / "program.nnp"
        training.train(plan, start, self.corpus, module_path, config, self.processes, quiet=self.quiet)
        trained = compiler.trained(module_path)
        program = compiler.program(trained)
        program.save(program_path)
        program = Program.load(program_path)                                     # the bytes of the file, not what made them
        compared, cycles = self._listen(trained, program)
        kernels = program.report["layers"]
        return Outcome(
            row.name, seed, plan.digest, commit(), self._heard(experiments, trained.module, trained.front),
            sum(k["weights"] for k in kernels.values()), sum(k["bytes"] for k in kernels.values()), program_path.stat().st_size,
            cycles, plan.graph.frame_ms, program.target.clock,
            {p: round(k["bits"], 3) for p, k in kernels.items()}, {p: k["codec"] for p, k in kernels.items()},
            compared.compared, compared.different, config.steps, round(time.monotonic() - begun, 1),
            {"policy": str(row.policy), "define": {k: str(v) for k, v in row.define.items()}, "learning_rate": config.learning_rate,
             "first_difference": str(compared.first) if compared.first else None})

    def _float(self, experiments: Experiments, row: Row, seed: int, start: Path, begun: float) -> Outcome:
        from nnac.decode.front_end import FrontEnd
        from nnac.decode.recogniser import load_recogniser

        r = load_recogniser(start)
        weights = sum(p.numel() for p in r.model.parameters() if p.ndim == 2)
        heard = self._heard(experiments, r.model.eval(), FrontEnd(r.features, r.normalisation, r.tokens))
        return Outcome(row.name, seed, "", commit(), heard, weights, 4 * weights, wall_s=round(time.monotonic() - begun, 1))

    def _heard(self, experiments: Experiments, model, front) -> dict[str, Heard]:
        from nnac.speech.corpus import load_split
        from nnac.train.evaluate import evaluate

        out = {}
        for name in experiments.splits:
            split = load_split(self.corpus, name)
            split = split if self.utterances is None else split.first(self.utterances)
            out[name] = Heard.of(evaluate(model, split, front.normalisation, front.tokens)[0])
        return out

    def _listen(self, trained, program):
        """(comparison of every integer on a few WAV files, cycles per encoder step on them)."""
        from nnac.compare import compare
        from nnac.emulator.executor import Emulator
        from nnac.speech.audio import load_audio, read_manifest
        from nnac.speech.corpus import manifest_path

        files = [u.audio for u in read_manifest(manifest_path(self.corpus, "voice"))][: self.checked]
        emulator = Emulator(program)
        features = [trained.front.prepare(load_audio(f, trained.front.features.rate)) for f in files]
        done = compare(trained.module, emulator, trained.front, features)
        cycles = sum(n * emulator.cycles(e) for e, n in done.steps.items())
        return done, round(cycles / max(1, done.steps["encoder"]), 1)


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter and this package."""
    return [sys.executable, "-m", "nnac", *arguments]
