"""The mean over time."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import arith, bind
from nnac.attributes import record
from nnac.evaluate import check_lengths
from nnac.ops.mean import ONE, MeanAttributes
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, State
from nnac.train.ops._numbers import Put


class Mean(Layer):
    """See `nnac.ops.mean`.  Within the number of vectors that it takes no sum saturates: one `cumsum` gives them all.

    TooLongError: more vectors.
    """

    device = torch.device("cpu")

    def constants(self, ins: list[Format], out: Format) -> Constants:
        length = record(self.node.attributes, MeanAttributes).length
        return Constants.of(bind.mean(length, ins[0].scale, out.scale), self.device)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        c = self.constants_of_formats(ins, out, self.device).ready
        total, count = self.sums(xs[0], state)
        with torch.no_grad():
            share = arith.lookup(c["table"], "odd", count.long())
            v = arith.round_shift(total.detach().long() * share * c["multiplier"], c["shift"])
            y = arith.saturate(v, out.bits)
        real = total / count * (ONE * ins[0].scale / out.scale)
        return learned(Put.apply(real, y, y == v), out, real.detach)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        total, count = self.sums(xs[0], state)
        return total / count * ONE

    def sums(self, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """(sum, count) after each vector, [T, B, width] each; replaces the states.  Integers stay exact in float32:
        they are below 2^15."""
        of_sum, of_count = self.node.states
        total = state[of_sum.name] + x.cumsum(0)
        steps = torch.arange(1, len(x) + 1, device=x.device, dtype=x.dtype)[:, None, None]
        count = state[of_count.name] + ONE * steps
        check_lengths(self.node.states, {of_count.name: count[-1:]})
        state[of_sum.name], state[of_count.name] = total[-1], count[-1]
        return total, count
