"""Layer norm over each vector, in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

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
class LayerNormAttributes(Attributes):
    """What is added to the variance."""

    epsilon: float = 1e-5


class LayerNorm(Operator):
    """`arith.layer_norm`.  constants  gain int16 [C], bias int64 [C], epsilon, root_width, multiplier, shift (scalars),
    rsqrt [385]."""

    attributes_type = LayerNormAttributes
    constants: ClassVar[tuple[str, ...]] = ("gain", "bias", "epsilon", "root_width", "multiplier", "shift", "rsqrt")
    in_one_piece = True
    folds_zero_point = True                            # a shift of all inputs changes nothing
    makes_zero_point = True

    def attributes(self, layer: LayerShape, p: Precision) -> LayerNormAttributes:
        return LayerNormAttributes(epsilon=layer.attributes.get("epsilon", 1e-5))

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return width <= MOST_ELEMENTS

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work

        return Work(vector=job.vectors * (m.vx_fill + beats.normalise(m, job.width)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        out, c = graph.values[node.output], constants
        return arith.layer_norm(inputs[0], c["gain"], c["bias"], c["epsilon"], c["root_width"], c["rsqrt"],
                                c["multiplier"], c["shift"],
                                out.zero_point, out.bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        require(inputs[0].width == output.width, node, "keeps the width")
        require(inputs[0].width ** 3 << (2 * inputs[0].bits) < 1 << 62, node,
                f"{inputs[0].width} values of {inputs[0].bits} bits overflow the sum of squares")
