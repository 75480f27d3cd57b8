"""Hardtanh, a value between two limits that are one another's negative, by table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes
from nnac.formats import PRE, unit_scale
from nnac.ops import require
from nnac.ops._table import TableOperator

if TYPE_CHECKING:
    from nnac import arith
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class HardtanhAttributes(Attributes):
    """The limits: ``-cap`` and ``cap``."""

    cap: float = 1.0


class Hardtanh(TableOperator):
    """``min(max(x, -cap), cap)``, cap from 1/64 to 8: `arith.hardtanh_table`, in units of the cap."""

    attributes_type = HardtanhAttributes
    symmetry = "odd"
    least, most = 1 / 64, float(1 << PRE.bits - 1 - PRE.fraction)

    def table(self, cap: float = 1.0) -> arith.Table:
        from nnac import arith

        return arith.hardtanh_table(cap)

    def bounded(self, attributes: Mapping[str, Any]) -> bool:
        return attributes.get("cap", 1.0) == 1.0

    def attributes(self, layer: LayerShape, p: Precision) -> HardtanhAttributes:
        return HardtanhAttributes(float(layer.attributes.get("cap", 1.0)))

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        from nnac.ir import Value

        cap = float(layer.attributes.get("cap", 1.0))
        return Value(layer.path, layer.width, p.activations, layer.rate, unit_scale(p.activations, cap))

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        super().verify_more(node, graph, inputs, output)
        cap = float(node.attributes["cap"])
        require(self.least <= cap <= self.most, node, f"a cap of {cap:g} is from {self.least:g} to {self.most:g}")
