"""GELU: a value weighed by the normal distribution's integral."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes
from nnac.ops._gate import GateOperator

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class GeluAttributes(Attributes):
    """``approximate``: the integral by tanh, as some models have it."""

    approximate: bool = False


class Gelu(GateOperator):
    """``x Phi(x)``.  constants: `arith.normal_table`, multiplier, shift.  Source: Hendrycks and Gimpel 2016; our
    integers."""

    attributes_type = GeluAttributes
    pieces = 1

    def attributes(self, layer: LayerShape, p: Precision) -> GeluAttributes:
        return GeluAttributes(bool(layer.attributes.get("approximate", False)))
