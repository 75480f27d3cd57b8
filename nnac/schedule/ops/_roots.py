"""The table of 1/sqrt: a program has one, whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence

from nnac.ir import Node, QGraph
from nnac.isa.vector import RSQRT_BYTES
from nnac.schedule.kernels import Parameters
from nnac.schedule.layout import ROOTS
from nnac.schedule.ops import Emission, Made


class WithRoots(Emission):
    """An operator whose instructions read it, beside parameters of their own; a node without the table reads none."""

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        if "rsqrt" not in node.constants:
            return super().parameters(node, graph, made)
        table = node.constants["rsqrt"].astype("<u2").tobytes().ljust(RSQRT_BYTES, b"\0")
        return *super().parameters(node, graph, made), Parameters(ROOTS, (table,), "")
