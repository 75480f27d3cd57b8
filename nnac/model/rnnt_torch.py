"""The float RNN-T: the reference network, a plain nn.Module whose parameter names are the paths of the model graph.

features [T, B, bins] > encoder.stack > encoder.lstm[0] > encoder.norm[0] > encoder.reduce > lstm[1] > norm[1] > …
tokens > prediction.embedding > prediction.lstm[0];   joint: encoder projection + prediction projection > tanh > output.
Time comes first everywhere.  It keeps the protocol of `nnac.decode.search.greedy`: start, predict, joint, encode.

Source: the usual streaming RNN-T (Graves 2012) with layer norm after each LSTM and stacked frames; sizes our choice.
"""

from __future__ import annotations

import torch
from attrs import asdict, field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from nnac.checked import checked


@frozen
class RnntConfig:
    """Sizes.  ``vocabulary`` counts the blank."""

    features: int = field(default=40, validator=[ge(1), le(4096)])
    stack: int = field(default=3, validator=[ge(1), le(256)])  # feature frames joined before the encoder
    layers: int = field(default=3, validator=[ge(1), le(256)])
    hidden: int = field(default=256, validator=[ge(1), le(65536)])
    reduce: int = field(default=2, validator=[ge(1), le(256)])  # frames joined after the first layer
    embedding: int = field(default=64, validator=[ge(1), le(65536)])
    prediction: int = field(default=256, validator=[ge(1), le(65536)])
    joint: int = field(default=256, validator=[ge(1), le(65536)])
    vocabulary: int = field(default=64, validator=[ge(2), le(1048576)])
    dropout: float = field(default=0.1, validator=[ge(0.0), le(1.0)])

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> RnntConfig:
        """ValueError: what is wrong with it."""
        return checked(cls, data, "model")


def join_frames(x: Tensor, lengths: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[T, B, C] -> [T // count, B, count * C]: earliest frame first; an incomplete group at the end is dropped."""
    if count == 1:
        return x, lengths
    T, B, C = x.shape
    groups = x[: T // count * count].view(T // count, count, B, C)
    return groups.transpose(1, 2).reshape(T // count, B, count * C), lengths // count


class Encoder(nn.Module):
    """[T, B, features], lengths -> [T', B, hidden], lengths'."""

    def __init__(self, config: RnntConfig) -> None:
        super().__init__()
        self.stack, self.reduce, self.hidden = config.stack, config.reduce, config.hidden
        widths = [config.features * config.stack] + [
            config.hidden * (config.reduce if i == 1 else 1) for i in range(1, config.layers)
        ]
        self.lstm = nn.ModuleList(nn.LSTM(width, config.hidden) for width in widths)
        self.norm = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in widths)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = join_frames(x, lengths, self.stack)
        for i, (lstm, norm) in enumerate(zip(self.lstm, self.norm, strict=True)):
            # torch refuses sequences of no frames; an utterance shorter than one group has none
            hidden = lstm(x)[0] if len(x) else x.new_zeros(0, x.shape[1], self.hidden)
            x = self.dropout(norm(hidden))
            if i == 0:
                x, lengths = join_frames(x, lengths, self.reduce)
        return x, lengths


class Prediction(nn.Module):
    """tokens [U, B], state ([B, H], [B, H]) or None -> [U, B, H], state."""

    def __init__(self, config: RnntConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.lstm = nn.ModuleList([nn.LSTM(config.embedding, config.prediction)])
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor,
            tuple[Tensor, Tensor]]:
        x, (h, c) = self.lstm[0](self.embedding(tokens), None if state is None else (state[0][None], state[1][None]))
        return self.dropout(x), (h[0], c[0])


class Joint(nn.Module):
    """Projected frames and projected predictions, broadcast against each other -> logits."""

    def __init__(self, config: RnntConfig, width: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(width, config.joint)
        self.prediction = nn.Linear(config.prediction, config.joint, bias=False)  # one bias is enough for a sum
        self.output = nn.Linear(config.joint, config.vocabulary)

    def forward(self, frames: Tensor, predictions: Tensor) -> Tensor:
        return self.output(torch.tanh(frames + predictions))


class Rnnt(nn.Module):
    """The network.  ``config`` is all that is needed to build it again."""

    def __init__(self, config: RnntConfig | None = None) -> None:
        super().__init__()
        self.config = config or RnntConfig()
        self.encoder = Encoder(self.config)
        self.prediction = Prediction(self.config)
        self.joint = Joint(self.config, self.config.hidden)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[T, B, bins] -> frames [T', B, joint] ready for ``joint``, lengths [B]."""
        x, lengths = self.encoder(features, torch.as_tensor(lengths))
        return self.joint.encoder(x), lengths

    def start(self, batch: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The prediction before any token: that of the blank, from zero."""
        like = self.joint.prediction.weight
        zero = like.new_zeros(batch, self.config.prediction)
        return self.predict(torch.zeros(batch, dtype=torch.long, device=like.device), (zero, zero))

    def predict(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """tokens [B] -> prediction [B, joint] ready for ``joint``, state ([B, H], [B, H])."""
        x, state = self.prediction(torch.as_tensor(tokens, device=self.joint.prediction.weight.device)[None], state)
        return self.joint.prediction(x[0]), state

    def predictions(self, targets: Tensor) -> Tensor:
        """Training: targets [U, B] -> [U + 1, B, joint], the first before any token."""
        tokens = torch.cat([targets.new_zeros(1, targets.shape[1]), targets])
        return self.joint.prediction(self.prediction(tokens)[0])

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """features [T, B, bins], targets [U, B] -> logits [B, T', U + 1, vocabulary], lengths [B]."""
        frames, lengths = self.encode(features, lengths)
        return self.joint(frames.transpose(0, 1)[:, :, None],
                          self.predictions(targets).transpose(0, 1)[:, None]), lengths
