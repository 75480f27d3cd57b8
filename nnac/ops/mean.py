"""The mean over time: at each step that of all vectors heard so far; what the model returns is the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, require
from nnac.ops._carriers import stacked

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work

BITS = 16                      # of sum and count
MOST = 256                     # vectors of int8 whose sum fits them
ONE = 64                       # what a vector counts: the distance of a table's entries, so that it is read exactly


@frozen(eq=False, repr=False)
class MeanAttributes(Attributes):
    """``length``: of how many vectors the mean is rounded once; see `Mean`."""

    length: int


class Mean(Operator):
    """``requantise(sum * table(count))``: the sum of all vectors since the beginning, exact, and one over their number.

    constants  table int16 [513]: ``units / k``, where ``units`` is the greatest multiple of ``length`` in 15 bits;
               multiplier, shift
    state      sum, count (`ONE` for each vector, in every element), both int16
    The mean of ``length`` vectors has no error but the last rounding.  That of k others has besides a relative one of
    at most k / (2 units): below 0.4 % up to `MOST` vectors.  Of more the sum saturates: who gives a model whole
    sequences refuses them (`nnac.evaluate.check_lengths`).
    Source: our choice.
    """

    attributes_type = MeanAttributes
    constants = ("table", "multiplier", "shift")
    remembers = True
    at_end = True
    in_one_piece = True
    narrow = (0,)

    def attributes(self, layer: LayerShape, p: Precision) -> MeanAttributes:
        return MeanAttributes(layer.attributes["length"])

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        from nnac.ir import State as StateVector

        return (StateVector(f"{layer.path}.sum", layer.width, BITS),
                StateVector(f"{layer.path}.count", layer.width, BITS, 1 / ONE, MOST * ONE))

    def state_bytes(self, attributes: Mapping[str, Any], width: int, hidden_bits: int) -> int:
        return 4 * width

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, pieces

        each = sum(5 * m.vx_fill + -(-4 * -(-n // 2) // m.lanes) + 2 * beats.add(m, n) + 2 * beats.elementwise(m, n)
                   for n in pieces(job.width, MOST_ELEMENTS))
        return Work(vector=job.vectors * each, buffer_bytes=2 * job.width)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        c, bits, names = constants, graph.values[node.output].bits, (f"{node.path}.sum", f"{node.path}.count")
        total, count = (state[n] for n in names)
        made = []
        for x in inputs[0]:
            total, count = arith.saturate(total + x, BITS), arith.saturate(count + ONE, BITS)
            made.append(arith.requantise(total * arith.lookup(c["table"], "odd", count), c["multiplier"], c["shift"], 0,
                                         bits))
        state[names[0]], state[names[1]] = total, count
        return stacked(made, inputs[0])

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        length, (x,) = record(node.attributes, MeanAttributes).length, inputs
        require(output.width == x.width and output.rate == x.rate, node, "keeps width and rate")
        require(x.bits <= 8 and x.zero_point == output.zero_point == 0, node, "takes symmetric int8")
        require(1 <= length <= MOST, node, f"takes the mean of 1 to {MOST} vectors")


def units(length: int) -> int:
    """What the table says of 1: the greatest multiple of ``length`` in 15 bits."""
    return 32767 // length * length
