"""The training loop: one for the float network and for the training module under a policy.

A step is ``shards`` batches; gradients are averaged.  Each process takes some of the shards (two processes of one
thread beat one of two: an LSTM's small products do not fill two threads), and with one process the result is the same,
bit for bit, only slower. All randomness (order, masks, dropout) is a function of (seed, step, shard), so a checkpoint
needs no generator's state: weights, their average, optimiser, what the learner adds, and the number of steps are enough
to go on exactly.

A `Task` says what is trained and where the result goes; it travels to other processes as JSON.  A `Learner` holds the
parameters and the loss.  Files: OUT, the result, when training is complete; OUT.part, the state to go on from, until
then; OUT.log.jsonl, the curves.

On several GPUs or machines: ``nnac train … --job JOB.json`` writes the task instead of doing it, and on every machine
``torchrun --nnodes N --nproc-per-node M --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m nnac.train.loop JOB.json``
does it (``shards`` is a multiple of N x M; corpus and output at the same path everywhere).
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from attrs import asdict, evolve, frozen
from numpy.typing import NDArray
from torch import Tensor, nn

from nnac import checkpoint
from nnac.checked import Wrong, checked, parse_json, shown
from nnac.children import end_with_parent
from nnac.errors import ABSURD, UserError
from nnac.files import FileError, atomic, read
from nnac.progress import progress
from nnac.train.batches import epoch_order
from nnac.train.journal import Journal, check_tensorboard
from nnac.train.pace import Pace, Run
from nnac.train.processes import (
    Stopped,
    TrainingError,
    alone,
    check_free,
    device_of,
    interruptible,
    keep_freed_memory,
    rank_of_group,
    run_processes,
)

Report = Callable[[dict], None]


class Portion(Protocol):
    """What a learner learns from at once."""

    def __len__(self) -> int: ...
    def to(self, device: torch.device | str) -> Any:
        """The same on another device."""
        ...


class Examples(Protocol):
    """What is learned from."""

    frames: NDArray                            # the size of each example, in what a batch is measured by

    def __len__(self) -> int: ...
    def batch(self, rows: NDArray, augment: np.random.Generator | None = None) -> Portion:
        """Examples ``rows`` as tensors; ``augment``: draw what is random about them from this generator."""
        ...

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of them: a training of others is not gone on with."""
        ...


class Learner(Protocol):
    """What the loop needs of that which learns."""

    model: nn.Module                           # put into training mode before every batch
    named: dict[str, nn.Parameter]             # everything the optimiser changes

    def loss(self, batch: Any) -> tuple[Tensor, float]:
        """(to minimise, to report), both summed over the batch (of what its `Examples` make)."""
        ...

    def evaluate(self, dev: Any) -> float:
        """How well it does on the dev split, in the task's ``measure``.  Leaves no trace."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What must be kept besides ``named`` (buffers), by name."""
        ...

    def restore(self, tensors: Mapping[str, NDArray]) -> None:
        """Take back `tensors`."""
        ...

    def gradient_ready(self) -> dict[str, Any]:
        """Called before every optimiser step, with the gradient of all shards in the parameters; what it returns is
        reported with the step."""
        ...

    def before_step(self, step: int) -> None:
        """Schedules act here, after step - 1 and before ``step`` (called with ``steps`` at the end too)."""
        ...

    def to(self, device: torch.device) -> None:
        """Move everything to a device; the parameters stay the same objects."""
        ...


class Unscheduled:
    """What a learner says that is its parameters and nothing else: no buffers to keep, nothing that a step changes."""

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, NDArray]) -> None:
        pass

    def gradient_ready(self) -> dict[str, Any]:
        return {}

    def before_step(self, step: int) -> None:
        pass


class Task(Protocol):
    """What is trained.  ``kind`` finds the class again in a worker process (`TASKS`)."""

    kind: str
    # what `Learner.evaluate` returns, as people read it: ``dev WER {:.1f} %``
    measure: str
    out: str
    pace: Pace

    def to_json(self) -> dict: ...
    @classmethod
    def from_json(cls, data: dict) -> Task: ...
    def look(self) -> None:
        """A UserError where a file or a corpus that it reads is not there: seen before processes are started for
        it."""
        ...

    def prepare(self) -> tuple[Learner, Examples, Any]:
        """(learner, training examples, dev split).  Deterministic: every process prepares the same."""
        ...

    def identity(self) -> dict:
        """What the result depends on besides the corpus: a state of another identity is not gone on from."""
        ...

    def finish(self, learner: Learner, examples: Examples, report: dict) -> dict:
        """Write ``out`` and return what else is to be reported."""
        ...


TASKS = {"float": "nnac.train.baseline:FloatTask", "policy": "nnac.train.policy:PolicyTask",
         "weight-only": "nnac.train.weight_only:WeightOnlyTask",
         "lm-float": "nnac.train.language:FloatTask", "lm-policy": "nnac.train.language:PolicyTask",
         "images-policy": "nnac.train.images:PolicyTask",
         "hybrid-float": "nnac.train.hybrid:FloatTask", "hybrid-policy": "nnac.train.hybrid:PolicyTask"}


def task_from_json(data: dict) -> Any:
    if data["kind"] not in TASKS:
        raise Wrong([f"job.kind: {' or '.join(map(repr, TASKS))} is expected, not {shown(data['kind'])}"])
    module, name = TASKS[data["kind"]].split(":")
    return getattr(importlib.import_module(module), name).from_json(data["task"])


class Trainer:
    """A learner and its optimiser, and how one shard changes them.  Knows nothing of processes."""

    def __init__(self, learner: Learner, pace: Pace, examples: Examples, identity: dict,
                 device: torch.device | str = "cpu") -> None:
        self.learner, self.pace, self.examples, self.device = learner, pace, examples, torch.device(device)
        self.identity = identity | {"corpus": examples.description()}
        learner.to(self.device)
        named = learner.named
        # weights decay; biases, gains, and what quantisers learn (clips, sizes) do not
        matrices = [p for n, p in named.items() if p.ndim >= 2 and "quantiser" not in n]
        vectors = [p for n, p in named.items() if p.ndim < 2 or "quantiser" in n]
        self.parameters: list[Tensor] = [*matrices, *vectors]
        self.optimiser = torch.optim.AdamW(
            [dict(params=g, weight_decay=d) for g, d in ((matrices, pace.weight_decay), (vectors, 0.0)) if g],
            lr=pace.learning_rate, betas=(0.9, 0.98), fused=True)
        # all gradients in one vector: averaged over processes and clipped without copies
        self.gradient = torch.zeros(sum(p.numel() for p in self.parameters), device=self.device)
        for p, part in zip(self.parameters, self.gradient.split([p.numel() for p in self.parameters]), strict=True):
            p.grad = part.view_as(p)
        self.average = [p.detach().clone() for p in self.parameters] if pace.ema else None
        self.step = 0
        self.notes: dict[str, Any] = {}
        self._epoch: tuple[int, list] = (-1, [])
        self._epoch_sizes: list[int] = []

    def steps_per_epoch(self) -> int:
        return len(self._order(0))

    def _order(self, epoch: int) -> list:
        if self._epoch[0] != epoch:
            pace = self.pace
            self._epoch = epoch, epoch_order(self.examples.frames, pace.batch_frames, pace.shards, pace.seed, epoch)
            if not self._epoch[1]:
                raise TrainingError(f"{len(self.examples)} examples do not fill one step of {pace.shards} x "
                                    f"{pace.batch_frames} frames")
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
        torch.manual_seed(int(np.random.SeedSequence([seed, 13, self.step, shard]).generate_state(1,
            np.uint64)[0] >> 1))
        loss, shown = self.learner.loss(batch.to(self.device))
        (loss / len(batch)).backward()
        return shown, len(batch)

    def update(self) -> float:
        """One optimiser step on ``gradient`` (summed over shards), which is then zero; returns its norm before
        clipping."""
        self.gradient.div_(self.pace.shards)
        norm = float(self.gradient.norm())
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient of step {self.step} is not finite: lower the learning rate")
        self.notes = self.learner.gradient_ready()
        if norm > self.pace.clip:
            self.gradient.mul_(self.pace.clip / norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.pace.rate(self.step)
        self.optimiser.step()
        self.gradient.zero_()
        if self.average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1.0 - self.pace.average_decay(self.step))
        self.step += 1
        return norm

    @torch.no_grad()
    def adopt_average(self) -> None:
        """The averaged weights become the weights (nothing happens where none are kept)."""
        for p, mean in zip(self.parameters, self.average or self.parameters, strict=True):
            p.copy_(mean)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within: the averaged weights, if there are any; they are what is evaluated and what training ends with."""
        kept = [p.detach().clone() for p in self.parameters] if self.average is not None else []
        self.adopt_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for p, own in zip(self.parameters, kept, strict=False):
                    p.copy_(own)

    @torch.no_grad()
    def agree(self) -> None:
        """All processes begin with what the first prepared: on unlike processors its real numbers may differ in a last
        bit."""
        for value in (*self.parameters, *(self.average or ()), *self.learner.tensors().values()):
            if value.is_floating_point():
                torch.distributed.broadcast(value, 0)

    def save(self, path: Path) -> None:
        tensors: dict[str, Any] = {f"parameter.{name}": p for name, p in self.learner.named.items()}
        tensors |= {f"learner.{name}": value for name, value in self.learner.tensors().items()}
        for name, p in self.learner.named.items():
            for key, value in self.optimiser.state[p].items():
                tensors[f"optimiser.{key}.{name}"] = value
        if self.average is not None:
            names = {id(p): name for name, p in self.learner.named.items()}
            tensors |= {f"average.{names[id(p)]}": mean for p, mean in zip(self.parameters, self.average, strict=True)}
        checkpoint.save(path, tensors, {"kind": "training-state", "step": self.step, "identity": self.identity})

    def restore(self, path: Path) -> None:
        """Go on from ``path``.  CheckpointError: unreadable; TrainingError: of another configuration, corpus or
        version."""
        state = checkpoint.load(path, "training-state")
        if state.metadata.get("identity") != self.identity:
            raise TrainingError(f"{path} belongs to another training run (other settings or corpus); remove it or "
                                f"choose another output")
        named = {id(p): name for name, p in self.learner.named.items()}

        def kept(name: str, like: Tensor) -> Tensor:
            # copy_ alone would broadcast
            return torch.from_numpy(state.tensors[name].copy()).to(self.device).view_as(like)

        try:
            with torch.no_grad():
                for i, p in enumerate(self.parameters):
                    name = named[id(p)]
                    p.copy_(kept(f"parameter.{name}", p))
                    own = {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p}
                    self.optimiser.state[p] = {key: kept(f"optimiser.{key}.{name}", like) for key, like in own.items()}
                    if self.average is not None:
                        self.average[i] = kept(f"average.{name}", p)
            self.learner.restore(state.under("learner."))
        # its tensors are not ours: their names or shapes have changed
        except (KeyError, RuntimeError) as error:
            what = " ".join(str(error).split())[:120]
            raise TrainingError(f"{path} was saved by another version of nnac ({what}); remove it to begin "
                                f"again") from None
        step = state.metadata.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= self.pace.steps:
            raise TrainingError(f"{path}: says that step {str(step)[:40]} of {self.pace.steps} is done; remove it to "
                                f"begin again")
        self.step = step


def run_rank(task: Any, rank: int, world: int, report: Report, run: Run) -> None:
    """Train as one of ``world`` processes.  ``report`` is told of every step (rank 0 only).  Stopped: after a Ctrl-C,
    with the state saved."""
    torch.set_num_threads(1)
    keep_freed_memory()
    pace, device = task.pace, device_of(run.device, rank)
    if pace.shards % world:
        raise TrainingError(f"{pace.shards} shards cannot be shared by {world} processes")
    if run.tensorboard:
        check_tensorboard()                                            # before the minutes of preparation, not after
    with alone(task.out) if rank == 0 else nullcontext():
        learner, examples, dev = task.prepare()
        trainer = Trainer(learner, pace, examples, task.identity(), device)
        part = Path(task.out + ".part")
        if part.exists():
            trainer.restore(part)
        elif world > 1:
            trainer.agree()
        if rank:
            _steps(trainer, rank, world, run, dev, part, lambda line: None)
            return
        with Journal(task.out, trainer.step, run.tensorboard) as journal:
            def tell(line: dict) -> None:
                journal.write(line)
                report(line)

            parameters = sum(p.numel() for p in learner.named.values())
            tell({"parameters": parameters, "step": trainer.step, "epoch_steps": trainer.steps_per_epoch()})
            _steps(trainer, rank, world, run, dev, part, tell)
            line = {"step": trainer.step, "dev": learner.evaluate(dev)}
            tell(line | task.finish(learner, examples, line | {"identity": trainer.identity}))
        part.unlink(missing_ok=True)


def sum_in_order(own: list[Tensor], total: Tensor, world: int, portion: int = 1 << 20) -> None:
    """Add the gradients of all shards to ``total`` (zeros), in the order of the shards: so every number of processes
    rounds alike.

    own  of shards rank, rank + world, …
    portion  numbers of each process that travel at once: what bounds the memory
    """
    if len(own) == 1 and world == 2:                   # two numbers have one sum
        torch.distributed.all_reduce(own[0])
        total.add_(own[0])
        return
    for start in range(0, len(total), portion):
        part = slice(start, start + portion)
        for gradient in own:
            piece = gradient[part].contiguous()
            pieces = [torch.empty_like(piece) for _ in range(world)]
            torch.distributed.all_gather(pieces, piece)
            for each in pieces:
                total[part].add_(each)


def _steps(trainer: Trainer, rank: int, world: int, run: Run, dev: Any, part: Path, tell: Report) -> None:
    """All steps that are left.  Afterwards the learner holds what is kept: the averaged weights, compressed for the
    last time."""
    pace, learner = trainer.pace, trainer.learner
    dev_every = run.dev_every or max(100, pace.steps // 8)
    with interruptible() as asked:
        while trainer.step < pace.steps:
            learner.before_step(trainer.step)
            # reported loss, utterances, processes that were told to stop
            sums = torch.zeros(3, dtype=torch.float64)
            own: list[Tensor] = []
            for shard in range(rank, pace.shards, world):
                sums[:2] += torch.tensor(trainer.accumulate(shard), dtype=torch.float64)
                if world > 1:
                    own.append(trainer.gradient.clone())
                    trainer.gradient.zero_()
            sums[2] = float(asked())
            if world > 1:
                sum_in_order(own, trainer.gradient, world)
                sums = sums.to(trainer.device)
                torch.distributed.all_reduce(sums)
            rate = pace.rate(trainer.step)
            norm = trainer.update()
            loss, utterances, stop = sums.tolist()
            if rank == 0:
                line = {"step": trainer.step, "loss": loss / utterances, "rate": rate, "gradient": norm} | trainer.notes
                if trainer.step % dev_every == 0 and trainer.step < pace.steps and not stop:
                    with trainer.averaged():
                        line["dev"] = learner.evaluate(dev)
                if trainer.step % run.every == 0 or stop:
                    trainer.save(part)
                tell(line)
            if stop:
                raise Stopped.at(trainer.step)
    trainer.adopt_average()
    learner.before_step(pace.steps)


def train(task: Any, title: str = "training", processes: int | None = None, quiet: bool = False, run: Run | None = None,
          telling: Report | None = None) -> list[dict]:
    """Do ``task``; return what was reported (steps, losses, dev WER).  Resumes from OUT.part if an earlier call was
    stopped.

    processes  at most ``pace.shards``; default: as many as there are cores (or GPUs).  The number does not change the
               result (of 2 shards).
    Errors  CorpusError, CheckpointError, TrainingError, JournalError: one line each.  Stopped: Ctrl-C; the state is
            saved.
    """
    pace, run = task.pace, run or Run()
    device_of(run.device)
    task.look()
    check_free(task.out)
    processes = min(processes or (torch.cuda.device_count() if run.device == "cuda" else os.cpu_count()) or 1,
                    pace.shards)
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
                dev = f", {task.measure.format(line['dev'])} at step {line['step']}"
            advance(line["step"] - seen, f"loss {loss:.2f}{dev}" if loss else "")
            seen = line["step"]

        if processes == 1:
            threads = torch.get_num_threads()
            try:
                run_rank(task, 0, 1, report, run)
            finally:
                torch.set_num_threads(threads)
        else:
            run_processes(job_of(task, run), processes, report)
    return reports


def steps_done(task: Any) -> int:
    """How far an earlier call came: the steps in OUT.part, 0 where there is none (or none that can be read:
    `Trainer.restore` says so)."""
    try:
        step = checkpoint.load(task.out + ".part", "training-state").metadata["step"]
        return step if isinstance(step, int) and 0 <= step else 0
    except (checkpoint.CheckpointError, KeyError):
        return 0


def job_of(task: Any, run: Run) -> dict:
    """A task and how it is run, as JSON."""
    return {"kind": task.kind, "task": task.to_json(), "run": asdict(run)}


def write_job(task: Any, run: Run, path: str | os.PathLike) -> None:
    """What ``torchrun -m nnac.train.loop PATH`` does.  Paths become absolute: torchrun may be started elsewhere."""
    paths = ("corpus", "text", "out", "float_path", "tokens")
    whole = {name: str(Path(getattr(task, name)).absolute()) for name in paths if getattr(task, name, None)}
    with atomic(path, "w") as file:
        json.dump(job_of(evolve(task, **whole), run), file)


JOB_LIMIT = 1 << 30            # bytes: a job carries its whole plan


def read_job(path: str | os.PathLike) -> tuple[Any, Run]:
    """(task, run).  TrainingError: the file is absent or no job."""
    try:
        job = checked(_Job, parse_json(read(path, JOB_LIMIT)), "job")
        return task_from_json({"kind": job.kind, "task": job.task}), job.run
    except FileError as error:
        raise TrainingError(f"{path}: not a training job: {str(error).removeprefix(f'{path}: ')}") from None
    except ABSURD as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise TrainingError(f"{path}: not a training job (`nnac train … --job {path}` writes one): {what}") from None


@frozen
class _Job:
    kind: str
    task: dict[str, Any]
    run: Run


def main(path: str) -> int:
    """One process: of `train` above, or of ``torchrun -m nnac.train.loop JOB.json``.  Reports JSON lines on stdout
    (rank 0)."""
    def say(line: dict) -> None:
        print(json.dumps(line), flush=True)

    end_with_parent()
    try:
        task, run = read_job(path)
        with rank_of_group(run.device) as (rank, world):
            run_rank(task, rank, world, say, run)
    except Stopped:
        if rank == 0:
            say({"stopped": steps_done(task)})
        return 130
    except UserError as error:
        say({"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
