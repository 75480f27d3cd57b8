"""Hard sigmoid, by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnac.ops._table import TableOperator

if TYPE_CHECKING:
    from nnac import arith


class HardSigmoid(TableOperator):
    """``min(max(x + 3, 0), 6) / 6``: `arith.hard_sigmoid_table`."""

    symmetry = "complement"

    def table(self) -> arith.Table:
        from nnac import arith

        return arith.hard_sigmoid_table()
