"""Probabilities of scores: softmax, group by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work

MOST_GROUPS = 64
EIGHT_BITS_FOR = 40            # probabilities that 127 steps tell apart well enough: a context of 32 and a chunk of 8


@frozen(eq=False, repr=False)
class SoftmaxAttributes(Attributes):
    """Each of ``groups`` equal pieces of a vector is normalised by itself."""

    groups: int = 1


class Softmax(Operator):
    """`arith.softmax`: int8 or int16, the largest integer standing for 1.

    constants  exp int16 [513], rsqrt [385], multiplier, shift (scores to 2^-11), out_multiplier, out_shift
    """

    attributes_type = SoftmaxAttributes
    constants = ("exp", "rsqrt", "multiplier", "shift", "out_multiplier", "out_shift")
    in_one_piece = True

    def bounded(self, attributes: Mapping[str, Any]) -> bool:
        return True

    def attributes(self, layer: LayerShape, p: Precision) -> SoftmaxAttributes:
        return SoftmaxAttributes(layer.attributes.get("groups", 1))

    def least_bits(self, attributes: Mapping[str, Any], width: int) -> int:
        return 16 if width // attributes.get("groups", 1) > EIGHT_BITS_FOR else 0

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return width <= MOST_ELEMENTS and attributes.get("groups", 1) <= MOST_GROUPS

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work

        groups = job.attributes.get("groups", 1)
        return Work(vector=job.vectors * (m.vx_fill + groups * beats.normalise(m, job.width // groups)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        out, c = graph.values[node.output], constants
        x = inputs[0]
        groups = x.reshape(*x.shape[:-1], record(node.attributes, SoftmaxAttributes).groups, -1)
        y = arith.softmax(groups, c["exp"], c["rsqrt"], c["multiplier"], c["shift"], c["out_multiplier"],
                          c["out_shift"], out.zero_point, out.bits)
        return y.reshape(*x.shape)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        groups = record(node.attributes, SoftmaxAttributes).groups
        require(output.width == inputs[0].width and output.width % groups == 0, node,
                f"keeps the width, {groups} equal groups")
        require(output.width // groups < 1 << 15, node, "groups of less than 32768")
