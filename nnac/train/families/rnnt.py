"""The RNN-T as a training module: the graph's integers behind the protocol of `nnac.decode.search.greedy` (start,
predict, joint, encode).

    module = Transducer(lower(model, precision), float_state_dict)
    module.calibrate(batches)                                       # of (features, lengths, targets)
    logits, lengths = module(features, lengths, targets)
    loss = module.loss(logits, lengths, targets, counts)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from nnac.decode.fusion import IntegerRows, labels_alone, real_rows
from nnac.decode.integer import whole_steps
from nnac.model.rnnt import ENCODER, JOINT, PREDICTION
from nnac.train.families import family
from nnac.train.integers import dequantise
from nnac.train.module import GraphModule, Group
from nnac.train.rnnt_loss import rnnt_loss


class Joint(Group):
    """The joint's layers, which can be called: ``module.joint(frames, predictions)``."""

    def __init__(self, owner: Transducer) -> None:
        super().__init__()
        self._owner = (owner,)                      # in a tuple: not a submodule of its own child

    def forward(self, frames: Tensor, predictions: Tensor) -> Tensor:
        """See `Transducer.join`."""
        return self._owner[0].join(frames, predictions)


@frozen(eq=False)
class ModuleScorer:
    """Keeps the protocol of `nnac.decode.search.beam.Scorer` (and greedy's): the joint's integers, and their
    log-softmax in integers, as the machine's host takes it.  A joint that the plan leaves in real numbers is rounded
    like a float network.
    """

    module: Transducer

    def encode(self, features: Any, lengths: Any) -> tuple[Tensor, NDArray]:
        with torch.no_grad():
            frames, lengths = self.module.encode(features, lengths)
        return frames, lengths.cpu().numpy()

    def frames_of(self, count: int) -> int:
        """How many frames `encode` makes of so many of features."""
        (taken,), (made,) = (names[ENCODER.name] for names in (self.module.graph.inputs, self.module.graph.outputs))
        return count // self.module.graph.values[taken].rate * self.module.graph.values[made].rate

    def encode_pieces(self, blocks: Iterator[Any]) -> Iterator[Tensor] | None:
        """As `encode`, block by block, of one utterance; None where it takes the whole: an encoder that goes backwards
        too, or one in real numbers, whose sums depend on what is computed together."""
        encoder = self.module.graph.entry(ENCODER.name)
        if self.module.graph.bidirectional(ENCODER.name) or not all(self.module.layer(n.path).quantised
                                                                    for n in encoder):
            return None
        return self.module.encode_pieces(blocks)

    def start(self, batch: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.no_grad():
            return self.module.start(batch)

    def predict(self, tokens: NDArray, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.no_grad():
            return self.module.predict(tokens, state)

    def joint(self, frames: Tensor, prediction: Tensor) -> Tensor:
        return self.module.joint(frames, prediction)

    def scores(self, frames: Tensor, prediction: Tensor) -> NDArray:
        logits, rows = self._logits(frames, prediction)
        return (rows or real_rows)(logits)

    def internal(self, prediction: Tensor) -> NDArray:
        encoder = self.module.graph.inputs[JOINT.name][0]
        nothing = self.module.format_of(encoder).zero_point if self._integer(encoder) else 0
        logits, rows = self._logits(torch.full_like(prediction, nothing), prediction)
        return labels_alone(logits, rows)

    def _integer(self, value: str) -> bool:
        return self.module.layer(self.module.graph.producers[value].path).quantised

    def _logits(self, frames: Tensor, prediction: Tensor) -> tuple[NDArray, IntegerRows | None]:
        """The joint's output, and what makes log-probabilities of it: None where it is real."""
        names, (out,) = self.module.graph.inputs[JOINT.name], self.module.graph.outputs[JOINT.name]
        flags = {n: self._integer(n) for n in names}
        with torch.no_grad():
            values = self.module.run(JOINT.name, dict(zip(names, (frames, prediction), strict=True)), flags, {})
        logits = values[out].double().cpu().numpy()
        return logits, IntegerRows.of(self.module.format_of(out).scale) if flags[out] else None


@family
class Transducer(GraphModule):
    """See the module.  `encode`, `predict` and `predictions` return integers in float32, `joint` and `forward` real
    logits."""

    # with the other groups and layers, by the names of the graph's paths
    joint: Joint

    def group(self, name: str) -> Group:
        return Joint(self) if name == JOINT.name else super().group(name)

    def encode(self, features: Tensor, lengths: Any) -> tuple[Tensor, Tensor]:
        """Real features [T, B, bins], lengths [B] -> frames [T', B, joint] as `joint` wants them, lengths."""
        like = self._like()
        x = torch.as_tensor(features, device=like.device, dtype=torch.float32)
        lengths = torch.as_tensor(lengths, device=like.device)
        name, = self.graph.inputs[ENCODER.name]
        entry_lengths = lengths
        out = self.run(ENCODER.name, {name: x}, {name: False}, self._state(ENCODER.name, x.shape[1], like), lengths)
        for node in self.graph.entry(ENCODER.name):
            entry_lengths = self.layer(node.path).lengths(entry_lengths)
        return out[self.graph.outputs[ENCODER.name][0]], entry_lengths

    def encode_pieces(self, blocks: Iterator[Any]) -> Iterator[Tensor]:
        """Real features [n, 1, bins] of one utterance, block by block -> frames [n', 1, joint] as `encode` gives
        them."""
        like, (name,) = self._like(), self.graph.inputs[ENCODER.name]
        state = self._state(ENCODER.name, 1, like)
        for block in whole_steps(blocks, self.graph.values[name].rate):
            x = torch.as_tensor(block, device=like.device, dtype=torch.float32)
            with torch.no_grad():
                out = self.run(ENCODER.name, {name: x}, {name: False}, state)
            yield out[self.graph.outputs[ENCODER.name][0]]

    def _predict(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        name, = self.graph.inputs[PREDICTION.name]
        out = self.run(PREDICTION.name, {name: tokens[:, :, None]}, {name: True}, state)
        return out[self.graph.outputs[PREDICTION.name][0]]

    @property
    def _prediction_states(self) -> list[str]:
        return [s.name for n in self.graph.entry(PREDICTION.name) for s in n.states]

    def start(self, batch: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The prediction before any token: that of the blank, from zero."""
        like = self._like()
        zero = self._state(PREDICTION.name, batch, like)
        return self.predict(torch.zeros(batch, dtype=torch.long, device=like.device), tuple(zero.values()))

    def predict(self, tokens: Any, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """tokens [B] -> prediction [B, joint] as `joint` wants it, state (hidden [B, H], cell [B, H])."""
        tokens = torch.as_tensor(tokens, device=self._like().device)[None]
        now = dict(zip(self._prediction_states, state, strict=True))
        y = self._predict(tokens, now)
        return y[0], tuple(now[n] for n in self._prediction_states)

    def predictions(self, targets: Tensor) -> Tensor:
        """Training: targets [U, B] -> [U + 1, B, joint], the first before any token."""
        tokens = torch.cat([targets.new_zeros(1, targets.shape[1]), targets])
        return self._predict(tokens, self._state(PREDICTION.name, targets.shape[1], self._like()))

    def join(self, frames: Tensor, predictions: Tensor) -> Tensor:
        """``module.joint(frames, predictions)``: broadcast against each other -> real logits [..., vocabulary],
        float32."""
        names = self.graph.inputs[JOINT.name]
        flags = {n: self.layer(self.graph.producers[n].path).quantised for n in names}
        values = self.run(JOINT.name, dict(zip(names, (frames, predictions), strict=True)), flags, {})
        name, = self.graph.outputs[JOINT.name]
        if not flags[name]:
            return values[name]
        return dequantise(values[name], self.format_of(name)).to(torch.float32)

    def scorer(self) -> ModuleScorer:
        """This module as beam search wants it."""
        return ModuleScorer(self)

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """features [T, B, bins], targets [U, B] -> real logits [B, T', U + 1, vocabulary], lengths [B]."""
        frames, lengths = self.encode(features, lengths)
        return self.joint(frames.transpose(0, 1)[:, :, None],
                          self.predictions(targets).transpose(0, 1)[:, None]), lengths

    def loss(self, logits: Tensor, lengths: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """What `forward` returned, targets [U, B] and how many of each row count -> the transducer loss, summed over
        the batch."""
        return rnnt_loss(logits, targets.T, lengths, counts, reduction="sum")
