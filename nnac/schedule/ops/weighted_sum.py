"""The weighted sum of attention, a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.weighted_sum import WeightedSumAttributes
from nnac.schedule.emit import Emitter
from nnac.schedule.forms import View
from nnac.schedule.kernels import Parameters
from nnac.schedule.ops import Made
from nnac.schedule.ops._ring import RingEmission


class WeightedSumEmission(RingEmission):
    """MIX."""

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        c = node.constants
        block = isa.MIX.block.pack(multiplier=c["multiplier"], shift=c["shift"], bits=graph.values[node.output].bits)
        return (Parameters(f"{node.path}.parameters", (block,), node.path),)

    def over(self, node: Node, e: Emitter, ring: int, first: int, y: View) -> None:
        a, p = record(node.attributes, WeightedSumAttributes), e.views(node)[0]
        e.put(isa.MIX(src=p.at(first), ring=ring, dst=y.at(first), params=e.parameters(f"{node.path}.parameters"),
                      n=a.head, heads=a.heads, chunk=a.chunk, slots=a.slots, p16=int(p.form.size == 2),
                      out16=int(y.form.size == 2)), "weighted sum")
