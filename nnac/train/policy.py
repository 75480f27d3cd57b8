"""Training under a policy: a float recogniser and a plan in, a training module that computes the NNA's integers out.

The float weights start the training module, real data calibrate its scales, and then every step's forward pass is what
the machine will do.  The checkpoint holds the float weights, scales, learned quantiser parameters and masks, the plan
itself, and the front end (features, normalisation, tokens): all that compiling needs.  The loop: `nnac.train.loop`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from numpy.typing import NDArray
from torch import Tensor, nn

from nnac import checkpoint
from nnac.checked import OPTION, checked, settings
from nnac.checkpoint import CheckpointError
from nnac.decode.front_end import SAVED_DEAF, FrontEnd, TextEnd, end_from_json
from nnac.decode.recogniser import Recogniser, load_recogniser
from nnac.decode.tensors import LabelEnd, TensorEnd
from nnac.errors import ABSURD
from nnac.files import check_source
from nnac.lower import lower_plan
from nnac.plan import Plan
from nnac.speech.corpus import load_split, utterances
from nnac.train import loop
from nnac.train.baseline import DEV_UTTERANCES
from nnac.train.batches import Batch, Examples, grouped
from nnac.train.distil import divergence
from nnac.train.evaluate import WORD_ERRORS, Heard
from nnac.train.families import module_of
from nnac.train.families.rnnt import Transducer
from nnac.train.loop import TrainingError
from nnac.train.module import FloatWeightsError, GraphModule
from nnac.train.pace import Pace, Run
from nnac.train.saved import SavedModel
from nnac.train.schedule import Compression

KIND = checkpoint.MODULE


@frozen
class PolicyConfig(Pace):
    """A fine-tune.  Steps and rate come from the policy's ``training`` block unless the command line says otherwise."""

    steps: int = field(default=400, validator=ge(0))
    learning_rate: float = field(default=3e-4, validator=gt(0.0))
    warmup: int = field(default=50, validator=ge(0))
    flat: float = 0.0
    calibration: int = field(default=128, validator=ge(1))     # utterances
    train_utterances: int | None = None                        # None: all of the split
    # weight of the float network's word (`distil.divergence`)
    distil: float = field(default=0.0, validator=ge(0.0), metadata=OPTION)

    @classmethod
    def of(cls, plan: Plan, **given: Any) -> Self:
        """The plan's own pace, with what is ``given`` (not None) in its place."""
        t = plan.training
        said: dict[str, Any] = dict(steps=t.total, learning_rate=t.learning_rate, warmup=t.warmup, seed=t.seed)
        # None takes nothing back
        known = [(k, v) for source in (said, given) for k, v in source.items() if v is not None]
        return cls(**dict(known))


class ModuleLearner:
    """A training module and its compression schedule: what policies of all families share.  A family adds its loss and
    its measure."""

    def __init__(self, module: GraphModule, steps: int, steps_per_epoch: int,
                 learning_rate: float | None = None) -> None:
        self.model, self.steps = module, steps
        self.named = dict(module.named_parameters())
        self.compression = Compression(module, steps, steps_per_epoch, learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.model.state_dict().items() if k not in self.named and isinstance(v, Tensor)}

    def restore(self, tensors: Mapping[str, NDArray]) -> None:
        state = {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}
        self.model.load_state_dict(state, strict=False)

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def gradient_ready(self) -> dict[str, Any]:
        found = self.compression.weigh()
        return {"pull": found} if found else {}

    def before_step(self, step: int) -> None:
        if step:
            self.compression.on_step(step)
        if step == self.steps:
            self.compression.finish()


class PolicyLearner(ModuleLearner):
    """A recogniser under a policy; ``teacher``: a float network to learn from besides, with this weight."""

    model: Transducer

    def __init__(self, module: Transducer, steps: int, steps_per_epoch: int, teacher: nn.Module | None = None,
                 distil: float = 0.0, learning_rate: float | None = None) -> None:
        super().__init__(module, steps, steps_per_epoch, learning_rate)
        self.teacher, self.distil = teacher, distil

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        logits, lengths = self.model(batch.features, batch.lengths, batch.tokens.T)
        loss = self.model.loss(logits, lengths, batch.tokens.T, batch.token_counts)
        total = loss + self.compression.regulariser() * len(batch)
        if self.teacher is not None:
            # bfloat16 is for the teacher only: the module's own integers need every bit of float32
            with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=batch.features.is_cuda
                                                 and torch.cuda.is_bf16_supported()):
                taught, _ = self.teacher(batch.features, batch.lengths, batch.tokens.T)
            total = total + self.distil * divergence(logits, taught.float(), batch.tokens, lengths,
                                                     batch.token_counts).sum()
        return total, float(loss.detach())

    def evaluate(self, dev: Heard) -> float:
        return dev.word_error_rate(self.model)

    def to(self, device: torch.device) -> None:
        super().to(device)
        if self.teacher is not None:
            self.teacher.to(device)


def front_end(recogniser: Recogniser | SavedModel) -> FrontEnd:
    return FrontEnd(recogniser.features, recogniser.normalisation, recogniser.tokens)


def started(path: str | os.PathLike[str]) -> Recogniser | SavedModel:
    """The float network that training starts from: a recogniser, or what `nnac import` wrote.  CheckpointError."""
    from nnac.model.saved import KIND as SAVED

    return SavedModel.load(path) if checkpoint.load(path).metadata.get("kind") == SAVED else load_recogniser(path)


def build_module(plan: Plan, recogniser: Recogniser | SavedModel) -> Transducer:
    """The training module of ``plan`` on the weights of a float recogniser.  TrainingError if they are not of one
    model."""
    try:
        weights = recogniser.weights if isinstance(recogniser, SavedModel) else recogniser.model.state_dict()
        made = module_of(plan.model.builder)(lower_plan(plan), weights, plan)
        if not isinstance(made, Transducer):
            raise TrainingError(f"the policy says `model {plan.model}`, which is no recogniser")
        return made
    except FloatWeightsError as error:
        raise TrainingError(f"{error}; the policy says `model {plan.model}`") from None


def calibrate(module: Transducer, examples: Examples, utterances: int) -> None:
    """Find the module's scales on the first ``utterances`` of ``examples``."""
    some = Examples(examples.split.first(utterances), examples.tokens, examples.normalisation)
    batches = [some.batch(rows) for rows in grouped(some.frames, 8000)]
    module.calibrate(((b.features, b.lengths, b.tokens.T) for b in batches), alike=True)


@frozen
class PolicyTask:
    """Train ``float_path`` under ``plan`` on ``corpus`` into ``out``."""

    plan: Plan
    config: PolicyConfig
    float_path: str
    corpus: str
    out: str
    kind: ClassVar[str] = "policy"
    measure: ClassVar[str] = WORD_ERRORS

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict:
        return {"plan": self.plan.to_json(), "config": settings(self.config), "float_path": self.float_path,
                "corpus": self.corpus, "out": self.out}

    @classmethod
    def from_json(cls, data: dict) -> PolicyTask:
        return checked(cls, data, "task")

    def identity(self) -> dict:
        return {"config": settings(self.config), "plan": self.plan.digest,
                "float": checkpoint.digest_of(self.float_path)}

    def look(self) -> None:
        check_source(self.float_path)
        utterances(self.corpus, "train")

    def prepare(self) -> tuple[PolicyLearner, Examples, Heard]:
        torch.manual_seed(self.config.seed)
        recogniser = started(self.float_path)
        train = load_split(self.corpus, "train")
        if self.config.train_utterances is not None:
            train = train.first(self.config.train_utterances)
        examples = Examples(train, recogniser.tokens, recogniser.normalisation)
        module = build_module(self.plan, recogniser)
        calibrate(module, examples, self.config.calibration)
        per_epoch = max(1, int(examples.frames.sum()) // (self.config.batch_frames * self.config.shards))
        dev = Heard(load_split(self.corpus, "dev").first(DEV_UTTERANCES), examples.normalisation, examples.tokens)
        teacher = recogniser.model.eval().requires_grad_(False) if self.config.distil else None
        learner = PolicyLearner(module, self.config.steps, per_epoch, teacher, self.config.distil,
                                self.config.learning_rate)
        return learner, examples, dev

    def finish(self, learner: PolicyLearner, examples: Examples, report: dict) -> dict:
        recogniser = started(self.float_path)
        training = dict(steps=report["step"], dev_wer=round(report["dev"], 3), baseline=recogniser.training,
                        **report["identity"])
        save_module(self.out, learner.model, self.plan, front_end(recogniser), training)
        return {}


def save_module(path: str | os.PathLike, module: GraphModule, plan: Plan,
                end: FrontEnd | TextEnd | TensorEnd | LabelEnd, training: dict) -> None:
    """The trained module with its plan and front end, as one checkpoint."""
    checkpoint.save(path, module.state_dict(), dict(kind=KIND, plan=plan.to_json(), front_end=end.to_json(),
                                                    training=training))


@frozen(eq=False)
class Trained:
    """A training module read back: in evaluation mode, its integers are the program's."""

    module: GraphModule
    plan: Plan
    end: FrontEnd | TextEnd | TensorEnd | LabelEnd         # what stands between the model and the world
    training: dict[str, Any]

    @property
    def front(self) -> FrontEnd:
        """The front end of a model that hears.  TrainingError: this one reads text, or takes arrays."""
        if not isinstance(self.end, FrontEnd):
            takes, instead = ("text", "") if isinstance(self.end, TextEnd) else ("tensors", f"; {SAVED_DEAF}")
            raise TrainingError(f"the model of policy {self.plan.name} takes {takes}: it hears no audio{instead}")
        return self.end

    def __str__(self) -> str:
        said = ", ".join(f"{k} {v}" for k, v in self.training.items() if isinstance(v, (int, float, str)))
        return (f"trained module of policy {self.plan.name} for "
                f"`{self.plan.target.name}`{f' ({said})' if said else ''}\n{self.module.summary()}")


def load_module(path: str | os.PathLike) -> Trained:
    """CheckpointError: absent, damaged, of another kind, or tensors that do not fit the plan."""
    file = checkpoint.load(path, KIND)
    try:
        meta = file.metadata
        plan = Plan.from_json(meta["plan"])
        held = sum(v.size for v in file.tensors.values())
        if plan.graph.weights > held:                            # before the memory for them is asked for
            raise ValueError(f"its plan is of {plan.graph.weights:,} weights, and its tensors hold {held:,} numbers")
        module = module_of(plan.model.builder)(lower_plan(plan), None, plan)
        module.load_state_dict(file.state_dict())
        training = meta.get("training", {})
        if not isinstance(training, dict):
            raise ValueError("`training` is no table")
        return Trained(module.eval(), plan, end_from_json(meta["front_end"]), training)
    except ABSURD as error:
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"{path}: does not describe a training module: {what}") from None


def task(plan: Plan, float_path: str | os.PathLike, corpus: str | os.PathLike, out: str | os.PathLike,
         config: PolicyConfig | None = None, kind: type[PolicyTask] = PolicyTask) -> PolicyTask:
    """The task with everything decided; TrainingError where ``out`` is of another one."""
    made = kind(plan, config or PolicyConfig.of(plan), str(float_path), str(corpus), str(out))
    if Path(out).exists():
        done, wanted = checkpoint.load(out, KIND).metadata["training"], made.identity()
        if {k: done.get(k) for k in wanted} != wanted:
            raise TrainingError(f"{out} was trained with other settings; remove it or choose another output")
    return made


def train(plan: Plan, float_path: str | os.PathLike, corpus: str | os.PathLike, out: str | os.PathLike,
          config: PolicyConfig | None = None,
          processes: int | None = None, quiet: bool = False, run: Run | None = None,
          kind: type[PolicyTask] = PolicyTask) -> list[dict]:
    """Train under ``plan`` and write the module to ``out``; returns what was reported.  Resumes, and repeats nothing
    that is done.

    kind                    what the forward pass sees: the machine's integers, or (`weight_only`) its weights alone
    processes, run, errors  as `loop.train`
    """
    todo = task(plan, float_path, corpus, out, config, kind)
    if Path(out).exists():
        done = checkpoint.load(out, KIND).metadata["training"]
        return [{"step": done["steps"], "dev": done["dev_wer"]}]
    return loop.train(todo, f"training {plan.name}", processes, quiet, run or Run(every=50))
