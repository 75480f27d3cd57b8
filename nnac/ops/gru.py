"""GRU over a sequence, one or both directions.  State: hidden (what the products read) and blend (int16 Q0.15, what the
update gate keeps)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.formats import UNIT, unit_scale
from nnac.ops import Array
from nnac.ops._recurrent import DIRECTIONS, SeparateOperator

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape


@frozen(eq=False, repr=False)
class GruAttributes(Attributes):
    """Cells, and bits of the hidden state; both directions, or one that goes from the sequence's end."""

    cells: int
    hidden_bits: int = 8
    bidirectional: bool = False
    reversed: bool = False


class Gru(SeparateOperator):
    """`arith.gru_cell`, then ``hidden = requantise(blend)``; gates r, z, n, each product with a bias of its own.

    constants  as of `SeparateOperator`, and hidden_multiplier, hidden_shift (from Q0.15), sigmoid, tanh int16 [513]
    """

    attributes_type = GruAttributes
    gates, memory = 3, "blend"
    of_direction = (*SeparateOperator.of_direction, "recurrent_bias")
    constants = ("hidden_multiplier", "hidden_shift", "sigmoid", "tanh")

    def attributes(self, layer: LayerShape, p: Precision) -> GruAttributes:
        return GruAttributes(cells=layer.attributes["cells"], hidden_bits=p.hidden,
                             bidirectional=layer.attributes.get("bidirectional", False))

    def update(self, m: MachineConfig, attributes: Mapping[str, Any], cells: int) -> int:
        from nnac.isa import beats

        return m.vx_fill + beats.gru(m, cells)

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        from nnac.ir import State as StateVector

        cells, scale = layer.attributes["cells"], unit_scale(p.hidden, p.hidden_clip)
        return tuple(s for d in DIRECTIONS[layer.attributes.get("bidirectional", False)]
                     for s in (StateVector(f"{layer.path}.{d}hidden", cells, p.hidden, scale),
                               StateVector(f"{layer.path}.{d}blend", cells, UNIT.bits, UNIT.scale)))

    def step(self, from_input: Array, from_hidden: Array, memory: Array, c: Mapping[str, Array],
             node: Node) -> tuple[Array, Array]:
        from nnac import arith

        blend = arith.gru_cell(from_input, from_hidden, memory, c["sigmoid"], c["tanh"])
        bits = record(node.attributes, GruAttributes).hidden_bits
        return arith.requantise(blend, c["hidden_multiplier"], c["hidden_shift"], 0, bits), blend
