"""Swish by table."""

from nnac.schedule.ops._gate import GateEmission


class SwishEmission(GateEmission):
    """GATE of the input with itself."""
