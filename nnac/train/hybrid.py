"""Hybrids: the acoustic model learns the state of every frame, in real numbers and then under a policy in the machine's
integers.  The loop: `nnac.train.loop`.

    float    `FloatTask`: a corpus and its alignments in, a float network out (`nnac baseline --alignments`)
    policy   `PolicyTask`: that network and a plan in, a training module out (`nnac train POLICY --alignments`)
The loss is the cross entropy of the states, and both are judged by the share of frames whose likeliest state is another
one: words need a decoding graph (`nnac run --graph`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge
from torch import Tensor

from nnac import checkpoint
from nnac.checked import checked, settings
from nnac.decode import acoustic
from nnac.decode.acoustic import Acoustic
from nnac.files import check_source
from nnac.hybrid import alignments
from nnac.hybrid.alignments import Alignments
from nnac.hybrid.scores import Hmm
from nnac.lower import lower_plan
from nnac.model.hybrid_torch import HybridConfig, HybridNetwork, cross_entropy
from nnac.plan import Plan
from nnac.speech.corpus import load_split, utterances
from nnac.speech.features import Normalisation
from nnac.train import loop
from nnac.train.baseline import DEV_UTTERANCES, has_bfloat16
from nnac.train.batches import grouped
from nnac.train.families.hybrid import Hybrid
from nnac.train.frames import AlignedExamples, FrameBatch
from nnac.train.module import FloatWeightsError
from nnac.train.pace import Pace, Run
from nnac.train.policy import ModuleLearner, PolicyConfig, save_module
from nnac.train.processes import TrainingError

FRAME_ERRORS = "dev frame errors {:.1f} %"
BATCH = 8000                   # frames of a batch when a model is judged


@torch.no_grad()
def frame_errors(model: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], dev: AlignedExamples) -> float:
    """Per cent of the frames whose likeliest state is not the aligned one.  The model's mode is left as it was."""
    assert isinstance(model, torch.nn.Module)
    device, was_training, wrong, total = next(model.parameters()).device, model.training, 0, 0
    model.eval()
    try:
        for rows in grouped(dev.frames, BATCH):
            batch = dev.batch(rows).to(device)
            best = model(batch.features, batch.lengths)[0].argmax(-1)
            known = batch.labels != alignments.NONE
            wrong, total = wrong + int(((best != batch.labels) & known).sum()), total + int(known.sum())
    finally:
        model.train(was_training)
    return 100.0 * wrong / max(1, total)


def _examples(corpus: str, split: str, found: Alignments, path: str, first: int | None, stack: int,
              normalisation: Normalisation | None = None) -> AlignedExamples:
    """``normalisation``: None: the split's own.  AlignmentError, TrainingError: labels of another corpus, or of another
    number of frames."""
    if found.stack != stack:
        raise TrainingError(f"{path}: a label is {found.stack} frames of 10 ms, a step of the network {stack}: align "
                            f"with --stack {stack}")
    whole = load_split(corpus, split)
    labels = found.of(whole, path)                   # of the whole split: so another corpus is seen
    part = whole if first is None else whole.first(first)
    return AlignedExamples(part, normalisation or whole.normalisation(), labels[:len(part)],
                           checkpoint.digest_of(path))


# ------------------------------------------------------------------------------------------------------ in real numbers

@frozen
class HybridTraining(Pace):
    """Everything the float network's weights depend on, besides the corpus and its alignment."""

    steps: int = field(default=1600, validator=ge(1))
    model: HybridConfig = field(factory=HybridConfig)
    train_utterances: int | None = None
    bfloat16: bool | None = None                                   # None: where the processor has it

    def to_json(self) -> dict[str, Any]:
        return settings(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HybridTraining:
        """ValueError: what is wrong with it."""
        return checked(cls, data, "config")


class FloatLearner(loop.Unscheduled):
    """The float network."""

    def __init__(self, config: HybridTraining, start: Acoustic | None = None) -> None:
        torch.manual_seed(config.seed)
        self.model = HybridNetwork(config.model)
        if start is not None:
            self.model.load_state_dict(start.model.state_dict())
        self.named = dict(self.model.named_parameters())
        self.dtype = torch.bfloat16 if config.bfloat16 else torch.float32

    def loss(self, batch: FrameBatch) -> tuple[Tensor, float]:
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            scores, _ = self.model(batch.features, batch.lengths)
        loss = cross_entropy(scores, batch.labels)
        return loss, float(loss.detach())

    def evaluate(self, dev: AlignedExamples) -> float:
        return frame_errors(self.model, dev)

    def to(self, device: torch.device) -> None:
        self.model.to(device)


@frozen
class FloatTask:
    """Train the float network on ``corpus`` with ``alignment`` into ``out``; ``start``: a network to go on from ("":
    none), of the same inventory."""

    config: HybridTraining
    corpus: str
    alignment: str
    out: str
    start: str = ""
    kind: ClassVar[str] = "hybrid-float"
    measure: ClassVar[str] = FRAME_ERRORS

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict[str, Any]:
        return {"config": self.config.to_json(), "corpus": self.corpus, "alignment": self.alignment, "out": self.out,
                "start": self.start}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FloatTask:
        return checked(cls, data, "task")

    def identity(self) -> dict[str, Any]:
        return {"config": self.config.to_json(), "alignment": checkpoint.digest_of(self.alignment)} | (
            {"start": checkpoint.digest_of(self.start)} if self.start else {})

    def look(self) -> None:
        check_source(self.alignment)
        utterances(self.corpus, "train")

    def prepare(self) -> tuple[FloatLearner, AlignedExamples, AlignedExamples]:
        config, found = self.config, alignments.load(self.alignment)
        if found.inventory.count != config.model.states:
            raise TrainingError(f"the network has {config.model.states} states, {self.alignment} {found.inventory}")
        start = acoustic.load(self.start) if self.start else None
        if start is not None and (start.hmm.inventory != found.inventory or start.model.config != config.model):
            raise TrainingError(f"{self.start} is of other states or sizes than {self.alignment}")
        stack = config.model.stack
        examples = _examples(self.corpus, "train", found, self.alignment, config.train_utterances, stack)
        dev = _examples(self.corpus, "dev", found, self.alignment, DEV_UTTERANCES, stack, examples.normalisation)
        return FloatLearner(config, start), examples, dev

    def finish(self, learner: FloatLearner, examples: AlignedExamples, report: dict[str, Any]) -> dict[str, Any]:
        found = alignments.load(self.alignment)
        training = dict(report["identity"], steps=report["step"], dev_frame_errors=round(report["dev"], 3))
        hmm = Hmm(found.inventory, found.counts().tolist())
        Acoustic(learner.model, examples.split.recipe.features, examples.normalisation, hmm, training).save(self.out)
        return {}


def float_task(corpus: str | os.PathLike[str], alignment: str | os.PathLike[str], out: str | os.PathLike[str],
               config: HybridTraining | None = None, start: str | os.PathLike[str] = "",
               device: str = "cpu") -> FloatTask:
    """The task with everything decided: the alignment says how many states there are and how many frames a step."""
    config, found = config or HybridTraining(), alignments.load(alignment)
    if config.bfloat16 is None:
        config = evolve(config, bfloat16=has_bfloat16(device))
    model = evolve(config.model, states=found.inventory.count, stack=found.stack)
    return FloatTask(evolve(config, model=model), str(corpus), str(alignment), str(out), str(start))


# ------------------------------------------------------------------------------------------------------- under a policy

class HybridLearner(ModuleLearner):
    """A hybrid under a policy."""

    model: Hybrid

    def loss(self, batch: FrameBatch) -> tuple[Tensor, float]:
        loss = self.model.loss(self.model(batch.features, batch.lengths)[0], batch.labels)
        return loss + self.compression.regulariser() * len(batch), float(loss.detach())

    def evaluate(self, dev: AlignedExamples) -> float:
        return frame_errors(self.model, dev)


def build_module(plan: Plan, network: Acoustic) -> Hybrid:
    """The training module of ``plan`` on the weights of a float network.  TrainingError if they are not of one
    model."""
    try:
        return Hybrid(lower_plan(plan), network.model.state_dict(), plan)
    except FloatWeightsError as error:
        raise TrainingError(f"{error}; the policy says `model {plan.model}`") from None


@frozen
class PolicyTask:
    """Train ``float_path`` under ``plan`` on ``corpus`` with ``alignment`` into ``out``."""

    plan: Plan
    config: PolicyConfig
    float_path: str
    corpus: str
    alignment: str
    out: str
    kind: ClassVar[str] = "hybrid-policy"
    measure: ClassVar[str] = FRAME_ERRORS

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict[str, Any]:
        return {"plan": self.plan.to_json(), "config": settings(self.config), "float_path": self.float_path,
                "corpus": self.corpus, "alignment": self.alignment, "out": self.out}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PolicyTask:
        return checked(cls, data, "task")

    def identity(self) -> dict[str, Any]:
        return {"config": settings(self.config), "plan": self.plan.digest,
                "float": checkpoint.digest_of(self.float_path), "alignment": checkpoint.digest_of(self.alignment)}

    def look(self) -> None:
        check_source(self.float_path)
        check_source(self.alignment)
        utterances(self.corpus, "train")

    def prepare(self) -> tuple[HybridLearner, AlignedExamples, AlignedExamples]:
        torch.manual_seed(self.config.seed)
        network, found = acoustic.load(self.float_path), alignments.load(self.alignment)
        if network.hmm.inventory != found.inventory:
            raise TrainingError(f"{self.float_path} has other states than {self.alignment}: its outputs are not these "
                                f"labels")
        stack, norm = network.model.config.stack, network.normalisation
        examples = _examples(self.corpus, "train", found, self.alignment, self.config.train_utterances, stack, norm)
        dev = _examples(self.corpus, "dev", found, self.alignment, DEV_UTTERANCES, stack, norm)
        module = build_module(self.plan, network)
        some = evolve(examples, split=examples.split.first(self.config.calibration))
        batches = [some.batch(rows) for rows in grouped(some.frames, BATCH)]
        module.calibrate(((b.features, b.lengths) for b in batches), alike=True)
        per_epoch = max(1, int(examples.frames.sum()) // (self.config.batch_frames * self.config.shards))
        return HybridLearner(module, self.config.steps, per_epoch), examples, dev

    def finish(self, learner: HybridLearner, examples: AlignedExamples, report: dict[str, Any]) -> dict[str, Any]:
        network = acoustic.load(self.float_path)
        training = dict(steps=report["step"], dev_frame_errors=round(report["dev"], 3), baseline=network.training,
                        **report["identity"])
        save_module(self.out, learner.model, self.plan, network.front, training)
        return {}


def policy_task(plan: Plan, float_path: str | os.PathLike[str], corpus: str | os.PathLike[str],
                alignment: str | os.PathLike[str], out: str | os.PathLike[str],
                config: PolicyConfig | None = None) -> PolicyTask:
    """The task with everything decided."""
    return PolicyTask(plan, config or PolicyConfig.of(plan), str(float_path), str(corpus), str(alignment), str(out))


def train(task: FloatTask | PolicyTask, title: str, processes: int | None = None, quiet: bool = False,
          run: Run | None = None) -> list[dict]:
    """Do ``task``; returns what was reported.  Resumes, and repeats nothing that is done.  TrainingError where ``out``
    is of another task.

    processes, run, errors: as `loop.train`
    """
    if Path(task.out).exists():
        done = checkpoint.load(task.out).metadata.get("training", {})
        if {k: done.get(k) for k in task.identity()} != task.identity():
            raise TrainingError(f"{task.out} was trained with other settings; remove it or choose another output")
        return [{"step": done["steps"], "dev": done["dev_frame_errors"]}]
    return loop.train(task, title, processes, quiet, run or Run(every=50))
