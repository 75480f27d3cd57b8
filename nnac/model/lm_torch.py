"""The float language model: a plain nn.Module whose parameter names are the paths of the model graph (`nnac.model.lm`).

labels [U, B] > lm.embedding > lm.lstm[0] > … > lm.output > log-softmax.  Time comes first.  Label 0 is the edge of a
sentence. Source: the usual LSTM language model (Sundermeyer et al. 2012), tied weights as Press and Wolf 2017; sizes
our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import asdict, field, frozen
from attrs.validators import ge, instance_of, le
from torch import Tensor, nn

from nnac.checked import checked
from nnac.model.lm import SIZES, lm

EDGE = 0                       # the label before the first and after the last of a sentence


@frozen
class LmConfig:
    """Sizes.  ``vocabulary`` counts the edge."""

    vocabulary: int = field(default=64, validator=ge(2))
    embedding: int = field(default=64, validator=ge(1))
    layers: int = field(default=1, validator=ge(1))
    cells: int = field(default=256, validator=ge(1))
    project: int = field(default=0, validator=ge(0))
    tied: bool = field(default=False, validator=instance_of(bool))
    dropout: float = field(default=0.1, validator=[ge(0.0), le(1.0)])

    def __attrs_post_init__(self) -> None:
        # a ModelError where sizes do not go together
        lm("small", **{k: v for k, v in asdict(self).items() if k != "dropout"})

    @classmethod
    def of(cls, arguments: Mapping[str, Any], dropout: float = 0.1) -> LmConfig:
        """The network of a model graph's arguments."""
        sizes = SIZES[arguments["size"]] | {k: v for k, v in arguments.items() if k != "size"}
        return cls(**sizes, dropout=dropout)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LmConfig:
        """ValueError: everything that is wrong with it."""
        return checked(cls, data, "model")


class Layers(nn.Module):
    """labels [U, B], state (one (hidden [1, B, H], cell [1, B, C]) a layer) or None -> logits [U, B, vocabulary],
    state."""

    def __init__(self, config: LmConfig) -> None:
        super().__init__()
        hidden = config.project or config.cells
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.lstm = nn.ModuleList(nn.LSTM(hidden if i else config.embedding, config.cells, proj_size=config.project)
                                  for i in range(config.layers))
        self.output = nn.Linear(hidden, config.vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        if config.tied:
            self.output.weight = self.embedding.weight
            with torch.no_grad():
                # an embedding begins with deviation 1, too much for an output
                self.embedding.weight.mul_(config.embedding**-0.5)

    def forward(self, labels: Tensor, state: list[tuple[Tensor, Tensor]] | None = None) -> tuple[Tensor,
            list[tuple[Tensor, Tensor]]]:
        x, after = self.embedding(labels), []
        for i, lstm in enumerate(self.lstm):
            x, kept = lstm(x, None if state is None else state[i])
            x = self.dropout(x)
            after.append(kept)
        return self.output(x), after


class LanguageNetwork(nn.Module):
    """The network.  ``config`` is all that is needed to build it again."""

    def __init__(self, config: LmConfig | None = None) -> None:
        super().__init__()
        self.config = config or LmConfig()
        self.lm = Layers(self.config)

    def forward(self, labels: Tensor) -> Tensor:
        """labels [U, B] of sentences -> log-probabilities [U + 1, B, vocabulary] of each label and of the edge that
        follows the last."""
        return torch.log_softmax(self.lm(from_edge(labels))[0].float(), -1)


def from_edge(labels: Tensor) -> Tensor:
    """What a language model reads: labels [U, B] behind the edge -> [U + 1, B]."""
    return torch.cat([labels.new_full((1, labels.shape[1]), EDGE), labels])


def to_edge(labels: Tensor, counts: Tensor) -> Tensor:
    """What it is to find: labels [U, B], of which ``counts`` [B] are a row's own -> [U + 1, B], the edge behind each
    row's last."""
    after = torch.cat([labels, labels.new_full((1, labels.shape[1]), EDGE)])
    return after.masked_fill(torch.arange(len(after), device=labels.device)[:, None] >= counts, EDGE)


def cross_entropy(scores: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """-log P(sentence) in nats, of each sentence [B]: scores [U + 1, B, vocabulary] as a language model returns them,
    labels [U, B], counts [B].

    A sentence of ``counts`` labels has ``counts + 1`` terms: its end is found too.
    """
    wanted = to_edge(labels, counts)
    each = -scores.gather(-1, wanted[..., None])[..., 0]
    return each.masked_fill(torch.arange(len(wanted), device=labels.device)[:, None] > counts, 0.0).sum(0)
