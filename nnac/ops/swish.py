"""Swish, also called SiLU: a value weighed by its own sigmoid."""

from nnac.ops._gate import GateOperator


class Swish(GateOperator):
    """``x sigmoid(x)``.  Source: Ramachandran et al. 2017 (arXiv 1710.05941); our integers."""

    pieces = 1
