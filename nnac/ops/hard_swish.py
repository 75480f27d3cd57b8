"""Hard swish: a value weighed by its own hard sigmoid."""

from nnac.ops._gate import GateOperator


class HardSwish(GateOperator):
    """``x min(max(x + 3, 0), 6) / 6``.  constants: `arith.hard_sigmoid_table`, multiplier, shift.

    Source: Howard et al. 2019 (arXiv 1905.02244); our integers
    """

    pieces = 1
