"""Room in the accumulator: the unit of a row's weights is coarse enough that products and bias fit.

A bias is an integer in units of (weight unit x input unit).  Beside a row of tiny weights, and the more so beside int16
inputs, those units are so small that the bias does not fit the sums: cut, it would be another bias.  So such a row
takes a coarser unit for its weights, which loses less than the bias would: of a bias b at most b 2^-31 a weight and
input step, against a b that was cut to a small part.  Rows that fit, and so nearly all rows of all networks, keep the
unit that their method gives.  Source: our choice.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from nnac import bind
from nnac.compression._grids import largest
from nnac.train.format import Format
from nnac.train.ops import Quantiser

NEAR = 1.0 - 2.0**-12                  # of the room: what float32 and the rounding of a bias may miss
TRIES = 16


@frozen(eq=False)
class Sums:
    """What one kernel adds to an accumulator: its columns [left, right), the values that meet them, a bias or none."""

    left: int
    right: int
    meets: Format
    bias: Tensor | None = None

    @property
    def step(self) -> int:
        """The largest magnitude that meets a code, its zero point taken off."""
        return (1 << (self.meets.bits - 1)) + abs(self.meets.zero_point)

    def reach(self, codes: Tensor) -> Tensor:
        """The largest magnitude [rows] of the products."""
        return codes.detach()[:, self.left: self.right].abs().double().sum(1) * self.step


def roomy(quantiser: Quantiser, weight: Tensor, sums: list[Sums], bits: int, *, unit: float | None = None,
          weight_bits: int = 8) -> tuple[Tensor, Tensor]:
    """(codes, scale) as the quantiser gives them, on coarser units where sums and biases do not fit.

    sums  each fits ``bits`` bits by itself     unit  real value of an input step (that of the first sum, if not given)
    """
    codes, scale = quantiser(weight)
    wide, most = bits > 32, (1 << (bits - 1)) * NEAR
    unit = sums[0].meets.scale if unit is None else unit
    least = float(scale.min()) * unit                      # of any bias
    biases = [None if s.bias is None else s.bias.detach().abs().double() for s in sums]
    if all((0.0 if b is None else float(b.max()) / least) + (s.right - s.left) * largest(weight_bits) * s.step < most
           and (b is None or float(b.max()) / least < bind.bias_limit(wide) * NEAR)
           for s, b in zip(sums, biases, strict=True)):
        return codes, scale
    for _ in range(TRIES):
        needs = scale.double() * 0.0
        for s, b in zip(sums, biases, strict=True):
            own = 0.0 * needs if b is None else b / (scale.double() * unit)
            needs = needs.maximum((own + s.reach(codes)) / most).maximum(own / (bind.bias_limit(wide) * NEAR))
        if float(needs.max()) < 1.0:
            break
        coarser = (scale.double() * (needs * (1.0 + 2.0**-10)).clamp_min(1.0)).to(scale)
        codes, scale = quantiser(weight, coarser)
    return codes, scale
