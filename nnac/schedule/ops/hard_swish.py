"""A value weighed by a table of itself."""

from nnac.schedule.ops._gate import GateEmission


class HardSwishEmission(GateEmission):
    """GATE of the input with itself."""
