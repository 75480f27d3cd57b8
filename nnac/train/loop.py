"""The training loop: one for the float network and for the training module under a policy.

A step is ``shards`` batches; gradients are averaged.  Each process takes some of the shards (two processes of one thread beat one
of two: an LSTM's small products do not fill two threads), and with one process the result is the same, bit for bit, only slower.
All randomness (order, masks, dropout) is a function of (seed, step, shard), so a checkpoint needs no generator's state: weights,
optimiser, what the learner adds, and the number of steps are enough to go on exactly.

A `Task` says what is trained and where the result goes; it travels to the worker processes as JSON.  A `Learner` holds the parameters and
the loss.  Files: OUT, the result, when training is complete; OUT.part, the state to go on from, until then.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import checkpoint
from ..errors import UserError
from ..progress import progress
from ..speech.corpus import Split
from .batches import Batch, Examples, epoch_order
from .evaluate import evaluate

Report = Callable[[dict], None]


class TrainingError(UserError):
    """Training cannot start or go on; one clear line."""


@frozen
class Pace:
    """How long, how fast, in what portions.  What the optimiser does at a step is a function of these and the step."""

    steps: int = field(default=1800, validator=ge(1))
    batch_frames: int = field(default=4000, validator=gt(0))       # 10 ms frames in a shard, padding included
    shards: int = field(default=2, validator=ge(1))                # batches in a step
    learning_rate: float = field(default=2e-3, validator=gt(0.0))
    warmup: int = field(default=200, validator=ge(0))              # steps of rising rate
    flat: float = 0.4                                              # share of the steps at full rate; then half a cosine
    final: float = 0.02                                            # last rate, as a share of the full one
    weight_decay: float = 1e-3
    clip: float = 5.0
    seed: int = field(default=0, validator=ge(0))

    def rate(self, step: int) -> float:
        """Learning rate of ``step`` (0, 1, …): rise, plateau, half a cosine."""
        done = step / self.steps
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, (done - self.flat) / (1 - self.flat)))) if self.flat < 1 else 1.0
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * fall)


class Learner(Protocol):
    """What the loop needs of that which learns."""

    model: nn.Module                           # evaluated on the dev split; keeps the protocol of greedy decoding
    named: dict[str, nn.Parameter]             # everything the optimiser changes

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        """(to minimise, to report), both summed over the batch."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What must be kept besides ``named`` (buffers), by name."""
        ...

    def restore(self, tensors: Mapping[str, NDArray]) -> None:
        """Take back `tensors`."""
        ...

    def before_step(self, step: int) -> None:
        """Schedules act here, after step - 1 and before ``step`` (called with ``steps`` at the end too)."""
        ...


class Task(Protocol):
    """What is trained.  ``kind`` finds the class again in a worker process (`TASKS`)."""

    kind: str
    out: str
    pace: Pace

    def to_json(self) -> dict: ...
    @classmethod
    def from_json(cls, data: dict) -> Task: ...
    def prepare(self) -> tuple[Learner, Examples, Split]:
        """(learner, training examples, dev split).  Deterministic: every process prepares the same."""
        ...

    def identity(self) -> dict:
        """What the result depends on besides the corpus: a state of another identity is not gone on from."""
        ...

    def finish(self, learner: Learner, examples: Examples, report: dict) -> dict:
        """Write ``out`` and return what else is to be reported."""
        ...


TASKS = {"float": "nnac.train.baseline:FloatTask", "policy": "nnac.train.policy:PolicyTask"}


def task_from_json(data: dict) -> Any:
    module, name = TASKS[data["kind"]].split(":")
    return getattr(importlib.import_module(module), name).from_json(data["task"])


class Trainer:
    """A learner and its optimiser, and how one shard changes them.  Knows nothing of processes."""

    def __init__(self, learner: Learner, pace: Pace, examples: Examples, identity: dict) -> None:
        self.learner, self.pace, self.examples = learner, pace, examples
        self.identity = identity | {"corpus": corpus_of(examples)}
        named = learner.named
        matrices = [p for p in named.values() if p.ndim >= 2]
        vectors = [p for p in named.values() if p.ndim < 2]
        parameters = matrices + vectors
        self.optimiser = torch.optim.AdamW(
            [dict(params=g, weight_decay=d) for g, d in ((matrices, pace.weight_decay), (vectors, pace.weight_decay)) if g],
            lr=pace.learning_rate, betas=(0.9, 0.98), fused=True)
        # all gradients in one vector: averaged over processes and clipped without copies
        self.gradient = torch.zeros(sum(p.numel() for p in parameters))
        for p, part in zip(parameters, self.gradient.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        self.step = 0
        self._epoch: tuple[int, list] = (-1, [])
        self._epoch_sizes: list[int] = []

    def steps_per_epoch(self) -> int:
        return len(self._order(0))

    def _order(self, epoch: int) -> list:
        if self._epoch[0] != epoch:
            pace = self.pace
            self._epoch = epoch, epoch_order(self.examples.frames, pace.batch_frames, pace.shards, pace.seed, epoch)
            if not self._epoch[1]:
                raise TrainingError(f"{len(self.examples)} utterances do not fill one step of {pace.shards} x {pace.batch_frames} frames")
        return self._epoch[1]

    def _rows(self, shard: int) -> np.ndarray:
        # epochs may differ by a step, so walk; an epoch is seldom more than a few dozen
        epoch, at = 0, self.step
        while True:
            if epoch == len(self._epoch_sizes):
                self._epoch_sizes.append(len(self._order(epoch)))
            if at < self._epoch_sizes[epoch]:
                return self._order(epoch)[at][shard]
            at -= self._epoch_sizes[epoch]
            epoch += 1

    def accumulate(self, shard: int) -> tuple[float, int]:
        """Add the gradient of one shard of this step to ``gradient``; return (reported loss summed, utterances)."""
        seed = self.pace.seed
        self.learner.model.train()
        batch = self.examples.batch(self._rows(shard), np.random.default_rng([seed, 7, self.step, shard]))
        torch.manual_seed(int(np.random.SeedSequence([seed, 13, self.step, shard]).generate_state(1, np.uint64)[0] >> 1))
        loss, shown = self.learner.loss(batch)
        (loss / len(batch)).backward()
        return shown, len(batch)

    def update(self) -> None:
        """One optimiser step on ``gradient`` (summed over shards), which is then zero."""
        self.gradient.div_(self.pace.shards)
        norm = float(self.gradient.norm())
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient of step {self.step} is not finite: lower the learning rate")
        if norm > self.pace.clip:
            self.gradient.mul_(self.pace.clip / norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.pace.rate(self.step)
        self.optimiser.step()
        self.gradient.zero_()
        self.step += 1

    def save(self, path: Path) -> None:
        tensors: dict[str, Any] = {f"parameter.{name}": p for name, p in self.learner.named.items()}
        tensors |= {f"learner.{name}": value for name, value in self.learner.tensors().items()}
        for name, p in self.learner.named.items():
            for key, value in self.optimiser.state[p].items():
                tensors[f"optimiser.{key}.{name}"] = value
        checkpoint.save(path, tensors, {"kind": "training-state", "step": self.step, "identity": self.identity})

    def restore(self, path: Path) -> None:
        """Go on from ``path``.  CheckpointError: unreadable; TrainingError: of another configuration or corpus."""
        state = checkpoint.load(path, "training-state")
        if state.metadata["identity"] != self.identity:
            raise TrainingError(f"{path} belongs to another training run (other settings or corpus); remove it or choose another output")
        with torch.no_grad():
            for name, p in self.learner.named.items():
                p.copy_(torch.from_numpy(state.tensors[f"parameter.{name}"]))
                self.optimiser.state[p] = {key: torch.from_numpy(state.tensors[f"optimiser.{key}.{name}"].copy())
                                           for key in ("step", "exp_avg", "exp_avg_sq")}
        self.learner.restore(state.under("learner."))
        self.step = state.metadata["step"]


def corpus_of(examples: Examples) -> dict:
    """What a checkpoint says of the corpus it was trained on."""
    return {"utterances": len(examples), "frames": int(examples.frames.sum()), "recipe": examples.split.recipe.to_json()}


# ---- processes


def run_rank(task: Any, rank: int, world: int, report: Report, every: int, dev_every: int) -> None:
    """Train as one of ``world`` processes.  ``report`` is told of every step (rank 0 only)."""
    torch.set_num_threads(1)
    pace = task.pace
    if pace.shards % world:
        raise TrainingError(f"{pace.shards} shards cannot be shared by {world} processes")
    learner, examples, dev = task.prepare()
    trainer = Trainer(learner, pace, examples, task.identity())
    part = Path(task.out + ".part")
    if part.exists():
        trainer.restore(part)
    if rank == 0:
        report({"parameters": sum(p.numel() for p in learner.named.values()), "step": trainer.step, "epoch_steps": trainer.steps_per_epoch()})
    while trainer.step < pace.steps:
        learner.before_step(trainer.step)
        sums = torch.zeros(2, dtype=torch.float64)
        for shard in range(rank, pace.shards, world):
            sums += torch.tensor(trainer.accumulate(shard), dtype=torch.float64)
        if world > 1:
            torch.distributed.all_reduce(trainer.gradient)
            torch.distributed.all_reduce(sums)
        trainer.update()
        if rank:
            continue
        line = {"step": trainer.step, "loss": float(sums[0] / sums[1])}
        if trainer.step % dev_every == 0 and trainer.step < pace.steps:
            line["dev"] = evaluate(learner.model, dev, examples.normalisation, examples.tokens)[0].rate
        if trainer.step % every == 0:
            trainer.save(part)
        report(line)
    learner.before_step(pace.steps)
    if rank == 0:
        dev_wer = evaluate(learner.model, dev, examples.normalisation, examples.tokens)[0].rate
        line = {"step": trainer.step, "dev": dev_wer}
        report(line | task.finish(learner, examples, line | {"identity": trainer.identity}))
        part.unlink(missing_ok=True)


def train(task: Any, title: str = "training", processes: int | None = None, quiet: bool = False, every: int = 100,
          dev_every: int | None = None, telling: Report | None = None) -> list[dict]:
    """Do ``task``; return what was reported (steps, losses, dev WER).  Resumes from OUT.part if an earlier call was stopped.

    processes  at most ``pace.shards``; default: as many as there are cores.  The number does not change the result (of 2 shards).
    Errors  CorpusError, CheckpointError, TrainingError: one line each.
    """
    pace = task.pace
    dev_every = dev_every or max(100, pace.steps // 8)
    processes = min(processes or os.cpu_count() or 1, pace.shards)
    while pace.shards % processes:
        processes -= 1
    reports: list[dict] = []
    seen = steps_done(task)
    with progress(title, pace.steps, quiet, seen) as advance:
        dev, loss = "", 0.0

        def report(line: dict) -> None:
            nonlocal seen, dev, loss
            reports.append(line)
            if telling:
                telling(line)
            if "loss" in line:
                loss = line["loss"] if not loss else 0.98 * loss + 0.02 * line["loss"]
            if "dev" in line:
                dev = f", dev WER {line['dev']:.1f} % at step {line['step']}"
            advance(line["step"] - seen, f"loss {loss:.2f}{dev}" if loss else "")
            seen = line["step"]

        if processes == 1:
            threads = torch.get_num_threads()
            try:
                run_rank(task, 0, 1, report, every, dev_every)
            finally:
                torch.set_num_threads(threads)
        else:
            _run_processes(task, processes, report, every, dev_every)
    return reports


def steps_done(task: Any) -> int:
    """How far an earlier call came: the steps in OUT.part, 0 where there is none (or none that can be read: `Trainer.restore` says so)."""
    try:
        return checkpoint.load(task.out + ".part", "training-state").metadata["step"]
    except checkpoint.CheckpointError:
        return 0


def _run_processes(task: Any, world: int, report: Report, every: int, dev_every: int) -> None:
    """``world`` fresh programs; rank 0 reports JSON lines on its stdout.  When this one dies, so do they: at the broken pipe."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"kind": task.kind, "task": task.to_json(), "every": every, "dev_every": dev_every}
        (Path(folder) / "job.json").write_text(json.dumps(job))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                       "WORLD_SIZE": str(world), "NNAC_RENDEZVOUS": f"file://{folder}/store"}
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")      # one machine: do not depend on its name's address
        command = [sys.executable, "-m", "nnac.train.loop", f"{folder}/job.json"]
        ranks: list[subprocess.Popen] = []
        try:
            for rank in range(world):
                with open(f"{folder}/stderr{rank}", "wb") as log:      # a file: a full pipe that nobody reads would stop the rank
                    out = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
                    own = {**environment, "RANK": str(rank)}
                    ranks.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=own, text=True))
            assert ranks[0].stdout is not None
            for line in ranks[0].stdout:
                if not line.startswith("{"):                           # a library's chatter
                    continue
                message = json.loads(line)
                if "error" in message:
                    raise TrainingError(message["error"])
                report(message)
            if ranks[0].wait() != 0:
                last = Path(folder, "stderr0").read_text(errors="replace").strip().splitlines()
                raise TrainingError(f"a training process ended early: {last[-1] if last else 'it left no message'}")
        finally:
            for process in ranks:
                process.terminate()
            for process in ranks:
                process.wait()


def main(path: str) -> int:
    """One rank: of `train` above, or of ``torchrun -m nnac.train.loop JOB.json``."""
    job = json.loads(Path(path).read_text())
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=os.environ.get("NNAC_RENDEZVOUS", "env://"), rank=rank, world_size=world)
    try:
        run_rank(task_from_json(job), rank, world, lambda line: print(json.dumps(line), flush=True), job["every"], job["dev_every"])
    except UserError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
