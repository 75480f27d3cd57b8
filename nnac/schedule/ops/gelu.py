"""A value weighed by a table of itself."""

from nnac.schedule.ops._gate import GateEmission


class GeluEmission(GateEmission):
    """GATE of the input with itself."""
