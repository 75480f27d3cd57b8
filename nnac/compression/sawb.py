"""SAWB."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from nnac.compression.base import Method, argument, method


@method("weights")
@frozen
class Sawb(Method):
    """SAWB: the clip from two statistics, ``c1 sqrt(E[w^2]) + c2 E|w|``, no search.

    Source: IBM; coefficients seen in FMS-MO (METHODS §6), per width.  Widths without a published pair are refused.
    """

    widths: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 7, 8)
    granularity: ClassVar[str] = "gate"

    plus: bool = argument("boolean", default=True, doc="pass the whole gradient (SAWB+); false zeroes it outside the clip")
    zero_aligned: bool = argument("boolean", default=True, doc="zero is an exact level: 15 levels at 4 bits; false has 16 and no zero")
    average: float = argument("number", default=0.1, low=0.0, high=1.0, doc="factor of the clip's moving average used at inference")
