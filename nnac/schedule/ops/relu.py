"""ReLU by a table that is the same everywhere."""

from nnac.schedule.ops._gate import GateEmission


class ReluEmission(GateEmission):
    """GATE of the input with itself."""
