"""Depthwise convolution, a chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.isa.vector import RQ_HEAD, RQ_ROW
from nnac.ops.depthwise import DepthwiseAttributes
from nnac.schedule.emit import Emitter
from nnac.schedule.forms import View
from nnac.schedule.kernels import Parameters
from nnac.schedule.ops import Made
from nnac.schedule.ops._ring import RingEmission
from nnac.vectors import align


class DepthwiseEmission(RingEmission):
    """DWC."""

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        c, out = node.constants, graph.values[node.output]
        block = (RQ_HEAD.pack(zero_point=out.zero_point, bits=out.bits)
                 + RQ_ROW.pack(bias=c["bias"], multiplier=c["multiplier"], shift=c["shift"])
                 + np.ascontiguousarray(c["weight"].T.astype(np.int8)).tobytes())
        return (Parameters(f"{node.path}.parameters", (block.ljust(align(len(block)), b"\0"),), node.path),)

    def weights(self, node: Node) -> Mapping[str, int]:
        return dict(weight=node.constants["weight"].size)

    def over(self, node: Node, e: Emitter, ring: int, first: int, y: View) -> None:
        a = record(node.attributes, DepthwiseAttributes)
        e.put(isa.DWC(ring=ring, dst=y.at(first), params=e.parameters(f"{node.path}.parameters"), n=y.form.width,
                      taps=a.taps, chunk=a.chunk, slots=a.slots, out16=int(y.form.size == 2)), "convolution")
