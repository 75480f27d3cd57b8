"""Log-probabilities of a vector at a time."""

from __future__ import annotations

from nnac import isa
from nnac.ir import Node, Value
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Made
from nnac.schedule.ops._elementwise import OneBlock


class LogSoftmaxEmission(OneBlock):
    """LSM."""

    tables = ("exp", "log")

    def block(self, node: Node, out: Value, made: Made) -> bytes:
        c = node.constants
        return isa.LSM.block.pack(multiplier=c["multiplier"], shift=c["shift"], exp=made.slot(c["exp"]),
                                  log=made.slot(c["log"]))

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        params = e.parameters(f"{node.path}.parameters")
        for t in range(y.vectors):
            e.put(isa.LSM(src=x.at(t), dst=y.at(t), params=params, n=y.form.width, a16=int(x.form.size == 2)),
                  "log-softmax")
