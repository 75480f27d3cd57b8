"""Gated linear unit by table."""

from nnac.schedule.ops._gate import GateEmission


class GluEmission(GateEmission):
    """GATE of the halves of the input."""
