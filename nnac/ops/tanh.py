"""Hyperbolic tangent, by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnac.ops._table import TableOperator

if TYPE_CHECKING:
    from nnac import arith


class Tanh(TableOperator):
    """`arith.tanh_table`."""

    symmetry = "odd"

    def table(self) -> arith.Table:
        from nnac import arith

        return arith.tanh_table()
