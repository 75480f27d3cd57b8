"""A value times a positive number, in a format of its own: with the number one, the same value on another scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class ScaleAttributes(Attributes):
    """The number, which costs nothing: it is part of the multiplier."""

    factor: float = 1.0


class Scale(Operator):
    """``requantise(x)`` by the ratio of the two scales times ``factor``.  constants: multiplier, shift (scalars).
    Symmetric.

    A table reads one format alone; where something else reads the same value, the table has this one's output (our
    choice).
    """

    attributes_type = ScaleAttributes
    constants = ("multiplier", "shift")
    in_one_piece = True

    def attributes(self, layer: LayerShape, p: Precision) -> ScaleAttributes:
        return ScaleAttributes(factor=layer.attributes.get("factor", 1.0))

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, pieces

        return Work(vector=job.vectors * sum(m.vx_fill + beats.add(m, n) for n in pieces(job.width, MOST_ELEMENTS)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        bits = graph.values[node.output].bits
        return arith.requantise(inputs[0], constants["multiplier"], constants["shift"], 0, bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        require(inputs[0].width == output.width, node, "keeps the width")
        require(inputs[0].zero_point == output.zero_point == 0, node, "symmetric formats")
        require(node.attributes["factor"] > 0, node, "a factor above zero")
