"""The last frames side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from nnac import bind
from nnac.attributes import record
from nnac.ops.window import WindowAttributes, windows
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, Layer, State
from nnac.train.ops._numbers import Put


class Window(Layer):
    """See `nnac.ops.window`."""

    device = torch.device("cpu")

    def lengths(self, lengths: Tensor) -> Tensor:
        return lengths // record(self.node.attributes, WindowAttributes).frames

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.scale(ins[0].scale, 1.0, out.scale)
        reach = 1 << (ins[0].bits - 1)
        return Constants(c, {}, dict(rescale=Rescale.of(c["multiplier"], c["shift"], 0, reach, 0, out.bits,
                                                        self.device)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        y, inside = self.constants_of_formats(ins, out, self.device).ready["rescale"](xs[0].detach())
        real = xs[0] * (ins[0].scale / out.scale)
        return self.joined(learned(Put.apply(real, y, inside), out, real.detach), state)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return self.joined(xs[0], state)

    def joined(self, x: Tensor, state: State) -> Tensor:
        """All windows; replaces the past."""
        a, name = record(self.node.attributes, WindowAttributes), f"{self.node.path}.past"
        made, past = windows(x, state.get(name), a.taps, a.frames)
        if past is not None:
            state[name] = past
        return made
