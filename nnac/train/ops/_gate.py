"""What layers that weigh a value with a sigmoid have in common."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnac import arith, bind
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, Layer, State
from nnac.train.ops._numbers import Put


class GateLayer(Layer):
    """Base: a times the sigmoid of b, halves of the input or both the whole of it."""

    device = torch.device("cpu")

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b)."""
        return x[..., : self.width], x[..., x.shape[-1] - self.width:]

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.gate(out.scale)
        return Constants(c, {}, self.ready(c, ins[0], out))

    def ready(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        """What `exactly` computes with, on the layer's device."""
        full = torch.as_tensor(arith.Table("", c["table"], "complement").full().astype(np.float32)).to(self.device)
        rescale = Rescale.of(c["multiplier"], c["shift"], 0, 1 << (x.bits - 1 + arith.UNIT_FRACTION), out.zero_point,
                             out.bits, self.device)
        return dict(table=full, rescale=rescale)

    def exactly(self, x: Tensor, ready: dict, out: Format) -> tuple[Tensor, Tensor | None]:
        """(integers, where nothing was cut) of x integers."""
        a, b = self.parts(x)
        at = (b.contiguous() + 32768).to(torch.int32).view(-1)
        weight = torch.index_select(ready["table"], 0, at).view(b.shape)
        return ready["rescale"](a.double() * weight)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        key = (ins, out, self.device)                  # no parameters: only formats can change it
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.constants(ins, out)
        y, inside = self.exactly(xs[0].detach(), self._kept[1].ready, out)
        real = self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale
        return learned(Put.apply(real, y, inside), out, real.detach)
