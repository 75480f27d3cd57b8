"""Matrix-vector product, bias, requantisation per row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class LinearAttributes(Attributes):
    """Bits of the container that the products read; whether there is a bias."""

    weight_bits: int = 8
    bias: bool = True


class Linear(Operator):
    """``y = requantise(W x + b)``.

    constants  weight int8|int16 [rows, cols]
    bias int64 [rows], in units of s_x s_w[row] (the input's zero point folded in)
               multiplier, shift int64 [rows]
    attributes weight_bits
    """

    attributes_type = LinearAttributes
    constants = ("weight", "bias", "multiplier", "shift")
    folds_zero_point = True
    makes_zero_point = True

    def attributes(self, layer: LayerShape, p: Precision) -> LinearAttributes:
        return LinearAttributes(weight_bits=p.weights, bias=layer.attributes.get("bias", True))

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, bands, groups, requantised, words

        p, = (p for kernels in job.products for p in kernels.values())
        wide = job.in_bits > 8 or p.bits > 8
        together, (expected, least) = groups(job.vectors, m.columns), words(m, p, job.in_bits)
        last = beats.requantise(m, bands(p.rows, m.lanes)[-1])
        return Work(requantised(m, p.rows, together, wide), len(together) * expected, len(together) * least,
                    m.mv_drain + m.vx_fill + last)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        out = graph.values[node.output]
        acc = arith.matmul(inputs[0], constants["weight"]) + constants["bias"]
        return arith.requantise(acc, constants["multiplier"], constants["shift"], out.zero_point, out.bits)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        from nnac import arith

        if node.constants:
            w = node.constants["weight"]
            require(w.shape == (output.width, inputs[0].width), node,
                    f"weight {w.shape} fits [{output.width}, {inputs[0].width}]")
            bound = int(arith.accumulator_bound(inputs[0].bits, w, node.constants["bias"]).max())
            limit = 47 if max(inputs[0].bits, record(node.attributes, LinearAttributes).weight_bits) > 8 else 31
            require(bound < 1 << limit, node, f"the accumulator reaches {bound}, more than {limit + 1} bits")
            require(bound * int(node.constants["multiplier"].max()) < 1 << 62, node,
                    "accumulator times multiplier stays below 2^62")
