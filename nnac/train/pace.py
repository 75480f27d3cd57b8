"""How long, how fast, in what portions (`Pace`); and how a training is run, which changes nothing of what it ends with
(`Run`)."""

from __future__ import annotations

import math

from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt

from nnac.checked import OPTION


@frozen
class Pace:
    """What the optimiser does at a step is a function of these and the step."""

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
    schedule: str = field(default="cosine", validator=in_(("cosine", "one_cycle")), metadata=OPTION)
    # decay of the averaged weights; 0: none
    ema: float = field(default=0.0, validator=[ge(0.0), lt(1.0)], metadata=OPTION)

    def rate(self, step: int) -> float:
        """Learning rate of ``step`` (0, 1, …).  cosine: rise, plateau, half a cosine.  one_cycle: `one_cycle`."""
        if self.schedule == "one_cycle":
            return self.learning_rate * one_cycle(step, self.steps)
        done = step / self.steps
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, (done - self.flat) / (1 - self.flat)))) if self.flat < 1 else 1.0
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * fall)

    def average_decay(self, step: int) -> float:
        """How much of the averaged weights stays after ``step`` updates: little at first, so that the start is soon
        forgotten (our choice)."""
        return min(self.ema, (1 + step) / (10 + step))


def one_cycle(step: int, steps: int, rising: float = 0.3, start: float = 1 / 25, end: float = 1 / 25e4) -> float:
    """Share of the full rate: half a cosine up over the first ``rising`` of the steps, half a cosine down over the
    rest.

    Source: Smith and Topin (arXiv 1708.07120), in the numbers of torch.optim.lr_scheduler.OneCycleLR; the momentum
    stays as it is.
    """
    peak, last = max(0.0, rising * steps - 1), max(1.0, steps - 1)
    low, high, at = (start, 1.0, step / peak) if step < peak else (1.0, end, (step - peak) / max(1e-9, last - peak))
    return high + (low - high) / 2 * (1 + math.cos(math.pi * min(1.0, at)))


@frozen
class Run:
    """How a training is run: how often it is saved and evaluated, where it computes, where its curves go.

    every  steps between saved states      dev_every  steps between evaluations (None: an eighth of all, at least 100)
    device  cpu or cuda                    tensorboard  a folder for event files, besides OUT.log.jsonl
    """

    every: int = field(default=100, validator=ge(1))
    dev_every: int | None = None
    device: str = field(default="cpu", validator=in_(("cpu", "cuda")))
    tensorboard: str | None = None
