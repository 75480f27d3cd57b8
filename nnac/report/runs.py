"""Doing the runs of a comparison: one after the other or side by side, each in its folder, none done twice.

A run is a process of its own, any command; it leaves a result file when it is complete, and that is what says that it
is done: as long as the file is of the run that is wanted now (`Wanted`).  A policy that was changed since, or another
float network, is another run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Container, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import evolve, field, frozen

from nnac import children
from nnac.errors import UserError
from nnac.files import append
from nnac.progress import progress
from nnac.report.experiments import Experiments, Row
from nnac.report.outcomes import Outcome, OutcomeError, load, path_of, save

Command = Callable[[Row, int], Sequence[str]]
Wanted = Callable[[Row, int], "Identity | None"]


class RunError(UserError):
    """A run failed; the line says which, and where its log is."""


@frozen
class Identity:
    """What decides a run besides its seed: plan, float network, steps of training, utterances of each split."""

    digest: str
    start: str
    steps: int
    utterances: dict[str, int] = field(hash=False)

    @classmethod
    def of(cls, outcome: Outcome) -> Identity:
        return cls(outcome.digest, outcome.start, outcome.steps,
                   {name: len(h.errors) for name, h in outcome.heard.items()})

    @property
    def short(self) -> str:
        """Eight characters that name it: a folder of a changed run is another folder."""
        return hashlib.sha256(f"{self.digest} {self.start} {self.steps}".encode()).hexdigest()[:8]

    def differs(self, other: Identity) -> str:
        """What an ``other`` run has differently, in words; "" for the same run."""
        pairs = (("another policy", self.digest, other.digest), ("another float network", self.start, other.start),
                 ("another length of training", self.steps, other.steps),
                 ("other utterances", self.utterances, other.utterances))
        return ", ".join(what for what, mine, theirs in pairs if mine != theirs)


def stale(experiments: Experiments, results: Path, wanted: Wanted) -> dict[Path, str]:
    """Result files that are of another run than the one ``wanted`` now (None: cannot be said) -> what differs."""
    found: dict[Path, str] = {}
    for row in experiments.rows:
        for seed in range(row.seeds):
            path = path_of(results, row.name, seed)
            now = wanted(row, seed) if path.is_file() else None
            if now is not None and (what := now.differs(Identity.of(load(path)))):
                found[path] = what
    return found


def missing(experiments: Experiments, results: Path, only: Sequence[str] = (),
            useless: Container[Path] = ()) -> list[tuple[Row, int]]:
    """Runs without a result file (or with a ``useless`` one): first seeds first, so that every row has a figure early.

    only  names, or shell patterns of names      RunError for one that is no row's.
    """
    rows = list(experiments.rows)
    if unknown := [name for name in only if not any(fnmatchcase(r.name, name) for r in rows)]:
        raise RunError(f"no row is called `{min(unknown)}` in {experiments.path}")
    if only:
        rows = [r for r in rows if any(fnmatchcase(r.name, name) for name in only)]
    found = [(r, s) for r in rows for s in range(r.seeds)
             if not (p := path_of(results, r.name, s)).is_file() or p in useless]
    return sorted(found, key=lambda t: t[1])


def taken(jobs: Sequence[tuple[Row, int]], results: Path, others: Sequence[Path], wanted: Wanted) -> list[Path]:
    """Results of ``jobs`` that other comparisons have in their folders, copied to ``results`` under the row's own name.

    A result is taken where everything that decides a run is the same (`Identity`, seed); nothing else of it is looked
    at.  RunError: one of ``others`` is no folder.
    """
    if absent := [folder for folder in others if not folder.is_dir()]:
        raise RunError(f"{absent[0]}: no folder of results")
    found = [(o.seed, Identity.of(o), o) for folder in others for p in sorted(folder.glob("*-s*.json"))
             if (o := _result(p)) is not None]
    copied = []
    for row, seed in jobs:
        now = wanted(row, seed)
        if same := next((o for s, identity, o in found if (s, identity) == (seed, now)), None):
            copied.append(save(results, evolve(same, row=row.name)))
    return copied


def _result(path: Path) -> Outcome | None:
    """What a file says, if it is a result of this version: a folder of results has other files too."""
    try:
        return load(path)
    except OutcomeError:
        return None


def work(jobs: Sequence[tuple[Row, int]], command: Command, logs: Path, at_once: int = 1,
         quiet: bool = False) -> list[str]:
    """Run ``command`` for each job as a process of its own, ``at_once`` at a time; names of those that failed.

    Output goes to ``logs/ROW-sSEED.log``.  When this process ends, by whatever, its children end too; they resume next
    time.
    """
    waiting, failed = list(jobs), []
    running: dict[str, subprocess.Popen] = {}
    # spinning OpenMP threads of one run would stall the others
    environment = os.environ | ({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} if at_once > 1 else {})
    try:
        with progress("runs", len(jobs), quiet) as advance:
            while waiting or running:
                while waiting and len(running) < at_once:
                    row, seed = waiting.pop(0)
                    name = f"{row.name}-s{seed}"
                    with append(logs / f"{name}.log") as log:
                        running[name] = children.start(command(row, seed), stdout=log, stderr=log, env=environment)
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
    """The commit of the code that runs, with + if code or policies differ from it; "unknown" outside a repository."""
    top = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=top, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "nnac", "grammar", "specs")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter and this package."""
    return [sys.executable, "-m", "nnac", *arguments]
