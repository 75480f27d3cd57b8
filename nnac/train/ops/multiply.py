"""The product of two values."""

from __future__ import annotations

from torch import Tensor

from nnac import bind
from nnac.train import integers as exact
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, State
from nnac.train.ops._pair import Pair


class Multiply(Pair):
    """See `nnac.ops.multiply`."""

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.multiply((ins[0].scale, ins[1].scale), out.scale)
        reach = 1 << (ins[0].bits + ins[1].bits - 2)
        return Constants(
            c, {}, dict(rescale=Rescale.of(c["multiplier"], c["shift"], 0, reach, 0, out.bits, self.device))
        )

    def combined(self, xs: list[Tensor], scales: tuple[float, float], c: Constants, out: Format) -> Tensor:
        return exact.multiply(xs[0], xs[1], scales, c.ready["rescale"], out)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return xs[0] * xs[1]
