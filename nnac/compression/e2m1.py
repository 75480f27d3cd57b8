"""E2M1, the four-bit floating point of OCP's microscaling formats."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from nnac.compression.base import Method, method
from nnac.compression.codebook import GivenValues

MAGNITUDES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@method("weights")
@frozen
class E2m1(GivenValues, Method):
    """E2M1, four-bit floating point (two bits of exponent, one of mantissa), as a codebook: 0, ±0.5, ±1, ±1.5, ±2, ±3,
    ±4, ±6.

    Source: OCP Microscaling Formats (MX) v1.0, 2023 (the element format of MXFP4, seen).  There a group is 32 weights
    with a power of two as scale; here any scale (our choice).  As integers the values are exact: 20 times as large.
    """

    fixed_bits: ClassVar[int | None] = 4
    codebook: ClassVar[bool] = True
    snap: ClassVar[str] = "int8"

    @property
    def numbers(self) -> tuple[float, ...]:
        return (*(-m for m in reversed(MAGNITUDES)), 0.0, *MAGNITUDES)
