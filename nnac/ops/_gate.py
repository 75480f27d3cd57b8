"""Operators that weigh a value with a sigmoid: the base of ``swish``, ``glu``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from nnac.formats import PRE, FixedPoint, Wide
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops._work import Job, Work


class GateOperator(Operator):
    """`arith.gate` of the first and the last ``width`` elements of an int16 vector in Q3.12, which may be the same.

    constants  table int16 [513] (sigmoid), multiplier, shift (from 2^-27)
    """

    constants = ("table", "multiplier", "shift")
    takes: ClassVar[FixedPoint | Wide | None] = PRE
    in_one_piece = True
    pieces: ClassVar[int]                              # times as wide as the output is the input

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, pieces

        return Work(vector=job.vectors * sum(m.vx_fill + 2 * beats.elementwise(m, n)
                                             for n in pieces(job.width, MOST_ELEMENTS)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        out, (x,) = graph.values[node.output], inputs
        return arith.gate(x[..., : out.width], x[..., x.shape[-1] - out.width:], constants["table"], "complement",
                          constants["multiplier"], constants["shift"], out.zero_point, out.bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        takes = self.takes
        assert takes is not None
        require(inputs[0].bits == takes.bits and (takes.scale is None or inputs[0].scale in (None, takes.scale)), node,
                f"a table is read with {takes}")
        require(inputs[0].zero_point == 0, node, "a symmetric input")
        require(inputs[0].width == self.pieces * output.width, node, f"reads {self.pieces} times its width")
