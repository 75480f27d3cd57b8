"""ReLU and its leaky relative, by the gate's one product: a table that is the same everywhere is a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from nnac.attributes import Attributes
from nnac.formats import WIDE, unit_scale
from nnac.ops._gate import GateOperator

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Value
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class ReluAttributes(Attributes):
    """``slope`` of what is below zero; ``cap`` above which it saturates, 0 for none."""

    slope: float = 0.0
    cap: float = 0.0


class Relu(GateOperator):
    """``x`` above zero, ``slope x`` below, on an int16 of any scale; saturates at ``cap``, where it has one.

    constants  table int16 [513], ``1 / (1 + slope)`` in Q0.15 throughout: with the symmetry of a sigmoid, x times it is
               ``x / (1 + slope)`` above zero and ``slope x / (1 + slope)`` below; multiplier, shift make up for it
    As Q0.15 ends at 32767, the step of a plain ReLU is 1 - 2^-15 (and 2^-15 below zero: at most half a unit of int8).
    Source: Maas et al. 2013 (leaky); our integers
    """

    attributes_type = ReluAttributes
    pieces = 1
    takes = WIDE
    makes_zero_point = True

    def attributes(self, layer: LayerShape, p: Precision) -> ReluAttributes:
        a = layer.attributes
        return ReluAttributes(float(a.get("slope", 0.0)), float(a.get("cap", 0.0)))

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        from nnac.ir import Value

        cap = layer.attributes.get("cap", 0.0)
        return Value(layer.path, layer.width, p.activations, layer.rate, unit_scale(p.activations, cap) if cap else
                     None)
