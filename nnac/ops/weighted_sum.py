"""The weighted sum of attention: the values that each frame of a chunk hears, weighed by its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import record
from nnac.ops import Array, State, require
from nnac.ops._ring import RingAttributes, RingOperator

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class WeightedSumAttributes(RingAttributes):
    """``heads`` of ``head`` elements each."""

    heads: int = 1
    head: int = 1


class WeightedSum(RingOperator):
    """`arith.weighted_sum` of probabilities [heads * slots * chunk], oldest row first, and values [heads * head].

    constants  multiplier, shift (scalars)      state  count, values
    """

    inputs = 2
    constants = ("multiplier", "shift")
    attributes_type = WeightedSumAttributes
    ringed, ring, narrow = 1, "values", (1,)

    def slots(self, layer: Mapping[str, Any]) -> int:
        return int(layer["left"] // layer["chunk"] + 1) if "left" in layer else int(layer["slots"])

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return attributes["heads"] * attributes["head"] % 4 == 0       # ``width`` is that of the probabilities

    def attributes(self, layer: LayerShape, p: Precision) -> WeightedSumAttributes:
        a = layer.attributes
        return WeightedSumAttributes(self.slots(a), a["chunk"], a["heads"], a["head"])

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work

        a = job.attributes
        rows, width = self.slots(a) * a["chunk"], a["heads"] * a["head"]
        products = beats.attention(m, a["chunk"], rows, a["heads"], a["head"]) * (2 if job.in_bits > 8 else 1)
        each = 2 * m.vx_fill + beats.keep(m, a["chunk"], width) + products + beats.requantise(m, width, a["chunk"])
        return Work(vector=job.vectors // a["chunk"] * each)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        a, c, (p, v) = record(node.attributes, WeightedSumAttributes), constants, inputs
        values, _ = self.windows(node.path, v, state, a.slots, a.chunk)
        steps, batch, rows, _ = values.shape
        weights = p.reshape(steps, a.chunk, batch, a.heads, rows).swapaxes(1, 2).swapaxes(2, 3)
        values = values.reshape(steps, batch, rows, a.heads, a.head).swapaxes(2, 3)
        y = arith.weighted_sum(weights, values, c["multiplier"], c["shift"], graph.values[node.output].bits)
        return y.swapaxes(2, 3).swapaxes(1, 2).reshape(steps * a.chunk, batch, a.heads * a.head)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = record(node.attributes, WeightedSumAttributes)
        p, v = inputs
        require(v.width == output.width == a.heads * a.head and v.bits <= 8, node,
                f"values are int8 of {a.heads} heads of {a.head}")
        require(p.width == a.heads * a.slots * a.chunk and output.rate % a.chunk == 0, node,
                "a probability for every head and row of the ring")
        require(p.zero_point == v.zero_point == output.zero_point == 0, node, "symmetric formats")
