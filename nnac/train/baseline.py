"""The float network's trainer: a corpus in, a recogniser out; the same steps give the same weights, interrupted or not.

A step is ``shards`` batches; gradients are averaged.  Each process takes some of the shards (two processes of one thread beat one
of two: an LSTM's small products do not fill two threads), and with one process the result is the same, bit for bit, only slower.
All randomness (order, masks, dropout) is a function of (seed, step, shard), so a checkpoint needs no generator's state: weights,
optimiser and the number of steps are enough to go on exactly.

Two losses from the start: RNN-T, and CTC on letters from a side head (two outputs per frame) that is dropped in the end.  Without
the side loss, or without the layer norms, the network learns the grammar and ignores the sound: the loss falls to the grammar's
entropy and looks fine while 95 % of the words are wrong.  Judge by word error rate.  Source: our recipe.

Files: OUT, the recogniser, when training is complete; OUT.part, the state to go on from, until then.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import asdict, field, frozen
from attrs.validators import ge, gt, in_
from torch import Tensor, nn

from .. import checkpoint
from ..model.recogniser import Recogniser, save_recogniser
from ..model.rnnt_torch import Rnnt, RnntConfig, parameter_count
from ..progress import progress
from ..speech.corpus import Split, load_split
from ..speech.tokens import LETTERS, Tokens, word_pieces
from .batches import Batch, Examples, epoch_order
from .evaluate import evaluate
from .joint_loss import joint_loss

STATE_KIND = "rnnt-float-training"


class TrainingError(Exception):
    """Training cannot start or go on; one clear line."""


@frozen
class TrainConfig:
    """Everything the trained weights depend on, besides the corpus.  The defaults are the demo's budget."""

    model: RnntConfig = field(factory=RnntConfig)
    steps: int = field(default=1800, validator=ge(1))
    tokens: str = field(default="pieces", validator=in_(("pieces", "letters")))
    batch_frames: int = field(default=4000, validator=gt(0))  # 10 ms frames in a shard, padding included
    shards: int = field(default=2, validator=ge(1))  # batches in a step
    learning_rate: float = field(default=2e-3, validator=gt(0.0))
    warmup: int = field(default=200, validator=ge(0))  # steps of rising rate
    flat: float = 0.4  # share of the steps at full rate; then half a cosine
    final: float = 0.02  # last rate, as a share of the full one
    weight_decay: float = 1e-3
    clip: float = 5.0
    ctc: float = field(default=0.3, validator=ge(0.0))  # weight of the side loss
    seed: int = field(default=0, validator=ge(0))
    train_utterances: int | None = None  # None: all of the split
    bfloat16: bool | None = None  # None: where the processor has it

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> TrainConfig:
        return cls(**{**data, "model": RnntConfig.from_json(data["model"])})

    def rate(self, step: int) -> float:
        """Learning rate of ``step`` (0, 1, …): rise, plateau, half a cosine."""
        done = step / self.steps
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, (done - self.flat) / (1 - self.flat)))) if self.flat < 1 else 1.0
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * fall)


LONGER = TrainConfig(steps=4500)  # the documented longer run


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 (AVX512-BF16)."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


class SideLoss(nn.Module):
    """CTC on letters: two outputs per encoder frame, because 60 ms is too coarse for letters."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.output = nn.Linear(hidden, 2 * LETTERS.count)

    def forward(self, encoded: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """encoded [T, B, hidden] float32 -> sum over the batch of -log P(letters)."""
        T, B, _ = encoded.shape
        scores = self.output(encoded).view(T, B, 2, -1).transpose(1, 2).reshape(2 * T, B, -1).log_softmax(-1)
        # torch reads ctc targets unchecked; ours come from LETTERS, which cannot give an id out of range
        return nn.functional.ctc_loss(scores, batch.letters, 2 * lengths, batch.letter_counts, reduction="sum", zero_infinity=True)


class Trainer:
    """Network, side loss and optimiser, and how one shard changes them.  Knows nothing of processes or files."""

    def __init__(self, config: TrainConfig, examples: Examples) -> None:
        self.config, self.examples = config, examples
        torch.manual_seed(config.seed)
        self.model = Rnnt(config.model)
        self.side = SideLoss(config.model.hidden)
        self.named = {
            **{f"model.{k}": p for k, p in self.model.named_parameters()},
            **{f"side.{k}": p for k, p in self.side.named_parameters()},
        }
        parameters = list(self.named.values())
        self.optimiser = torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
        )
        # all gradients in one vector: averaged over processes and clipped without copies
        self.gradient = torch.zeros(sum(p.numel() for p in parameters))
        for p, part in zip(parameters, self.gradient.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        self.step = 0
        self._epoch: tuple[int, list] = (-1, [])
        self.dtype = torch.bfloat16 if config.bfloat16 else torch.float32

    def steps_per_epoch(self) -> int:
        return len(self._order(0))

    def _order(self, epoch: int) -> list:
        if self._epoch[0] != epoch:
            config = self.config
            self._epoch = epoch, epoch_order(self.examples.frames, config.batch_frames, config.shards, config.seed, epoch)
            if not self._epoch[1]:
                raise TrainingError(
                    f"{len(self.examples)} utterances do not fill one step of {config.shards} x {config.batch_frames} frames"
                )
        return self._epoch[1]

    def _rows(self, shard: int) -> np.ndarray:
        # epochs may differ by a step, so walk; an epoch is seldom more than a few dozen
        epoch, at = 0, self.step
        sizes = self._sizes
        while True:
            if epoch == len(sizes):
                sizes.append(len(self._order(epoch)))
            if at < sizes[epoch]:
                return self._order(epoch)[at][shard]
            at -= sizes[epoch]
            epoch += 1

    @property
    def _sizes(self) -> list[int]:
        return self.__dict__.setdefault("_epoch_sizes", [])

    def accumulate(self, shard: int) -> tuple[float, int]:
        """Add the gradient of one shard of this step to ``gradient``; return (RNN-T loss summed, utterances)."""
        config = self.config
        self.model.train()
        batch = self.examples.batch(self._rows(shard), np.random.default_rng([config.seed, 7, self.step, shard]))
        torch.manual_seed(int(np.random.SeedSequence([config.seed, 13, self.step, shard]).generate_state(1, np.uint64)[0] >> 1))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            encoded, lengths = self.model.encoder(batch.features, batch.lengths)
            frames = self.model.joint.encoder(encoded)
            predictions = self.model.predictions(batch.tokens.T)
        output = self.model.joint.output
        loss = joint_loss(
            frames.float().transpose(0, 1),
            predictions.float().transpose(0, 1),
            output.weight,
            output.bias,
            batch.tokens,
            lengths,
            batch.token_counts,
            self.dtype,
        ).sum()
        total = loss + config.ctc * self.side(encoded.float(), lengths, batch) if config.ctc else loss
        (total / len(batch)).backward()
        return float(loss.detach()), len(batch)

    def update(self) -> None:
        """One optimiser step on ``gradient`` (summed over shards), which is then zero."""
        self.gradient.div_(self.config.shards)
        norm = float(self.gradient.norm())
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient of step {self.step} is not finite: lower the learning rate")
        if norm > self.config.clip:
            self.gradient.mul_(self.config.clip / norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimiser.step()
        self.gradient.zero_()
        self.step += 1

    def save(self, path: Path) -> None:
        tensors: dict[str, Any] = dict(self.named)
        for name, p in self.named.items():
            for key, value in self.optimiser.state[p].items():
                tensors[f"optimiser.{key}.{name}"] = value
        checkpoint.save(
            path, tensors, {"kind": STATE_KIND, "step": self.step, "config": self.config.to_json(), "corpus": self._corpus()}
        )

    def restore(self, path: Path) -> None:
        """Go on from ``path``.  CheckpointError: unreadable; TrainingError: of another configuration or corpus."""
        state = checkpoint.load(path, STATE_KIND)
        if state.metadata["config"] != self.config.to_json() or state.metadata["corpus"] != self._corpus():
            raise TrainingError(
                f"{path} belongs to another training run (other settings or corpus); remove it or choose another output"
            )
        with torch.no_grad():
            for name, p in self.named.items():
                p.copy_(torch.from_numpy(state.tensors[name]))
                self.optimiser.state[p] = {
                    key: torch.from_numpy(state.tensors[f"optimiser.{key}.{name}"].copy())
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        self.step = state.metadata["step"]

    def _corpus(self) -> dict:
        return {
            "utterances": len(self.examples),
            "frames": int(self.examples.frames.sum()),
            "recipe": self.examples.split.recipe.to_json(),
        }


# ---- processes


@frozen
class Job:
    """What a rank is told.  ``every``: steps between checkpoints; ``dev_every``: between word error rates on ``dev_utterances``."""

    config: TrainConfig
    corpus: str
    out: str
    every: int = 100
    dev_every: int = 400
    dev_utterances: int = 200

    def to_json(self) -> dict:
        return {**asdict(self), "config": self.config.to_json()}

    @classmethod
    def from_json(cls, data: dict) -> Job:
        return cls(**{**data, "config": TrainConfig.from_json(data["config"])})

    @property
    def state(self) -> Path:
        return Path(self.out + ".part")


def _prepare(job: Job) -> tuple[Trainer, Split]:
    train = load_split(job.corpus, "train")
    if job.config.train_utterances is not None:
        train = train.first(job.config.train_utterances)
    tokens: Tokens = word_pieces(train.texts, job.config.model.vocabulary) if job.config.tokens == "pieces" else LETTERS
    if tokens.count != job.config.model.vocabulary:
        raise TrainingError(f"the network has {job.config.model.vocabulary} tokens, {job.config.tokens} are {tokens.count}")
    return Trainer(job.config, Examples(train, tokens, train.normalisation())), load_split(job.corpus, "dev").first(
        job.dev_utterances
    )


def run_rank(job: Job, rank: int, world: int, report: Callable[[dict], None]) -> None:
    """Train as one of ``world`` processes.  ``report`` is told of every step (rank 0 only)."""
    torch.set_num_threads(1)
    config = job.config
    if config.shards % world:
        raise TrainingError(f"{config.shards} shards cannot be shared by {world} processes")
    trainer, dev = _prepare(job)
    examples = trainer.examples
    if job.state.exists():
        trainer.restore(job.state)
    if rank == 0:
        report(
            {
                "parameters": parameter_count(trainer.model),
                "step": trainer.step,
                "epoch_steps": trainer.steps_per_epoch(),
                "bfloat16": config.bfloat16,
            }
        )
    while trainer.step < config.steps:
        sums = torch.zeros(2, dtype=torch.float64)
        for shard in range(rank, config.shards, world):
            sums += torch.tensor(trainer.accumulate(shard), dtype=torch.float64)
        if world > 1:
            torch.distributed.all_reduce(trainer.gradient)
            torch.distributed.all_reduce(sums)
        trainer.update()
        if rank:
            continue
        line = {"step": trainer.step, "loss": float(sums[0] / sums[1])}
        if trainer.step % job.dev_every == 0 and trainer.step < config.steps:
            line["dev"] = evaluate(trainer.model, dev, examples.normalisation, examples.tokens)[0].rate
        if trainer.step % job.every == 0:
            trainer.save(job.state)
        report(line)
    if rank == 0:
        _finish(job, trainer, report)


def _finish(job: Job, trainer: Trainer, report: Callable[[dict], None]) -> None:
    examples = trainer.examples
    errors = evaluate(trainer.model, load_split(job.corpus, "dev"), examples.normalisation, examples.tokens)[0]
    report({"step": trainer.step, "dev": errors.rate})
    save_recogniser(
        job.out,
        Recogniser(
            trainer.model,
            examples.split.recipe.features,
            examples.normalisation,
            examples.tokens,
            {"config": job.config.to_json(), "steps": trainer.step, "dev_wer": round(errors.rate, 3), "corpus": trainer._corpus()},
        ),
    )
    job.state.unlink(missing_ok=True)


def train(
    corpus: str | os.PathLike,
    out: str | os.PathLike,
    config: TrainConfig | None = None,
    processes: int | None = None,
    quiet: bool = False,
    every: int = 100,
    dev_every: int | None = None,
) -> list[dict]:
    """Train a recogniser on a corpus directory and write it to ``out``; return what was reported (steps, losses, dev WER).

    processes  at most ``config.shards``; default: as many as there are cores.  The number does not change the result (of 2 shards).
    Resumes from ``out.part`` if an earlier call was stopped; does nothing but report if ``out`` is complete already.
    Errors  CorpusError, CheckpointError, TrainingError: one line each.
    """
    config = config or TrainConfig()
    if config.bfloat16 is None:
        config = TrainConfig.from_json({**config.to_json(), "bfloat16": has_bfloat16()})
    out = Path(out)
    if out.exists():
        done = checkpoint.load(out).metadata.get("training", {})
        if done.get("config") != config.to_json():
            raise TrainingError(f"{out} was trained with other settings; remove it or choose another output")
        return [{"step": done["steps"], "dev": done["dev_wer"]}]
    dev_every = dev_every or max(100, config.steps // 8)
    job = Job(config, str(corpus), str(out), every, dev_every)
    processes = min(processes or os.cpu_count() or 1, config.shards)
    while config.shards % processes:
        processes -= 1
    reports: list[dict] = []
    with progress("training", config.steps, quiet) as advance:
        seen, dev, loss = 0, "", 0.0

        def report(line: dict) -> None:
            nonlocal seen, dev, loss
            reports.append(line)
            if "loss" in line:
                loss = line["loss"] if not loss else 0.98 * loss + 0.02 * line["loss"]
            if "dev" in line:
                dev = f", dev WER {line['dev']:.1f} % at step {line['step']}"
            advance(line["step"] - seen, f"loss {loss:.2f}{dev}" if loss else "")
            seen = line["step"]

        if processes == 1:
            threads = torch.get_num_threads()
            try:
                run_rank(job, 0, 1, report)
            finally:
                torch.set_num_threads(threads)
        else:
            _run_processes(job, processes, report)
    return reports


def _run_processes(job: Job, world: int, report: Callable[[dict], None]) -> None:
    """``world`` fresh programs; rank 0 reports JSON lines on its stdout.  When this one dies, so do they: at the broken pipe."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(job.to_json()))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "WORLD_SIZE": str(world),
            "NNAC_RENDEZVOUS": f"file://{folder}/store",
        }
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: do not depend on its name's address
        command = [sys.executable, "-m", "nnac.train.baseline", f"{folder}/job.json"]
        ranks: list[subprocess.Popen] = []
        try:
            for rank in range(world):
                with open(f"{folder}/stderr{rank}", "wb") as log:
                    out = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
                    own = {**environment, "RANK": str(rank)}
                    ranks.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=own, text=True))
            assert ranks[0].stdout is not None
            for line in ranks[0].stdout:
                if not line.startswith("{"):  # a library's chatter
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
    """One rank: of `train` above, or of ``torchrun -m nnac.train.baseline JOB.json``."""
    from ..checkpoint import CheckpointError
    from ..speech.corpus import CorpusError

    job = Job.from_json(json.loads(Path(path).read_text()))
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=os.environ.get("NNAC_RENDEZVOUS", "env://"), rank=rank, world_size=world
        )
    try:
        run_rank(job, rank, world, lambda line: print(json.dumps(line), flush=True))
    except (CheckpointError, CorpusError, TrainingError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
