"""A codebook whose values are given: any number format of a few bits."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.compression._weights import State, WeightRule
from nnac.compression.base import Method, argument, method

if TYPE_CHECKING:
    from torch import Tensor


class GivenValues(WeightRule):
    """Behaviour of methods with ``numbers``: the nearest of them, times a scale that puts each group's greatest weight
    on the outermost.

    The machine's centroids are integers: the values times the greatest whole factor within 127 (int16: 32767) that
    makes integers of all of them; where there is none, times 127 / max |v|, rounded (our choice).
    """

    __slots__ = ()

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values, increasing."""
        raise NotImplementedError

    def table(self, pruned: bool) -> tuple[int, ...]:
        """The centroids as integers, increasing.  With pruning zero is one of them: in the place of the value nearest
        to it."""
        values = self.numbers
        if pruned and 0.0 not in values:
            nearest = min(values, key=abs)
            values = tuple(0.0 if v == nearest else v for v in values)
        return _integers(values, 127 if getattr(self, "snap", "int8") == "int8" else 32767)

    def grid(self, state: State, x: Tensor, live: Tensor | None, bits: int, training: bool) -> Any:
        import torch

        from nnac.compression._grids import SMALLEST_UNIT, Codebook

        codes = torch.tensor([self.table(live is not None)], dtype=torch.float32, device=x.device)
        # a table that reaches further on one side puts the greatest weight of that side there
        low, high = -codes.min().clamp_max(-1e-9), codes.max().clamp_min(1e-9)
        if float(codes.min()) >= 0 or float(codes.max()) <= 0:
            unit = x.abs().amax(1, keepdim=True) / codes.abs().max()
        else:
            unit = torch.maximum(x.amax(1, keepdim=True).clamp_min(0) / high,
                                 -x.amin(1, keepdim=True).clamp_max(0) / low)
        return Codebook(unit.clamp_min(SMALLEST_UNIT), codes)


@cache
def _integers(values: tuple[float, ...], top: int) -> tuple[int, ...]:
    reach = max(map(abs, values))
    for outermost in range(top, 0, -1):
        scaled = [v * outermost / reach for v in values]
        if all(abs(s - round(s)) < 1e-6 for s in scaled):
            return tuple(map(round, scaled))
    return tuple(round(v * top / reach) for v in values)


@method("weights")
@frozen
class Codebook(GivenValues, Method):
    """A codebook of given values, the same for every group but for its scale: any number format of up to 8 bits.

    `nf4` and `e2m1` are two that have names.  Source: our own.
    """

    codebook: ClassVar[bool] = True

    values: tuple[float, ...] = argument("numbers", positional=True,
                                         doc="the values; the outermost stands for each group's greatest weight")
    bits: int = argument("integer", default=0, low=0, high=8,
                         doc="width of an index; 0: as narrow as the number of values allows")
    snap: str = argument("choice", default="int8", choices=("int8", "int16"),
                         doc="integers that the values are rounded to")

    def __attrs_post_init__(self) -> None:
        distinct = tuple(sorted({0.0 if v == 0 else float(v) for v in self.values}))
        if not 2 <= len(distinct) <= 256:
            raise ValueError(f"`values` of `codebook` are 2 to 256 different numbers, not {len(distinct)}")
        needed = (len(distinct) - 1).bit_length()
        if self.bits and self.bits < needed:
            raise ValueError(f"{len(distinct)} values need {needed} bits, not {self.bits}")
        object.__setattr__(self, "values", distinct)
        object.__setattr__(self, "bits", self.bits or needed)

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.values
