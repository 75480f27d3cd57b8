"""Operators that are one look-up in a table: the base of ``tanh``, ``sigmoid``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nnac.formats import PRE
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, operator, require

if TYPE_CHECKING:
    from nnac import arith
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops._work import Job, Work


class TableOperator(Operator):
    """A tabulated function of an int16 in Q3.12, requantised from Q0.15 to the output's format.

    constants  table int16 [513], multiplier, shift
    """

    constants = ("table", "multiplier", "shift")
    takes = PRE
    in_one_piece = True
    # of the function around zero: ``odd`` or ``complement`` (f(-x) = 1 - f(x))
    symmetry: ClassVar[str]

    def table(self) -> arith.Table:
        """The function, tabulated on |x|."""
        raise NotImplementedError

    def bounded(self, attributes: Mapping[str, Any]) -> bool:
        return True

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, pieces

        return Work(vector=job.vectors * sum(m.vx_fill + beats.elementwise(m, n)
                                             for n in pieces(job.width, MOST_ELEMENTS)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        out = graph.values[node.output]
        y = arith.lookup(constants["table"], self.symmetry, inputs[0])
        return arith.requantise(y, constants["multiplier"], constants["shift"], out.zero_point, out.bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        require(inputs[0].bits == PRE.bits and inputs[0].scale in (None, PRE.scale), node,
                f"a table is read with {PRE}")
        require(output.width == inputs[0].width, node, "keeps the width")


def table_operator(kind: str) -> TableOperator:
    """The operator called ``kind``, which is a table."""
    found = operator(kind)
    assert isinstance(found, TableOperator), f"{kind} is no table"
    return found
