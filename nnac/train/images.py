"""Classifiers of images: a deep sparse network learns under a policy, in the machine's integers from the first step.
The loop: `nnac.train.loop`.

    `PolicyTask`: a plan and labelled images in, a training module out (`nnac train POLICY --images`)
There is no float network before: the places of the weights are the model's, and the weights start at random.  Every
fifth image is held back, and errors are those of held images.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import gt
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from nnac import checkpoint
from nnac.checked import checked, settings
from nnac.decode.tensors import BATCH, FEATURES, Argument, Result, TensorEnd
from nnac.images import Labelled, images
from nnac.lower import lower_plan
from nnac.plan import Plan
from nnac.train import loop
from nnac.train.families import module_of
from nnac.train.families.sparse_dnn import SparseDnn, initial
from nnac.train.pace import Pace, Run
from nnac.train.policy import ModuleLearner, PolicyConfig, save_module
from nnac.train.processes import TrainingError

HELD = 5                       # every so many images one is held back


@frozen
class ImagePolicyConfig(PolicyConfig):
    """Training on images; ``calibration``: images whose activations set the scales."""

    steps: int = field(default=1000, validator=gt(0))
    batch_frames: int = field(default=64, validator=gt(0))         # images in a shard
    shards: int = 1
    learning_rate: float = field(default=3e-3, validator=gt(0.0))


@frozen(eq=False)
class ImageBatch:
    """pixels [B, neurons], labels [B]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on another device."""
        return ImageBatch(self.pixels.to(device), self.labels.to(device))


@frozen(eq=False)
class ImageExamples:
    """Images ready to be batched; ``classes``: of all images, held ones included."""

    images: Labelled
    classes: int

    @property
    def frames(self) -> NDArray:
        return np.ones(len(self.images), np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of what it was trained on."""
        return {"images": len(self), "digest": self.images.digest}

    def batch(self, rows: NDArray, augment: Generator | None = None) -> ImageBatch:
        return ImageBatch(torch.from_numpy(self.images.pixels[rows].astype(np.float32)),
                          torch.from_numpy(self.images.labels[rows]))


class ImageLearner(ModuleLearner):
    """A classifier under a policy."""

    model: SparseDnn

    def __init__(self, module: SparseDnn, classes: int, steps: int, steps_per_epoch: int) -> None:
        super().__init__(module, steps, steps_per_epoch)
        self.classes = classes

    def loss(self, batch: ImageBatch) -> tuple[Tensor, float]:
        loss = self.model.loss(self.model.scores(batch.pixels, self.classes), batch.labels)
        return loss + self.compression.regulariser() * len(batch), float(loss.detach())

    @torch.no_grad()
    def evaluate(self, dev: ImageExamples) -> float:
        was_training = self.model.training
        self.model.eval()
        try:
            device, wrong = next(self.model.parameters()).device, 0
            for first in range(0, len(dev), 500):
                batch = dev.batch(np.arange(first, min(first + 500, len(dev)))).to(device)
                wrong += int((self.model.scores(batch.pixels, self.classes).argmax(1) != batch.labels).sum())
        finally:
            self.model.train(was_training)
        return 100.0 * wrong / max(1, len(dev))


@frozen
class PolicyTask:
    """Train under ``plan`` on ``images`` (as `nnac.images.images` takes them) into ``out``."""

    plan: Plan
    config: ImagePolicyConfig
    images: str
    out: str
    kind: ClassVar[str] = "images-policy"
    measure: ClassVar[str] = "dev errors {:.2f} %"

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict[str, Any]:
        return {"plan": self.plan.to_json(), "config": settings(self.config), "images": self.images, "out": self.out}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PolicyTask:
        return checked(cls, data, "task")

    def identity(self) -> dict[str, Any]:
        return {"config": settings(self.config), "plan": self.plan.digest,
                "images": images(self.images, self.neurons).digest}

    @property
    def neurons(self) -> int:
        width, = self.plan.graph.inputs.values()
        return width

    def look(self) -> None:
        images(self.images, self.neurons)

    def prepare(self) -> tuple[ImageLearner, ImageExamples, ImageExamples]:
        torch.manual_seed(self.config.seed)
        if module_of(self.plan.model.builder) is not SparseDnn:
            raise TrainingError(f"the policy's `model {self.plan.model}` is no network of images; they train `model "
                                f"sparse_dnn(…)`")
        every = images(self.images, self.neurons)
        held = np.arange(len(every)) % HELD == HELD - 1
        classes = int(every.labels.max()) + 1
        if classes > self.neurons or not held.any():
            raise TrainingError(f"{self.images}: {len(every)} images of {classes} classes do not train {self.neurons} "
                                f"neurons")
        train, dev = (ImageExamples(Labelled(every.pixels[rows], every.labels[rows]), classes)
                      for rows in (~held, held))
        graph = lower_plan(self.plan)
        module = SparseDnn(graph, initial(graph, self.config.seed), self.plan)
        module.calibrate([(train.batch(np.arange(min(self.config.calibration, len(train)))).pixels,)], alike=True)
        per_epoch = max(1, len(train) // (self.config.batch_frames * self.config.shards))
        return ImageLearner(module, classes, self.config.steps, per_epoch), train, dev

    def finish(self, learner: ImageLearner, examples: ImageExamples, report: dict[str, Any]) -> dict[str, Any]:
        training = dict(steps=report["step"], dev_errors=round(report["dev"], 3), classes=learner.classes,
                        **report["identity"])
        out, = learner.model.graph.outputs.values()
        end = TensorEnd((Argument("image", False, (BATCH,), self.neurons),),
                        (Result(out[0], ((BATCH,), (FEATURES,))),), False)
        save_module(self.out, learner.model, self.plan, end, training)
        return {}


def policy_task(plan: Plan, name: str, out: str | os.PathLike[str],
                config: ImagePolicyConfig | None = None) -> PolicyTask:
    """The task with everything decided."""
    return PolicyTask(plan, config or ImagePolicyConfig.of(plan), name, str(out))


def train(task: PolicyTask, title: str, processes: int | None = None, quiet: bool = False,
          run: Run | None = None) -> list[dict]:
    """Do ``task``; returns what was reported.  Resumes, and repeats nothing that is done.  TrainingError where ``out``
    is of another task.

    processes, run, errors: as `loop.train`
    """
    if Path(task.out).exists():
        done = checkpoint.load(task.out).metadata.get("training", {})
        if {k: done.get(k) for k in task.identity()} != task.identity():
            raise TrainingError(f"{task.out} was trained with other settings; remove it or choose another output")
        return [{"step": done["steps"], "dev": done["dev_errors"]}]
    return loop.train(task, title, processes, quiet, run or Run(every=200))
