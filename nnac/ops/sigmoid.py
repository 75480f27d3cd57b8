"""Logistic sigmoid, by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnac.ops._table import TableOperator

if TYPE_CHECKING:
    from nnac import arith


class Sigmoid(TableOperator):
    """`arith.sigmoid_table`."""

    symmetry = "complement"

    def table(self) -> arith.Table:
        from nnac import arith

        return arith.sigmoid_table()
