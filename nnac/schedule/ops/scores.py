"""Scores of attention, a chunk of queries at a time."""

from __future__ import annotations

from collections.abc import Sequence

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.scores import ScoresAttributes
from nnac.schedule.emit import Emitter
from nnac.schedule.forms import View
from nnac.schedule.kernels import Parameters
from nnac.schedule.ops import Made
from nnac.schedule.ops._ring import RingEmission


class ScoresEmission(RingEmission):
    """DOT."""

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        c = node.constants
        block = isa.DOT.block.pack(multiplier=c["multiplier"], shift=c["shift"]) + c["bias"].astype("<i4").tobytes()
        return (Parameters(f"{node.path}.parameters", (block,), node.path),)

    def over(self, node: Node, e: Emitter, ring: int, first: int, y: View) -> None:
        a, q = record(node.attributes, ScoresAttributes), e.views(node)[0]
        e.put(isa.DOT(src=q.at(first), ring=ring, dst=y.at(first), params=e.parameters(f"{node.path}.parameters"),
                      n=a.head, heads=a.heads, chunk=a.chunk, slots=a.slots), "scores")
