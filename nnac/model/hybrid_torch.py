"""The float hybrid: a plain nn.Module whose parameter names are the paths of the model graph (`nnac.model.hybrid`).

features [T, B, bins] > encoder.stack > encoder.lstm[0] > encoder.norm[0] > … > encoder.bottleneck > encoder.output >
log-softmax.  Time comes first.  A backward direction begins at each row's own end.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import asdict, field, frozen
from attrs.validators import ge, instance_of, le
from torch import Tensor, nn

from nnac.checked import checked
from nnac.model.hybrid import MOST_STATES
from nnac.model.rnnt_torch import join_frames


@frozen
class HybridConfig:
    """Sizes."""

    features: int = field(default=40, validator=[ge(1), le(65536)])
    stack: int = field(default=3, validator=[ge(1), le(256)])
    layers: int = field(default=3, validator=[ge(1), le(64)])
    cells: int = field(default=192, validator=[ge(1), le(65536)])
    bottleneck: int = field(default=128, validator=[ge(0), le(65536)])
    states: int = field(default=512, validator=[ge(2), le(MOST_STATES)])
    norm: bool = field(default=True, validator=instance_of(bool))
    dropout: float = field(default=0.1, validator=[ge(0.0), le(1.0)])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HybridConfig:
        """ValueError: what is wrong with it."""
        return checked(cls, data, "model")


def turned(x: Tensor, lengths: Tensor) -> Tensor:
    """[T, B, C] backwards in time, each row within its own length; what lies behind a row's end stays."""
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    at = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, at[:, :, None].expand_as(x))


class Encoder(nn.Module):
    """[T, B, features], lengths -> logits [T', B, states], lengths'."""

    def __init__(self, c: HybridConfig) -> None:
        super().__init__()
        self.stack = c.stack
        self.lstm = nn.ModuleList(nn.LSTM(2 * c.cells if i else c.features * c.stack, c.cells, bidirectional=True)
                                  for i in range(c.layers))
        if c.norm:
            self.norm = nn.ModuleList(nn.LayerNorm(2 * c.cells) for _ in range(c.layers))
        if c.bottleneck:
            self.bottleneck = nn.Linear(2 * c.cells, c.bottleneck)
        self.output = nn.Linear(c.bottleneck or 2 * c.cells, c.states)
        self.dropout = nn.Dropout(c.dropout)
        self.norms, self.narrow = c.norm, bool(c.bottleneck)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = join_frames(x, lengths, self.stack)
        for i, lstm in enumerate(self.lstm):
            assert isinstance(lstm, nn.LSTM)
            if len(x):                               # torch refuses sequences of no frames
                back = turned(one_way(lstm, turned(x, lengths), "_reverse"), lengths)
                x = torch.cat([one_way(lstm, x, ""), back], -1)
            else:
                x = x.new_zeros(0, x.shape[1], 2 * lstm.hidden_size)
            x = self.dropout(self.norm[i](x) if self.norms else x)
        return self.output(self.bottleneck(x) if self.narrow else x), lengths


def one_way(lstm: nn.LSTM, x: Tensor, suffix: str) -> Tensor:
    """One direction of a bidirectional LSTM.  Two of these, the second on rows turned at their own ends, are what
    packed sequences compute, in a third of the time on a CPU."""
    weights = [getattr(lstm, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    zero = x.new_zeros(1, x.shape[1], lstm.hidden_size)
    return torch.lstm(x, [zero, zero], weights, True, 1, 0.0, lstm.training, False, False)[0]


class HybridNetwork(nn.Module):
    """The network.  ``config`` is all that is needed to build it again."""

    def __init__(self, config: HybridConfig | None = None) -> None:
        super().__init__()
        self.config = config or HybridConfig()
        self.encoder = Encoder(self.config)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [T, B, bins], lengths [B] -> log-probabilities [T', B, states], lengths'."""
        logits, ends = self.encoder(features, torch.as_tensor(lengths, device=features.device))
        return torch.log_softmax(logits.float(), -1), ends


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """-log p of the label of every frame in nats, summed: scores [T, B, states] log-probabilities, labels [T, B], -1:
    none."""
    known = labels >= 0
    each = -scores.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return each.masked_fill(~known, 0.0).sum()
