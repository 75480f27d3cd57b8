"""The float network's training: a corpus in, a recogniser out; the same steps give the same weights, interrupted or
not.

Two losses from the start: RNN-T, and CTC on letters from a side head (two outputs per frame) that is dropped in the
end.  Without the side loss, or without the layer norms, the network learns the grammar and ignores the sound: the loss
falls to the grammar's entropy and looks fine while 95 % of the words are wrong.  Judge by word error rate.  Source: our
recipe.  The loop: `nnac.train.loop`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, in_
from torch import Tensor, nn

from nnac import checkpoint
from nnac.checked import checked, settings
from nnac.decode.recogniser import Recogniser, save_recogniser
from nnac.model.conformer_torch import ConformerConfig
from nnac.model.networks import Config, config_from_json, network
from nnac.model.rnnt_torch import RnntConfig
from nnac.speech.corpus import load_split, utterances
from nnac.speech.tokens import LETTERS, Tokens, word_pieces
from nnac.train import loop
from nnac.train.batches import Batch, Examples
from nnac.train.evaluate import WORD_ERRORS, Heard
from nnac.train.joint_loss import joint_loss
from nnac.train.loop import TrainingError
from nnac.train.pace import Pace, Run

DEV_UTTERANCES = 200          # of the dev split, for the word error rate on the way


@frozen
class TrainConfig(Pace):
    """Everything the trained weights depend on, besides the corpus.  The defaults are the demo's budget."""

    model: Config = field(factory=RnntConfig)
    tokens: str = field(default="pieces", validator=in_(("pieces", "letters")))
    ctc: float = field(default=0.3, validator=ge(0.0))     # weight of the side loss
    train_utterances: int | None = None                    # None: all of the split
    bfloat16: bool | None = None                           # None: where the processor has it

    def to_json(self) -> dict:
        return settings(self)

    @classmethod
    def from_json(cls, data: dict) -> TrainConfig:
        """ValueError: what is wrong with it."""
        model = data.get("model") if isinstance(data, dict) else None
        rest = {k: v for k, v in data.items() if k != "model"} if model is not None else data
        made = checked(cls, rest, "config")
        return made if model is None else evolve(made, model=config_from_json(model))


LONGER = TrainConfig(steps=2600)  # the documented longer run: 5.9 % on unheard sentences, 7.0 % on unheard voices
# as many batches as LSTMs have, in twice as many updates, and a longer rise
CONFORMER = TrainConfig(model=ConformerConfig(), steps=3600, batch_frames=2000, warmup=400, learning_rate=1.5e-3)


def has_bfloat16(device: str = "cpu") -> bool:
    """Whether this processor (AVX512-BF16) or GPU multiplies bfloat16."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
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
        return nn.functional.ctc_loss(scores, batch.letters, 2 * lengths, batch.letter_counts, reduction="sum",
                                      zero_infinity=True)


class FloatLearner(loop.Unscheduled):
    """Network and side loss."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.model = network(config.model)
        self.side = SideLoss(config.model.hidden)
        self.named = {
            **{f"model.{k}": p for k, p in self.model.named_parameters()},
            **{f"side.{k}": p for k, p in self.side.named_parameters()},
        }
        self.dtype = torch.bfloat16 if config.bfloat16 else torch.float32

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            encoded, lengths = self.model.encoder(batch.features, batch.lengths)
            frames = self.model.joint.encoder(encoded)
            predictions = self.model.predictions(batch.tokens.T)
        output = self.model.joint.output
        loss = joint_loss(frames.float().transpose(0, 1), predictions.float().transpose(0, 1), output.weight,
                          output.bias, batch.tokens,
                          lengths, batch.token_counts, self.dtype).sum()
        total = loss + self.config.ctc * self.side(encoded.float(), lengths, batch) if self.config.ctc else loss
        return total, float(loss.detach())

    def evaluate(self, dev: Heard) -> float:
        return dev.word_error_rate(self.model)

    def to(self, device: torch.device) -> None:
        self.model.to(device)
        self.side.to(device)


@frozen
class FloatTask:
    """Train the float network on ``corpus`` into ``out``."""

    config: TrainConfig
    corpus: str
    out: str
    kind: ClassVar[str] = "float"
    measure: ClassVar[str] = WORD_ERRORS

    @property
    def pace(self) -> Pace:
        return self.config

    def to_json(self) -> dict:
        return {"config": self.config.to_json(), "corpus": self.corpus, "out": self.out}

    @classmethod
    def from_json(cls, data: dict) -> FloatTask:
        return checked(cls, data, "task")

    def identity(self) -> dict:
        return {"config": self.config.to_json()}

    def look(self) -> None:
        utterances(self.corpus, "train")

    def prepare(self) -> tuple[FloatLearner, Examples, Heard]:
        config = self.config
        train = load_split(self.corpus, "train")
        if config.train_utterances is not None:
            train = train.first(config.train_utterances)
        tokens: Tokens = word_pieces(train.texts, config.model.vocabulary) if config.tokens == "pieces" else LETTERS
        if tokens.count != config.model.vocabulary:
            raise TrainingError(f"the network has {config.model.vocabulary} tokens, {config.tokens} are {tokens.count}")
        examples = Examples(train, tokens, train.normalisation())
        return FloatLearner(config), examples, Heard(load_split(self.corpus, "dev").first(DEV_UTTERANCES),
                                                     examples.normalisation, tokens)

    def finish(self, learner: FloatLearner, examples: Examples, report: dict) -> dict:
        training = {"config": self.config.to_json(), "steps": report["step"], "dev_wer": round(report["dev"], 3),
                    "corpus": examples.description()}
        save_recogniser(self.out, Recogniser(learner.model, examples.split.recipe.features, examples.normalisation,
                                             examples.tokens, training))
        return {}


def task(corpus: str | os.PathLike, out: str | os.PathLike, config: TrainConfig | None = None,
         device: str = "cpu") -> FloatTask:
    """The task with everything decided; TrainingError where ``out`` is of another one."""
    config = config or TrainConfig()
    if getattr(config.model, "norm", "layer") == "batch":
        raise TrainingError("nnac reads networks of batch norm and does not train them: say norm=\"layer\"")
    if config.bfloat16 is None:
        config = evolve(config, bfloat16=has_bfloat16(device))
    if Path(out).exists() and checkpoint.load(out).metadata.get("training", {}).get("config") != config.to_json():
        raise TrainingError(f"{out} was trained with other settings; remove it or choose another output")
    return FloatTask(config, str(corpus), str(out))


def train(corpus: str | os.PathLike, out: str | os.PathLike, config: TrainConfig | None = None,
          processes: int | None = None,
          quiet: bool = False, run: Run | None = None) -> list[dict]:
    """Train a recogniser on a corpus directory and write it to ``out``; return what was reported (steps, losses, dev
    WER).

    Resumes from ``out.part`` if an earlier call was stopped; does nothing but report if ``out`` is complete already.
    processes, run, errors: as `loop.train`
    """
    run = run or Run()
    todo = task(corpus, out, config, run.device)
    if Path(out).exists():
        done = checkpoint.load(out).metadata["training"]
        return [{"step": done["steps"], "dev": done["dev_wer"]}]
    return loop.train(todo, "training", processes, quiet, run)
