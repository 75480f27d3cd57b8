"""Two vectors in, one out: the base of ``add``, ``multiply``."""

from __future__ import annotations

from typing import ClassVar

from nnac import isa
from nnac.ir import Node
from nnac.schedule.emit import Emitter
from nnac.schedule.ops._elementwise import OneBlock


class PairEmission(OneBlock):
    """``instruction`` over all vectors."""

    instruction: ClassVar[type[isa.ADD] | type[isa.MUL]]

    def emit(self, node: Node, e: Emitter) -> None:
        a, b, y = e.views(node)
        wide = dict(a16=int(a.form.size == 2), b16=int(b.form.size == 2), out16=int(y.form.size == 2))
        params = e.parameters(f"{node.path}.parameters")
        e.pieces((a, b, y), lambda at, n: self.instruction(a=at[0], b=at[1], dst=at[2], params=params, n=n, **wide),
                 node.op)
