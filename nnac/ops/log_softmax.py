"""Log-probabilities of logits, in integers."""

from nnac import arith
from nnac.ops import Operator, require


class LogSoftmax(Operator):
    """`arith.log_softmax`: int16 Q4.11 out.  constants  exp int16 [513], log [513], multiplier, shift (logits to Q4.11)."""

    kind = "log_softmax"
    constants = ("exp", "log", "multiplier", "shift")

    def integers(self, node, graph, inputs, state, constants):
        return arith.log_softmax(inputs[0], constants["exp"], constants["log"], constants["multiplier"], constants["shift"])

    def verify_more(self, node, graph, inputs, output):
        require(output.width == inputs[0].width < 1 << 15, node, "keeps the width, below 32768")
        require(output.bits == 16 and output.scale in (None, 2.0**-arith.LOG_FRACTION), node, "makes int16 in Q4.11")
