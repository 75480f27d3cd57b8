"""The sum of two values."""

from __future__ import annotations

from torch import Tensor

from nnac import bind
from nnac.attributes import record
from nnac.ops.add import AddAttributes
from nnac.train import integers as exact
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, State
from nnac.train.ops._pair import Pair


class Add(Pair):
    """See `nnac.ops.add`."""

    @property
    def factor(self) -> float:
        return record(self.node.attributes, AddAttributes).factor

    def constants(self, ins: list[Format], out: Format) -> Constants:
        c = bind.add((ins[0].scale, ins[1].scale), out.scale, self.factor)
        rescales = tuple(
            Rescale.of(m, s, 0, 1 << (f.bits - 1), 0, out.bits, self.device)
            for m, s, f in zip(c["multiplier"], c["shift"], ins, strict=True)
        )
        return Constants(c, {}, dict(rescales=rescales))

    def combined(self, xs: list[Tensor], scales: tuple[float, float], c: Constants, out: Format) -> Tensor:
        return exact.add(xs[0], xs[1], (scales[0], scales[1] * self.factor), c.ready["rescales"], out)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return xs[0] + xs[1] if self.factor == 1.0 else xs[0] + self.factor * xs[1]
