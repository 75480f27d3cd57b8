"""What operators that keep a ring have in common: KEEP, and where the ring lies."""

from __future__ import annotations

from typing import cast

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node
from nnac.isa.ring import RING_HEAD
from nnac.ops import operator
from nnac.ops._ring import RingAttributes, RingOperator
from nnac.schedule.emit import Emitter
from nnac.schedule.forms import View
from nnac.schedule.ops import Emission


class RingEmission(Emission):
    """KEEP, then what reads the ring: chunk after chunk."""

    def emit(self, node: Node, e: Emitter) -> None:
        a = record(node.attributes, RingAttributes)
        x, y = e.views(node)[cast(RingOperator, operator(node.op)).ringed], e.views(node)[-1]
        at = ring_at(node, e)
        for first in range(0, y.vectors, a.chunk):
            e.put(isa.KEEP(src=x.at(first), ring=at, bytes=x.form.width, chunk=a.chunk, slots=a.slots), "keep")
            self.over(node, e, at, first, y)

    def over(self, node: Node, e: Emitter, ring: int, first: int, y: View) -> None:
        """What is computed for the chunk whose first vector is ``first``."""
        raise NotImplementedError


def ring_at(node: Node, e: Emitter) -> int:
    """Address of the node's ring: its count, and behind it the rows."""
    kind = cast(RingOperator, operator(node.op))
    count, rows = e.plan.states[f"{node.path}.count"], e.plan.states[f"{node.path}.{kind.ring}"]
    assert rows == count + RING_HEAD, f"the rows of {node.path} lie at {rows:#x}, its count at {count:#x}"
    return count
