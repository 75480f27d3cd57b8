"""Sum of two values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State
from nnac.ops._pair import symmetric_pair

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class AddAttributes(Attributes):
    """What the second value is multiplied with, which costs nothing: it is part of its multiplier."""

    factor: float = 1.0


class Add(Operator):
    """`arith.add` of a value and ``factor`` times another.  constants: multiplier, shift int64 [2].  Symmetric."""

    attributes_type = AddAttributes
    inputs = 2
    constants = ("multiplier", "shift")
    in_one_piece = True
    verify_more = symmetric_pair

    def attributes(self, layer: LayerShape, p: Precision) -> AddAttributes:
        return AddAttributes(layer.attributes.get("factor", 1.0))

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, pieces

        return Work(vector=job.vectors * sum(m.vx_fill + beats.add(m, n) for n in pieces(job.width, MOST_ELEMENTS)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        a, b = inputs
        return arith.add(a, b, constants["multiplier"], constants["shift"], graph.values[node.output].bits)
