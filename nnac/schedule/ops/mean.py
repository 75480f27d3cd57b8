"""The mean over time, a vector at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnac import isa
from nnac.ir import Node, QGraph
from nnac.ops.mean import BITS, ONE
from nnac.schedule.emit import ELEMENTS, Emitter
from nnac.schedule.kernels import Parameters
from nnac.schedule.ops import Emission, Made
from nnac.vectors import align

PAIR = ONE << 16 | ONE         # two elements of int16


class MeanEmission(Emission):
    """FIL of what a vector counts, ADD to the count, ADD to the sum, LUT of the count, MUL of both."""

    tables = ("table",)

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        c, path = node.constants, node.path
        plain = isa.ADD.block.pack(m0=1, m1=1, s0=0, s1=0, bits=BITS)
        look = isa.LUT.block.pack(multiplier=1, shift=0, bits=BITS, zero_point=0, slot=made.slot(c["table"]),
                                  symmetry=0)
        product = isa.MUL.block.pack(multiplier=c["multiplier"], shift=c["shift"],
                                     bits=graph.values[node.output].bits, zero_point=0)
        return tuple(Parameters(f"{path}.{name}", (block,), path)
                     for name, block in (("plain", plain), ("look", look), ("product", product)))

    def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
        """``share``: one over the count, and before that what a vector counts."""
        return dict(share=align(2 * node.states[0].width))

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        plain, look, product = (e.parameters(f"{node.path}.{name}") for name in ("plain", "look", "product"))
        state = [e.plan.states[s.name] for s in node.states]
        for t in range(y.vectors):
            for first in range(0, y.form.width, ELEMENTS):
                n = min(ELEMENTS, y.form.width - first)
                total, count, share = (at + 2 * first for at in (*state, e.plan.buffers[f"{node.path}.share"]))
                e.put(isa.FIL(dst=share, bytes=4 * -(-n // 2), value=PAIR), "one")
                e.put(isa.ADD(a=count, b=share, dst=count, params=plain, n=n, a16=1, b16=1, out16=1), "count")
                e.put(isa.ADD(a=total, b=x.at(t) + first * x.form.size, dst=total, params=plain, n=n, a16=1,
                              b16=int(x.form.size == 2), out16=1), "sum")
                e.put(isa.LUT(src=count, dst=share, params=look, n=n, out16=1), "share")
                e.put(isa.MUL(a=total, b=share, dst=y.at(t) + first * y.form.size, params=product, n=n, a16=1, b16=1,
                              out16=int(y.form.size == 2)), "mean")
