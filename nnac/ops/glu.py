"""Gated linear unit: the first half of a vector, weighed by the sigmoid of the second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnac.ops._gate import GateOperator


class Glu(GateOperator):
    """``a sigmoid(b)`` of a vector [a, b].  Source: Dauphin et al. 2017 (arXiv 1612.08083); our integers."""

    pieces = 2

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return width % 4 == 0                          # the second half begins where an instruction can read
