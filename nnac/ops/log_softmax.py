"""Log-probabilities of logits, in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnac.formats import LOG
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value


class LogSoftmax(Operator):
    """`arith.log_softmax`: int16 Q4.11 out.  constants  exp int16 [513], log [513], multiplier, shift (logits to Q4.11)."""

    constants = ("exp", "log", "multiplier", "shift")
    gives = LOG

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State, constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        return arith.log_softmax(inputs[0], constants["exp"], constants["log"], constants["multiplier"], constants["shift"])

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        require(output.width == inputs[0].width < 1 << 15, node, "keeps the width, below 32768")
        require(output.bits == LOG.bits and output.scale in (None, LOG.scale), node, f"makes {LOG}")
