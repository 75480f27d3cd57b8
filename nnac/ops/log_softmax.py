"""Log-probabilities of logits, in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnac.formats import LOG
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, require

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops._work import Job, Work


class LogSoftmax(Operator):
    """`arith.log_softmax`: int16 Q4.11 out.  constants  exp int16 [513], log [513], multiplier, shift (logits to
    Q4.11)."""

    constants = ("exp", "log", "multiplier", "shift")
    gives = LOG
    floored = True                 # e^-16 stands for whatever is less probable
    in_one_piece = True

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return width <= MOST_ELEMENTS

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work

        return Work(vector=job.vectors * (m.vx_fill + beats.normalise(m, job.width)))

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        return arith.log_softmax(inputs[0], constants["exp"], constants["log"], constants["multiplier"],
                                 constants["shift"])

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        require(output.width == inputs[0].width < 1 << 15, node, "keeps the width, below 32768")
        require(output.bits == LOG.bits and output.scale in (None, LOG.scale), node, f"makes {LOG}")
