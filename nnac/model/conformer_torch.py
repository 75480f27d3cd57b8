"""The float Conformer transducer: a plain nn.Module whose parameter names are the paths of the model graph
(`nnac.model.conformer`).

features [T, B, bins] > stack > input > swish > reduce > join > norm > block[0] > … ; prediction and joint network are
those of the RNN-T.  A block: half a feed-forward, attention, convolution, half a feed-forward, layer norm.  Time comes
first.

A frame hears its own chunk, and the ``left`` frames before that chunk; the convolution hears the frames before it.  An
utterance that ends within a chunk goes on with zeros until the chunk's end, as it does on the machine.  Training draws
chunk and left context for every batch, so that one network serves several latencies.

Source: Gulati et al. 2020 (arXiv 2005.08100); chunks as Chen et al. 2021 (arXiv 2010.11395), drawn as in Zhang et al.
2020 (arXiv 2012.05481); a learnt bias a head and distance instead of relative positional vectors, layer norm instead of
batch norm, sizes: our choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, in_, le
from torch import Tensor, nn
from torch.nn import functional as F

from nnac.checked import OPTION, checked, settings
from nnac.model.conformer import AHEAD, CHUNKS, LEFTS, NORMS
from nnac.model.rnnt_torch import Joint, Prediction, Rnnt, join_frames

BATCH_EPSILON = 1e-5


@frozen
class ConformerConfig:
    """Sizes.  ``vocabulary`` counts the blank; ``chunk`` and ``left`` are those of evaluation, in frames of the
    encoder."""

    network: str = field(default="conformer", validator=in_(("conformer",)))
    features: int = field(default=40, validator=[ge(1), le(4096)])
    stack: int = field(default=3, validator=[ge(1), le(256)])
    reduce: int = field(default=2, validator=[ge(1), le(256)])
    width: int = field(default=128, validator=[ge(1), le(4096)])
    blocks: int = field(default=6, validator=[ge(1), le(256)])
    heads: int = field(default=4, validator=[ge(1), le(32)])
    feed: int = field(default=256, validator=[ge(1), le(65536)])
    kernel: int = field(default=11, validator=[ge(1), le(32)])
    positions: int = field(default=48, validator=[ge(AHEAD + 2), le(256)])
    chunk: int = field(default=4, validator=[ge(1), le(AHEAD + 1)])
    left: int = field(default=16, validator=[ge(1), le(64)])
    embedding: int = field(default=64, validator=[ge(1), le(65536)])
    prediction: int = field(default=256, validator=[ge(1), le(65536)])
    joint: int = field(default=256, validator=[ge(1), le(65536)])
    vocabulary: int = field(default=64, validator=[ge(2), le(1048576)])
    stateless: int = field(default=0, validator=[ge(0), le(8)], metadata=OPTION)
    norm: str = field(default="layer", validator=in_(NORMS), metadata=OPTION)
    dropout: float = field(default=0.1, validator=[ge(0.0), le(1.0)])

    def __attrs_post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")

    @property
    def hidden(self) -> int:
        """Width of what the encoder gives."""
        return self.width

    def to_json(self) -> dict:
        return settings(self)

    @classmethod
    def from_json(cls, data: dict) -> ConformerConfig:
        """ValueError: what is wrong with it."""
        return checked(cls, data, "model")


class Group(nn.Module):
    """Modules by the names of the graph's paths, some of which (``in``) are no names of Python's."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def __getitem__(self, name: str) -> nn.Module:
        return self._modules[name]                     # type: ignore[return-value]


class Depthwise(nn.Module):
    """[T, B, C] -> the same: each channel by itself, over ``taps`` frames of which the last is the frame itself.
    ``weight`` [C, taps]."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        made = nn.Conv1d(channels, channels, taps, groups=channels)
        self.weight, self.bias = nn.Parameter(made.weight.detach()[:, 0].clone()), made.bias

    def forward(self, x: Tensor) -> Tensor:
        channels, taps = self.weight.shape
        x = F.pad(x.permute(1, 2, 0), (taps - 1, 0))
        return F.conv1d(x, self.weight[:, None], self.bias, groups=channels).permute(2, 0, 1)


class BatchNorm(nn.BatchNorm1d):
    """Of [T, B, channels].  nnac reads networks that have one, and trains those of layer norm: a batch's statistics
    are not those of its shards."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(1, 2, 0)).permute(2, 0, 1)


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network with its batch norms in the depthwise convolutions before them: the same function.

    ``w' = w g / sqrt(v + e)``, ``b' = (b - m) g / sqrt(v + e) + c``, in float64, rounded once to the weights' type.
    """
    out = dict(weights)
    for name in [n for n in weights if n.endswith(".middle.running_mean")]:
        at = name.removesuffix(".middle.running_mean")
        gain, shift, mean, variance = (out.pop(f"{at}.middle.{n}").double()
                                       for n in ("weight", "bias", "running_mean", "running_var"))
        out.pop(f"{at}.middle.num_batches_tracked", None)
        weight, bias = (f"{at}.depthwise.{n}" for n in ("weight", "bias"))
        scale = gain / (variance + BATCH_EPSILON).sqrt()
        out[weight], out[bias] = ((out[weight].double() * scale[:, None]).to(out[weight]),
                                  ((out[bias].double() - mean) * scale + shift).to(out[bias]))
    return out


class Scores(nn.Module):
    """The learnt bias, a head and distance: ``position[h, AHEAD + past]`` for a key ``past`` frames before its
    query."""

    def __init__(self, heads: int, positions: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(heads, positions))


def hears(frames: int, chunk: int, left: int, device: torch.device) -> Tensor:
    """[T, T]: whether frame t hears frame u."""
    t = torch.arange(frames, device=device)
    begins = t // chunk * chunk
    return (t[None] < begins[:, None] + chunk) & (t[None] >= begins[:, None] - left)


class Block(nn.Module):
    """[T, B, width] -> the same shape."""

    def __init__(self, c: ConformerConfig) -> None:
        super().__init__()
        d = c.width

        def feed() -> Group:
            parts: dict[str, nn.Module] = {"norm": nn.LayerNorm(d), "in": nn.Linear(d, c.feed),
                                           "out": nn.Linear(c.feed, d)}
            return Group(**parts)

        self.heads = c.heads
        self.feed = nn.ModuleList([feed(), feed()])
        self.attention = Group(norm=nn.LayerNorm(d), query=nn.Linear(d, d), key=nn.Linear(d, d), value=nn.Linear(d, d),
                               scores=Scores(c.heads, c.positions), output=nn.Linear(d, d))
        convolution: dict[str, nn.Module] = {
            "norm": nn.LayerNorm(d), "in": nn.Linear(d, 2 * d), "depthwise": Depthwise(d, c.kernel),
            "middle": nn.LayerNorm(d) if c.norm == "layer" else BatchNorm(d), "out": nn.Linear(d, d)}
        self.convolution = Group(**convolution)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, heard: Tensor, past: Tensor) -> Tensor:
        """heard  [T, T] bool      past  [T, T]: which position each key is at"""
        x = x + 0.5 * self._feed(self.feed[0], x)      # type: ignore[arg-type]
        x = x + self._attention(x, heard, past)
        x = x + self._convolution(x)
        return self.norm(x + 0.5 * self._feed(self.feed[1], x))        # type: ignore[arg-type]

    def _feed(self, part: Group, x: Tensor) -> Tensor:
        return self.dropout(part["out"](F.silu(part["in"](part["norm"](x)))))

    def _attention(self, x: Tensor, heard: Tensor, past: Tensor) -> Tensor:
        a, (T, B, d) = self.attention, x.shape
        x = a["norm"](x)
        q, k, v = (a[n](x).view(T, B, self.heads, d // self.heads).permute(1, 2, 0, 3)
                   for n in ("query", "key", "value"))
        bias = a["scores"].position[:, past].masked_fill(~heard, -1e4)               # type: ignore[index]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype).expand(B, -1, -1, -1))
        return self.dropout(a["output"](y.permute(2, 0, 1, 3).reshape(T, B, d)))

    def _convolution(self, x: Tensor) -> Tensor:
        c = self.convolution
        y = F.glu(c["in"](c["norm"](x)), -1)
        return self.dropout(c["out"](F.silu(c["middle"](c["depthwise"](y)))))


class Encoder(nn.Module):
    """[T, B, features], lengths -> [T', B, width], lengths'.

    drawn  training draws chunk and left context for every batch
    """

    def __init__(self, config: ConformerConfig, drawn: bool = True) -> None:
        super().__init__()
        c = self.config = config
        self.drawn = drawn
        self.input = nn.Linear(c.features * c.stack, c.width)
        self.join = nn.Linear(c.width * c.reduce, c.width)
        self.norm = nn.LayerNorm(c.width)
        self.block = nn.ModuleList(Block(c) for _ in range(c.blocks))

    def context(self) -> tuple[int, int]:
        """(chunk, left) of this call."""
        if not (self.training and self.drawn):
            return self.config.chunk, self.config.left
        chunks, lefts = (torch.randint(len(v), ()) for v in (CHUNKS, LEFTS))
        return CHUNKS[int(chunks)], LEFTS[int(lefts)]

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        chunk, left = self.context()
        lengths = lengths // c.stack // c.reduce
        step = c.stack * c.reduce * chunk
        x = F.pad(x, (0, 0, 0, 0, 0, -len(x) % step))
        x, _ = join_frames(x, lengths, c.stack)
        x, _ = join_frames(F.silu(self.input(x)), lengths, c.reduce)
        x = self.norm(self.join(x))
        if len(x):
            heard = hears(len(x), chunk, left, x.device)
            t = torch.arange(len(x), device=x.device)
            past = (t[:, None] - t[None] + AHEAD).clamp(0, c.positions - 1)
            for block in self.block:
                x = block(x, heard, past)
        return x[: int(lengths.max())] if len(lengths) else x, lengths


class Stateless(nn.Module):
    """A prediction network that knows the last ``stateless`` labels: tokens [U, B], state -> [U, B, embedding], state;
    the state is the embeddings [B, (stateless - 1) * embedding] before them, zeros at the start."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.past = Depthwise(config.embedding, config.stateless) if config.stateless > 1 else None
        self.before, self.dropout = config.stateless - 1, nn.Dropout(config.dropout)

    def start(self, batch: int) -> tuple[Tensor, ...]:
        """The state before any token."""
        weight = self.embedding.weight
        return (weight.new_zeros(batch, self.before * weight.shape[1]),) if self.past is not None else ()

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.embedding(tokens)
        if self.past is None:
            return self.dropout(x), ()
        (held,) = self.start(tokens.shape[1]) if state is None else state
        x = torch.cat([held.view(len(held), self.before, -1).transpose(0, 1), x])
        kept = x[len(x) - self.before:].transpose(0, 1).flatten(1)
        return self.dropout(F.silu(self.past(x)[self.before:])), (kept,)


class Conformer(Rnnt):
    """The network: the RNN-T's protocol and its prediction and joint network, another encoder."""

    config: ConformerConfig                            # type: ignore[assignment]

    def __init__(self, config: ConformerConfig | None = None) -> None:
        nn.Module.__init__(self)
        self.config = config or ConformerConfig()
        self.encoder = Encoder(self.config)            # type: ignore[assignment]
        made = Stateless(self.config) if self.config.stateless else Prediction(self.config)   # type: ignore[arg-type]
        self.prediction = made                         # type: ignore[assignment]
        self.joint = Joint(self.config, self.config.width)             # type: ignore[arg-type]
        if self.config.stateless:
            self.joint.prediction = nn.Linear(self.config.embedding, self.config.joint, bias=False)

    def start(self, batch: int) -> tuple[Tensor, tuple[Tensor, ...]]:  # type: ignore[override]
        if not isinstance(self.prediction, Stateless):
            return super().start(batch)
        blanks = torch.zeros(batch, dtype=torch.long, device=self.joint.prediction.weight.device)
        return self.predict(blanks, self.prediction.start(batch))      # type: ignore[arg-type]
