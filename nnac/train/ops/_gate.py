"""What layers that weigh a value with a table, mostly of the sigmoid, have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nnac import arith, bind
from nnac.train import integers as exact
from nnac.train import native
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.native_layers import Gate
from nnac.train.ops import Constants, Layer, State


class GateLayer(Layer):
    """Base: a times a table of b, halves of the input or both the whole of it."""

    device = torch.device("cpu")
    by_sigmoid: ClassVar[bool] = True                  # so is the slope, and the native kernel knows it

    def table(self) -> arith.Table:
        """What b is looked up in."""
        return arith.sigmoid_table()

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b)."""
        return x[..., : self.width], x[..., x.shape[-1] - self.width:]

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.gate(out.scale, self.table())
        return Constants(c, {}, self.ready(c, ins[0], out))

    def ready(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        """What its integers are computed with, on the layer's device."""
        if self.by_sigmoid and self.device.type == "cpu" and native.library() is not None:
            gate = Gate(native.words(torch.as_tensor(c["table"])), int(c["multiplier"]), int(c["shift"]),
                        out.zero_point, out.bits, self.width, x.scale / out.scale, x.scale)
            return dict(gate=gate)
        return self.ready_in_torch(c, x, out)

    def ready_in_torch(self, c: dict[str, np.ndarray], x: Format, out: Format) -> dict[str, object]:
        """The same without the native kernel."""
        full = torch.as_tensor(arith.Table("", c["table"], "complement").full().astype(np.int32)).to(self.device)
        rescale = Rescale.of(c["multiplier"], c["shift"], 0, 1 << (x.bits - 1 + arith.UNIT_FRACTION), out.zero_point,
                             out.bits, self.device)
        return dict(table=full, rescale=rescale, unit=x.scale)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        self.device = xs[0].device
        ready = self.constants_of_formats(ins, out, self.device).ready
        y = exact.lookup(xs[0], ready["gate"]) if "gate" in ready else self.in_torch(xs[0], ready, ins[0], out)
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)

    def in_torch(self, x: Tensor, ready: dict[str, Any], form: Format, out: Format) -> Tensor:
        """The integers without the native kernel."""
        return _Gate.apply(*self.parts(x), ready, form.scale / out.scale)


class _Gate(torch.autograd.Function):
    """a times the sigmoid of b, both integers on the same scale."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, ready: dict[str, Any], slope: float) -> Tensor:
        weight = torch.index_select(ready["table"], 0, (b + 32768).to(torch.int32).flatten()).view(b.shape)
        y, inside = ready["rescale"](a.to(torch.int32) * weight)                     # at most 2^30
        ctx.save_for_backward(a, weight, inside)
        ctx.slope, ctx.unit = slope, ready["unit"]
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        a, weight, inside = ctx.saved_tensors
        s = weight * 2.0**-arith.UNIT_FRACTION
        ga = exact.masked(g, inside) * s * ctx.slope
        return ga, ga * (1 - s) * a * ctx.unit, None, None
