"""Language models: trained on text in real numbers, and then under a policy in the machine's integers.  The loop:
`nnac.train.loop`.

    float    `FloatTask`: sentences in, a float network and its tokens out (`nnac baseline --text`)
    policy   `PolicyTask`: that network and a plan in, a training module out (`nnac train POLICY --text`)
Both are judged by perplexity: e to the cross entropy of a label, the end of a sentence counted as one, on sentences
held back.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt
from numpy.typing import NDArray
from torch import Tensor

from nnac import checkpoint
from nnac.checked import checked, settings
from nnac.checkpoint import CheckpointError
from nnac.decode.front_end import TextEnd
from nnac.decode.fusion import real_rows
from nnac.decode.recogniser import load_recogniser
from nnac.files import check_source
from nnac.lower import lower_plan
from nnac.model.graph import ModelError
from nnac.model.lm_torch import LanguageNetwork, LmConfig, cross_entropy
from nnac.plan import Plan
from nnac.speech.tokens import Tokens, word_pieces
from nnac.train import loop
from nnac.train.batches import grouped
from nnac.train.families.lm import LanguageModel
from nnac.train.module import FloatWeightsError
from nnac.train.pace import Pace, Run
from nnac.train.policy import ModuleLearner, PolicyConfig, save_module
from nnac.train.processes import TrainingError
from nnac.train.sentences import SentenceBatch, Sentences, divided, read_sentences

KIND = "lm-float"
PERPLEXITY = "dev perplexity {:.3f}"
BATCH = 4000                   # labels of a batch when a model is judged


@torch.no_grad()
def perplexity(model: Callable[[Tensor], Tensor], dev: Sentences) -> float:
    """e to the mean cross entropy of a label: of a network or a module that returns log-probabilities of labels.  Its
    mode is left as it was."""
    assert isinstance(model, torch.nn.Module)
    device, was_training, total = next(model.parameters()).device, model.training, 0.0
    model.eval()
    try:
        for rows in grouped(dev.frames, BATCH):
            batch = dev.batch(rows).to(device)
            total += float(cross_entropy(model(batch.labels), batch.labels, batch.counts).double().sum())
    finally:
        model.train(was_training)
    return math.exp(total / dev.labels)


# ------------------------------------------------------------------------------------------------------ in real numbers

@frozen
class LmTraining(Pace):
    """Everything the float network's weights depend on, besides the text."""

    steps: int = field(default=1000, validator=ge(1))
    batch_frames: int = field(default=2000, validator=gt(0))       # labels in a shard, padding included
    model: LmConfig = field(factory=LmConfig)

    def to_json(self) -> dict[str, Any]:
        return settings(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LmTraining:
        """ValueError: everything that is wrong with it."""
        return checked(cls, data, "config")


@frozen(eq=False)
class FloatLm:
    """A float network with its tokens, as one checkpoint file."""

    model: LanguageNetwork
    tokens: Tokens
    training: dict[str, Any] = field(factory=dict)

    def start(self) -> tuple[NDArray, tuple[NDArray, ...]]:
        """As `nnac.decode.fusion.LanguageModel` wants it: what follows the edge, and the state after it."""
        return self._step(np.zeros(1, np.int64), None)

    def step(self, tokens: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, tuple[NDArray, ...]]:
        """Likewise.  Real sums, rounded: reproducible on one machine only."""
        parts = [torch.from_numpy(np.ascontiguousarray(s))[None] for s in state]
        return self._step(tokens, list(zip(parts[::2], parts[1::2], strict=True)))

    @torch.no_grad()
    def _step(self, tokens: NDArray, state: list[tuple[Tensor, Tensor]] | None) -> tuple[NDArray, tuple[NDArray, ...]]:
        logits, after = self.model.lm(torch.from_numpy(np.asarray(tokens, np.int64))[None], state)
        return real_rows(logits[0].numpy()), tuple(part[0].numpy() for pair in after for part in pair)

    def save(self, path: str | os.PathLike[str]) -> None:
        checkpoint.save(path, self.model.state_dict(), dict(kind=KIND, model=self.model.config.to_json(),
                                                            tokens=self.tokens.to_json(),
                                                            training=self.training))


def load_float(path: str | os.PathLike[str]) -> FloatLm:
    """In evaluation mode.  CheckpointError: absent, damaged, of another kind, or tensors that do not fit the declared
    sizes."""
    file = checkpoint.load(path, KIND)
    try:
        model, tokens = (LanguageNetwork(LmConfig.from_json(file.metadata["model"])),
                         Tokens.from_json(file.metadata["tokens"]))
        if model.config.vocabulary != tokens.count:
            raise ValueError(f"a network of {model.config.vocabulary} labels and {tokens.count} tokens")
        state = file.state_dict()
        if not all(bool(v.isfinite().all()) for v in state.values()):
            raise ValueError("weights that are not finite numbers")
        model.load_state_dict(state)
        return FloatLm(model.eval(), tokens, file.metadata.get("training", {}))
    except (KeyError, TypeError, ValueError, RuntimeError, ModelError) as error:
        raise CheckpointError(f"{path}: does not describe a language model: "
                              f"{' '.join(str(error).split())[:200]}") from None


class FloatLearner(loop.Unscheduled):
    """The float network."""

    def __init__(self, config: LmTraining) -> None:
        torch.manual_seed(config.seed)
        self.model = LanguageNetwork(config.model)
        self.named = dict(self.model.named_parameters())

    def loss(self, batch: SentenceBatch) -> tuple[Tensor, float]:
        loss = cross_entropy(self.model(batch.labels), batch.labels, batch.counts).sum()
        return loss, float(loss.detach())

    def evaluate(self, dev: Sentences) -> float:
        return perplexity(self.model, dev)

    def to(self, device: torch.device) -> None:
        self.model.to(device)


@frozen
class FloatTask:
    """Train a float network on the sentences of ``text`` into ``out``; ``tokens``: a recogniser whose labels it takes
    ("": its own)."""

    config: LmTraining
    text: str
    out: str
    tokens: str = ""
    kind: ClassVar[str] = "lm-float"
    measure: ClassVar[str] = PERPLEXITY

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict[str, Any]:
        return {"config": self.config.to_json(), "text": self.text, "out": self.out, "tokens": self.tokens}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FloatTask:
        return checked(cls, data, "task")

    def identity(self) -> dict[str, Any]:
        return {"config": self.config.to_json()} | ({"tokens": checkpoint.digest_of(self.tokens)} if self.tokens
                                                    else {})

    def look(self) -> None:
        read_sentences(self.text)

    def prepare(self) -> tuple[FloatLearner, Sentences, Sentences]:
        texts = read_sentences(self.text)
        train, held = divided(texts)
        tokens = load_recogniser(self.tokens).tokens if self.tokens else word_pieces(texts,
            self.config.model.vocabulary)
        if tokens.count != self.config.model.vocabulary:
            raise TrainingError(f"the network has {self.config.model.vocabulary} labels, {self.tokens or 'the text'} "
                                f"gives {tokens.count}")
        return FloatLearner(self.config), Sentences(train, tokens, self.text), Sentences(held, tokens, self.text)

    def finish(self, learner: FloatLearner, examples: Sentences, report: dict[str, Any]) -> dict[str, Any]:
        training = dict(report["identity"], steps=report["step"], dev_perplexity=round(report["dev"], 4))
        FloatLm(learner.model, examples.tokens, training).save(self.out)
        return {}


def float_task(text: str | os.PathLike[str], out: str | os.PathLike[str], config: LmTraining | None = None,
               tokens: str | os.PathLike[str] = "") -> FloatTask:
    """The task with everything decided: labels of ``tokens``, a recogniser's file, decide the vocabulary."""
    config = config or LmTraining()
    if tokens:
        config = evolve(config, model=evolve(config.model, vocabulary=load_recogniser(tokens).tokens.count))
    return FloatTask(config, str(text), str(out), str(tokens))


# ------------------------------------------------------------------------------------------------------- under a policy

class LmLearner(ModuleLearner):
    """A language model under a policy."""

    model: LanguageModel

    def loss(self, batch: SentenceBatch) -> tuple[Tensor, float]:
        loss = self.model.loss(self.model(batch.labels), batch.labels, batch.counts)
        return loss + self.compression.regulariser() * len(batch), float(loss.detach())

    def evaluate(self, dev: Sentences) -> float:
        return perplexity(self.model, dev)


@frozen
class LmPolicyConfig(PolicyConfig):
    """A fine-tune on text."""

    batch_frames: int = field(default=2000, validator=gt(0))       # labels in a shard, padding included


@frozen
class PolicyTask:
    """Train the language model of ``float_path`` under ``plan`` on the sentences of ``text`` into ``out``."""

    plan: Plan
    config: LmPolicyConfig
    float_path: str
    text: str
    out: str
    kind: ClassVar[str] = "lm-policy"
    measure: ClassVar[str] = PERPLEXITY

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict[str, Any]:
        return {"plan": self.plan.to_json(), "config": settings(self.config), "float_path": self.float_path,
                "text": self.text, "out": self.out}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PolicyTask:
        return checked(cls, data, "task")

    def identity(self) -> dict[str, Any]:
        return {"config": settings(self.config), "plan": self.plan.digest,
                "float": checkpoint.digest_of(self.float_path)}

    def look(self) -> None:
        check_source(self.float_path)
        read_sentences(self.text)

    def prepare(self) -> tuple[LmLearner, Sentences, Sentences]:
        torch.manual_seed(self.config.seed)
        source = load_float(self.float_path)
        train, held = divided(read_sentences(self.text))
        examples, dev = Sentences(train, source.tokens, self.text), Sentences(held, source.tokens, self.text)
        if self.plan.model.builder != "lm":
            raise TrainingError(f"the policy's `model {self.plan.model}` is no language model; text trains `model "
                                f"lm(…)`")
        try:
            module = LanguageModel(lower_plan(self.plan), source.model.state_dict(), self.plan)
        except FloatWeightsError as error:
            raise TrainingError(f"{error}; the policy says `model {self.plan.model}`") from None
        some = Sentences(train[:self.config.calibration], source.tokens, self.text)
        module.calibrate([(some.batch(rows).labels,) for rows in grouped(some.frames, BATCH)], alike=True)
        per_epoch = max(1, examples.labels // (self.config.batch_frames * self.config.shards))
        return LmLearner(module, self.config.steps, per_epoch, self.config.learning_rate), examples, dev

    def finish(self, learner: LmLearner, examples: Sentences, report: dict[str, Any]) -> dict[str, Any]:
        source = load_float(self.float_path)
        training = dict(steps=report["step"], dev_perplexity=round(report["dev"], 4), baseline=source.training,
                        **report["identity"])
        save_module(self.out, learner.model, self.plan, TextEnd(source.tokens), training)
        return {}


def policy_task(plan: Plan, float_path: str | os.PathLike[str], text: str | os.PathLike[str],
                out: str | os.PathLike[str],
                config: LmPolicyConfig | None = None) -> PolicyTask:
    """The task with everything decided."""
    return PolicyTask(plan, config or LmPolicyConfig.of(plan), str(float_path), str(text), str(out))


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
        return [{"step": done["steps"], "dev": done["dev_perplexity"]}]
    return loop.train(task, title, processes, quiet, run or Run(every=50))
