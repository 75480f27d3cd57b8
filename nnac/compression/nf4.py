"""NF4, the four-bit normal float of QLoRA."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from nnac.compression.base import Method, method
from nnac.compression.codebook import GivenValues

# quantiles of a normal distribution, scaled to [-1, 1], zero among them: QLoRA, appendix E
VALUES = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
          -0.18477343022823334,
          -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
          0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)


@method("weights")
@frozen
class Nf4(GivenValues, Method):
    """NF4, the four-bit normal float: quantiles of a normal distribution, as a codebook of 8-bit integers.

    Source: Dettmers et al., QLoRA, arXiv 2305.14314 (its table, seen).  There a group is 64 weights of a row:
    ``per_group(64)``; centroids are rounded to int8 here (our choice: the machine's codebooks hold such).
    """

    fixed_bits: ClassVar[int | None] = 4
    codebook: ClassVar[bool] = True
    snap: ClassVar[str] = "int8"

    @property
    def numbers(self) -> tuple[float, ...]:
        return VALUES
